package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

// keeper keeps a directory of keys while the process runs: it sees what others
// change, makes and removes keys as time goes, and publishes if it is an issuer's.
type keeper struct {
	dir     *keydir.Dir
	every   time.Duration // zero: others rotate
	log     *slog.Logger
	publish func() error // nil: others publish

	mu   sync.Mutex
	told map[string]keydir.State // what the log says of each key
	last string                  // the last complaint
}

// start refuses at once what could never be done, and makes a key if one is due.
func (k *keeper) start() error {
	if k.every == 0 {
		return nil
	}
	if _, _, err := k.dir.RotateIfDue(k.every); err != nil {
		return fmt.Errorf("--rotate-every: %w", err)
	}
	return nil
}

// round is the time between two looks for what is due although nothing changed.
const round = time.Hour

// run tends the directory, at each change and in rounds, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	rounds.Go(func() { k.rounds(ctx) })
	if err := k.dir.Watch(ctx, k.tend); err != nil && ctx.Err() == nil {
		k.log.Error("the directory of keys is no longer watched: restart to see its changes", "dir", k.dir.Path(), "error", err.Error())
	}
}

func (k *keeper) rounds(ctx context.Context) {
	tick := time.NewTicker(round)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.tend(nil)
			k.tellForgotten()
		}
	}
}

// tend does what is due, whenever the directory or the state of a key changes.
func (k *keeper) tend(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil && k.every > 0 {
		_, _, err = k.dir.RotateIfDue(k.every)
	}
	if err == nil && k.publish != nil {
		err = k.publish()
	}
	if err == nil && (k.every > 0 || k.publish != nil) {
		_, err = k.dir.Prune()
		if readOnly(err) { // old keys stay until somebody may remove them
			err = nil
		}
	}
	k.tellStates()
	k.tellTrouble(err)
}

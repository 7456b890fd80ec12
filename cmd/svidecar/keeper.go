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

// tellStates writes one line for each key whose state has changed.
func (k *keeper) tellStates() {
	now := map[string]keydir.State{}
	for _, key := range k.dir.Keys() {
		now[key.ID] = key.State
		if state, known := k.told[key.ID]; !known || state != key.State {
			args := []any{"kid", key.ID, "state", key.State.String()}
			if !key.SignsFrom.IsZero() {
				args = append(args, "signs_from", key.SignsFrom)
			}
			if !key.RemovedAt.IsZero() {
				args = append(args, "leaves", key.RemovedAt)
			}
			k.log.Info("signing key", args...)
		}
	}
	for id := range k.told {
		if _, there := now[id]; !there {
			k.log.Info("signing key", "kid", id, "state", "removed")
		}
	}
	k.told = now
}

// tellTrouble complains once of each trouble, since it is met again each minute.
func (k *keeper) tellTrouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != k.last {
		k.log.Error("the keys cannot be kept as they should: those in use go on", "dir", k.dir.Path(), "error", text)
	}
	k.last = text
}

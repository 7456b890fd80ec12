package main

import (
	"cmp"
	"context"
	"errors"
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
	publish func(context.Context) error // nil: others publish

	round time.Duration // shorter than the usual one, for tests; zero: the usual one

	mu   sync.Mutex
	told map[string]keydir.State // what the log says of each key
	last string                  // the last complaint
}

// start refuses at once what could never be done, and makes a key if one is due.
// What cannot be done today is told later, by tend: the key that signs is good.
func (k *keeper) start(ctx context.Context) error {
	if k.every == 0 {
		return nil
	}
	if _, _, err := k.dir.RotateIfDue(ctx, k.every); errors.Is(err, keydir.ErrTooOften) {
		return fmt.Errorf("--rotate-every: %w", err)
	}
	return nil
}

// The time between two looks for what is due although nothing changed.
const (
	round      = time.Hour
	retryRound = time.Minute // after trouble
)

// run tends the directory, at each change and in rounds, until ctx ends.
func (k *keeper) run(ctx context.Context) {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	rounds.Go(func() { k.rounds(ctx) })
	if err := k.dir.Watch(ctx, func(err error) { k.tend(ctx, err) }); err != nil && ctx.Err() == nil {
		k.log.Error("the directory of keys is no longer watched: restart to see its changes", "dir", k.dir.Path(), "error", err.Error())
	}
}

func (k *keeper) rounds(ctx context.Context) {
	for {
		wait := round
		if k.inTrouble() {
			wait = retryRound
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, cmp.Or(k.round, wait))):
			k.tend(ctx, nil)
			k.tellForgotten()
		}
	}
}

func (k *keeper) inTrouble() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.last != ""
}

// tend does what is due, whenever the directory or the state of a key changes.
func (k *keeper) tend(ctx context.Context, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// What fails keeps nothing else from being done: a stolen key must leave
	// the documents although no new one can be made.
	all := []error{err}
	if k.every > 0 {
		_, _, err := k.dir.RotateIfDue(ctx, k.every)
		all = append(all, err)
	}
	if k.publish != nil {
		all = append(all, k.publish(ctx))
	} else {
		all = append(all, k.dir.CheckFiles()) // of the key that signs next, too
	}
	if k.every > 0 || k.publish != nil {
		_, err := k.dir.Prune(ctx)
		all = append(all, err)
	}
	k.tellStates()
	k.tellTrouble(errors.Join(all...))
}

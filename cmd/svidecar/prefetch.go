package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/svidecar/svidecar/exchange"
)

// prefetchKeys turns each entry of --prefetch, RESOURCE or NAME=RESOURCE, into
// the key that a request for it would get.
func (sc *sidecar) prefetchKeys() ([]exchange.Key, error) {
	var keys []exchange.Key
	for _, entry := range sc.cfg.Prefetch {
		name, resource, named := strings.Cut(entry, "=")
		if !named {
			name, resource = "", entry
		}
		key, err := sc.keyOf(name, resource)
		if err != nil {
			return nil, fmt.Errorf("--prefetch: %q: %w", entry, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// prefetch gets the first token of each key in the background, and returns what
// waits for the end of that.
func (sc *sidecar) prefetch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all, each sync.WaitGroup
	for _, key := range sc.keys {
		each.Go(func() { sc.persist(ctx, key) })
	}
	all.Go(func() {
		each.Wait()
		sc.warm.Store(ctx.Err() == nil)
	})
	return func() { cancel(); all.Wait() }
}

// again is how often a reason that lasts is told.
const again = 10 * time.Minute

// persist asks until there is a token. While a new federated credential spreads
// through Entra, refusals come and go for minutes: a reason is told when it is
// new, and every ten minutes.
func (sc *sidecar) persist(ctx context.Context, key exchange.Key) {
	begun, told, reason := time.Now(), time.Time{}, ""
	for attempt := 0; ; attempt++ {
		_, err := sc.tokens.Token(ctx, key)
		switch {
		case err == nil:
			sc.log.Info("first token is here", "client_id", key.ClientID, "scope", key.Scope, "after", time.Since(begun).Round(time.Millisecond).String())
			return
		case ctx.Err() != nil:
			return
		case reason != reasonOf(err) || time.Since(told) > again:
			told, reason = time.Now(), reasonOf(err)
			sc.log.Warn("no first token yet: asking on quietly", "client_id", key.ClientID, "scope", key.Scope, "error", err.Error())
		}
		select {
		case <-time.After(time.Second<<min(attempt, 4) + rand.N(time.Second)):
		case <-ctx.Done():
			return
		}
	}
}

// reasonOf tells failures apart, without what differs from one to the next.
func reasonOf(err error) string {
	var failed *exchange.Error
	if errors.As(err, &failed) {
		return failed.Kind.String() + failed.Code
	}
	return err.Error()
}

// ready is what /readyz says beside that the process serves.
func (sc *sidecar) ready() error {
	if sc.cfg.ReadyRequiresToken && !sc.warm.Load() {
		return errors.New("waiting for the first token of each --prefetch: the log says why")
	}
	return nil
}

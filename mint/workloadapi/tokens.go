package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/singleflight"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	mostTokens  = 1000
	mostMints   = 8                // at once: signing costs a core a millisecond, and a remote key may cost money
	mintTimeout = 10 * time.Second // of one minting, the wait for a place included
	patience    = time.Second      // for a new token, while the one we hold is still good
	lastUse     = 10 * time.Second // of life that a token needs to be of use
)

var errClosed = errors.New("the server is stopping")

// ask is what a token is held for.
type ask struct {
	id       spiffeid.ID
	audience string
}

// token is a JWT-SVID that was minted here.
type token struct {
	value                      secret.Value
	kid                        string
	notBefore, renewal, expiry time.Time
}

// fresh reports whether t need not be renewed. Times in claims have no monotonic
// reading, so that a clock set back counts.
func (t *token) fresh(now time.Time) bool {
	return t != nil && !now.Before(t.notBefore) && now.Before(t.renewal)
}

// usable reports whether t can still be handed out.
func (t *token) usable(now time.Time) bool {
	return t != nil && !now.Before(t.notBefore) && now.Add(lastUse).Before(t.expiry)
}

// tokens hands out one token per ask until half of its life is over, and near to
// its end while no other can be had. Callers that need a new one at the same time
// share it. It holds a thousand; the one that was not asked for the longest goes.
type tokens struct {
	mint   func(context.Context, ask) (*token, error)
	fault  func(error)
	base   context.Context // of every minting; ends with close
	stop   context.CancelCauseFunc
	places chan struct{}

	waiting sync.WaitGroup // for mintings, which may outlive their callers
	flight  singleflight.Group

	mu   sync.Mutex
	held *simplelru.LRU[ask, *token]
}

func newTokens(mint func(context.Context, ask) (*token, error), fault func(error)) *tokens {
	held, err := simplelru.NewLRU[ask, *token](mostTokens, nil)
	if err != nil {
		panic("workloadapi: internal error: " + err.Error()) // for a size below 1 only
	}
	t := &tokens{mint: mint, fault: fault, held: held, places: make(chan struct{}, mostMints)}
	t.base, t.stop = context.WithCancelCause(context.Background())
	return t
}

// close ends minting and waits for it. Nobody may call get any more.
func (t *tokens) close() {
	t.stop(errClosed)
	t.waiting.Wait()
}

// get returns the token held for a, if set can verify it, or a new one.
func (t *tokens) get(ctx context.Context, a ask, set *keySet) (*token, error) {
	now, held := time.Now(), t.look(a)
	if held != nil && set.byID[held.kid] == nil {
		held = nil // its key was withdrawn, for theft perhaps
	}
	if held.fresh(now) {
		return held, nil
	}
	if !held.usable(now) {
		return t.renew(ctx, a)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if renewed, err := t.renew(ctx, a); err == nil {
		return renewed, nil
	}
	return held, nil
}

func (t *tokens) look(a ask) *token {
	t.mu.Lock()
	defer t.mu.Unlock()
	held, _ := t.held.Get(a)
	return held
}

// renew waits for the minting under way, or starts it. It goes on when the caller
// leaves, for others who want it.
func (t *tokens) renew(ctx context.Context, a ask) (*token, error) {
	type result struct {
		token *token
		err   error
	}
	done := make(chan result, 1)
	t.waiting.Go(func() {
		got, err, _ := t.flight.Do(fmt.Sprintf("%q %q", a.id, a.audience), func() (any, error) { return t.obtain(a) })
		minted, _ := got.(*token)
		done <- result{minted, err}
	})
	select {
	case r := <-done:
		return r.token, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// obtain mints, and holds what was minted. Failures are told here and not by the
// callers, who may be many, or be served with an older token.
func (t *tokens) obtain(a ask) (*token, error) {
	ctx, cancel := context.WithTimeout(t.base, mintTimeout)
	defer cancel()
	minted, err := t.inTurn(ctx, a)
	if err != nil {
		if t.base.Err() == nil {
			t.fault(fmt.Errorf("workloadapi: mint a JWT-SVID of %s: %w", a.id, err))
		}
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held.Add(a, minted)
	return minted, nil
}

// inTurn waits for a place, and contains a panic, which singleflight would end
// the process with.
func (t *tokens) inTurn(ctx context.Context, a ask) (minted *token, err error) {
	defer func() {
		if p := recover(); p != nil {
			minted, err = nil, errors.New("internal error: minting panicked; report this as a fault")
		}
	}()
	select {
	case t.places <- struct{}{}:
		defer func() { <-t.places }()
	case <-ctx.Done():
		return nil, fmt.Errorf("no place among the %d mintings at once: %w", mostMints, context.Cause(ctx))
	}
	return t.mint(ctx, a)
}

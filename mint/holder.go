package mint

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// holder hands out one assertion until half of its life is over, and near to its
// end while no other can be had. Callers that need a new one of the same key at
// the same time share it. Its fields above the line are set before its first use.
type holder struct {
	doing string       // in errors: what obtaining is
	fault func() error // for a panic in obtain

	held   atomic.Pointer[Assertion]
	flight singleflight.Group
	began  sync.Map // kid → time.Time at which the obtaining under way began
}

// assertion returns the one in use, or obtains another when half of its life is
// over. If that fails, or takes longer than a second, the old one serves until
// 10 s before its end, and each call tries again. The second is one for all callers
// of an attempt: an exchange asks twice, and would wait twice. Without an assertion
// the caller waits until ctx is done; the work goes on for those who still want it.
//
// A kid that is not empty names the only key whose assertions will do: one of
// another key counts as none. obtain is bounded in time, if its work can be.
func (h *holder) assertion(ctx context.Context, kid string, obtain func() (*Assertion, error)) (Assertion, error) {
	if ctx.Err() != nil {
		return Assertion{}, h.gaveUp(ctx)
	}
	now, held := time.Now(), h.of(kid)
	if held.fresh(now) {
		return held.clone(), nil
	}
	if !held.usable(now) {
		return h.renew(ctx, kid, obtain)
	}
	if began, ok := h.began.Load(kid); ok {
		now = began.(time.Time)
	}
	ctx, cancel := context.WithDeadline(ctx, now.Add(patience))
	defer cancel()
	if renewed, err := h.renew(ctx, kid, obtain); err == nil {
		return renewed, nil
	}
	return held.clone(), nil
}

// drop forgets the assertion in use, which was refused.
func (h *holder) drop() { h.held.Store(nil) }

// of returns the assertion in use if it will do, or nil.
func (h *holder) of(kid string) *Assertion {
	held := h.held.Load()
	if held != nil && kid != "" && held.Claims.KeyID != kid {
		return nil
	}
	return held
}

// renew waits for the one obtaining under way for the key, or starts it.
func (h *holder) renew(ctx context.Context, kid string, obtain func() (*Assertion, error)) (Assertion, error) {
	// At most one goroutine per holder and key outlives its callers.
	done := h.flight.DoChan(kid, func() (obtained any, err error) {
		h.began.Store(kid, time.Now())
		defer h.began.Delete(kid)
		defer func() { // singleflight would end the process
			if p := recover(); p != nil {
				obtained, err = nil, h.fault()
			}
		}()
		if held := h.of(kid); held.fresh(time.Now()) {
			return held, nil
		}
		got, err := obtain()
		if err != nil {
			return nil, err
		}
		h.held.Store(got)
		return got, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return Assertion{}, r.Err
		}
		return r.Val.(*Assertion).clone(), nil
	case <-ctx.Done():
		return Assertion{}, h.gaveUp(ctx)
	}
}

func (h *holder) gaveUp(ctx context.Context) error {
	return fmt.Errorf("mint: %s: %w", h.doing, context.Cause(ctx))
}

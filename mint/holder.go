package mint

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// holder hands out one assertion until half of its life is over, and near to its
// end while no other can be had. Callers that need a new one at the same time
// share it. Its funcs are set before its first use.
type holder struct {
	doing  string                     // in errors: what obtain does
	obtain func() (*Assertion, error) // bounded in time, if its work can be
	fault  func() error               // for a panic in obtain

	held   atomic.Pointer[Assertion]
	flight singleflight.Group
}

// assertion returns the one in use, or obtains another when half of its life is
// over. If that fails, or takes longer than a second, the old one serves until
// 10 s before its end, and each call tries again. Without one the caller waits
// until ctx is done; the work goes on for those who still want it.
func (h *holder) assertion(ctx context.Context) (Assertion, error) {
	if ctx.Err() != nil {
		return Assertion{}, h.gaveUp(ctx)
	}
	now, held := time.Now(), h.held.Load()
	if held.fresh(now) {
		return held.clone(), nil
	}
	if !held.usable(now) {
		return h.renew(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if renewed, err := h.renew(ctx); err == nil {
		return renewed, nil
	}
	return held.clone(), nil
}

// drop forgets the assertion in use, which was refused.
func (h *holder) drop() { h.held.Store(nil) }

// renew waits for the one obtaining under way, or starts it.
func (h *holder) renew(ctx context.Context) (Assertion, error) {
	// At most one goroutine per holder outlives its callers.
	done := h.flight.DoChan("", func() (obtained any, err error) {
		defer func() { // singleflight would end the process
			if p := recover(); p != nil {
				obtained, err = nil, h.fault()
			}
		}()
		if held := h.held.Load(); held.fresh(time.Now()) {
			return held, nil
		}
		got, err := h.obtain()
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

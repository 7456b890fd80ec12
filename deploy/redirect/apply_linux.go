package redirect

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Reading back is tried again while another process replaces the same rules:
// what is read then may be half of the old and half of the new.
const (
	readTries = 5
	readPause = 20 * time.Millisecond
)

// Apply does what the plan says in this network namespace, reads it back, and is
// an error if there is any difference. It may be repeated. It wants
// CAP_NET_ADMIN, and refuses a namespace that is not a pod's own, unless
// Config.UnsafeHostNetwork. After an error, what is there is left there: at
// worst it keeps requests from the sidecar, while to take it away would let them
// through to the real service.
func (p *Plan) Apply(ctx context.Context) error {
	if err := p.mayChange(); err != nil {
		return wrap(err)
	}
	if err := p.set(ctx); err != nil {
		return wrap(err)
	}
	if err := p.Check(ctx); err != nil {
		return fmt.Errorf("%w; what is there was left, because without it apps reach the real service: do not start the app", err)
	}
	return nil
}

// Check reads back and is an error if there is any difference from the plan. It
// wants CAP_NET_ADMIN, without which the kernel shows no rules.
func (p *Plan) Check(ctx context.Context) (err error) {
	for range readTries {
		if err = p.differs(ctx); err == nil || errors.Is(err, errNetAdmin) {
			return wrap(err)
		}
		select {
		case <-time.After(readPause):
		case <-ctx.Done():
			return fmt.Errorf("redirect: reading back: %w (%v)", err, context.Cause(ctx))
		}
	}
	return fmt.Errorf("redirect: reading back: %w", err)
}

// Remove takes away what Apply has made. It is no error if it is not there.
func (p *Plan) Remove(ctx context.Context) error {
	if err := p.mayChange(); err != nil {
		return wrap(err)
	}
	switch p.cfg.Method {
	case Loopback:
		return wrap(p.removeAddress())
	case IPTables:
		return wrap(p.removeIPTables(ctx))
	default:
		return wrap(removeTable())
	}
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("redirect: %w", err)
}

func (p *Plan) mayChange() error {
	if err := needNetAdmin(); err != nil {
		return err
	}
	return p.refuseHostNetwork()
}

func (p *Plan) set(ctx context.Context) error {
	switch p.cfg.Method {
	case Loopback:
		return p.setAddress()
	case IPTables:
		return p.setIPTables(ctx)
	default:
		return p.setTable()
	}
}

func (p *Plan) differs(ctx context.Context) error {
	switch p.cfg.Method {
	case Loopback:
		return p.addressDiffers()
	case IPTables:
		return p.iptablesDiffers(ctx)
	default:
		return p.tableDiffers()
	}
}

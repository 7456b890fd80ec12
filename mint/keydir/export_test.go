package keydir

import (
	"context"
	"crypto"
	"time"
)

// TestHooks are [hooks] that tests of the package from outside can set.
type TestHooks struct {
	Step     func(name string)
	Generate func(bits int) (crypto.Signer, error)
	Quiet    bool
}

// CreateHooked is Create with hooks.
func CreateHooked(dir string, opts Options, h TestHooks) (*Dir, error) {
	return create(dir, opts, hooks{h.Step, h.Generate, h.Quiet})
}

// Hook sets the hooks of d.
func (d *Dir) Hook(h TestHooks) { d.hooks = hooks{h.Step, h.Generate, h.Quiet} }

// SetWait changes the publication wait alone, which programs cannot.
func (d *Dir) SetWait(ctx context.Context, wait time.Duration) error {
	_, err := d.update(ctx, func(e *edit) error {
		e.Wait = duration(wait)
		return nil
	})
	return err
}

// Cannot is the error of a writer that could not.
func (d *Dir) Cannot(err error) error { return d.cannot("test", err) }

// Decode reads a manifest, writes it again, and derives its states.
func Decode(data []byte, now time.Time) (again []byte, keys []Key, err error) {
	m, err := decode(data)
	if err != nil {
		return nil, nil, err
	}
	again, err = m.encode()
	return again, m.keysAt(now), err
}

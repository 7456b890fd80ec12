package keydir

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

const defaultBits = 2048

// Create makes a directory with a manifest and a first key, which is pending. The
// directory may exist, and gets mode 0700 if it does not; if it has a manifest,
// that stays, and the error matches [fs.ErrExist].
func Create(dir string, opts Options) (*Dir, error) { return create(dir, opts, hooks{}) }

func create(dir string, opts Options, h hooks) (*Dir, error) {
	if opts.Bits == 0 {
		opts.Bits = defaultBits
	}
	if opts.PublicationWait == 0 {
		opts.PublicationWait = defaultWait
	}
	if err := checkWait(opts.PublicationWait); err != nil {
		return nil, fmt.Errorf("keydir: Options.PublicationWait: %w", err)
	}
	d := &Dir{path: dir, hooks: h}
	if err := d.vacant(); err != nil {
		return nil, err
	}
	key, err := d.generate(opts.Bits)
	if err != nil {
		return nil, fmt.Errorf("keydir: Options.Bits: %w", err)
	}
	m := manifest{Version: manifestVersion, Issuer: opts.Issuer, Wait: duration(opts.PublicationWait)}
	if err := d.first(m, key); err != nil {
		return nil, err
	}
	return d, nil
}

// first writes the first manifest, which is checked before anything is made.
func (d *Dir) first(m manifest, key crypto.Signer) error {
	made, err := newEntry(key.Public(), time.Now())
	if err != nil {
		return fmt.Errorf("keydir: make a key: %w", err)
	}
	m.Keys = []entry{made}
	if err := m.check(); err != nil {
		return fmt.Errorf("keydir: Options.Issuer: %w", err)
	}
	d.step("make the directory")
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return d.cannot("make the directory", err)
	}
	return d.locked(context.Background(), func() error {
		if err := d.vacant(); err != nil {
			return err
		}
		if err := d.writeKey(made.ID, key); err != nil {
			return err
		}
		return d.commit(manifest{}, m)
	})
}

// vacant refuses a directory that has a manifest, whatever that is.
func (d *Dir) vacant() error {
	_, err := os.Lstat(d.manifestPath())
	switch {
	case err == nil:
		return fmt.Errorf("keydir: %q has keys already: %w; use it as it is, or give another directory", d.path, fs.ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return d.cannot("look for keys", err)
}

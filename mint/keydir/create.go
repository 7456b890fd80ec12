package keydir

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const defaultBits = 2048

// Create makes a directory with a manifest and a first key, which is pending. The
// directory may exist, and gets mode 0700 if it does not; if it has a manifest,
// that stays, and the error matches [fs.ErrExist]. If it has private keys and no
// manifest it is refused, and stays as it is.
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
		if err := d.noOrphans(); err != nil { // under the lock: another creation may be at work
			return err
		}
		return d.begin(m, key)
	})
}

// begin writes the two first files, or none. What else is there stays.
func (d *Dir) begin(m manifest, key crypto.Signer) error {
	kid := m.Keys[0].ID
	err := d.writeKey(kid, key)
	if err == nil {
		err = d.store(m)
	}
	if err != nil {
		_ = os.Remove(d.keyPath(kid)) // else the next attempt is refused for it
	}
	return err
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

// noOrphans refuses a directory that has private keys and no manifest: where only
// that was lost they are the issuer's, and the next writer would remove them.
func (d *Dir) noOrphans() error {
	orphans, err := d.orphans()
	switch {
	case err != nil:
		return d.cannot("look for keys", err)
	case len(orphans) > 0:
		return fmt.Errorf("keydir: private keys are left in %q, such as %s, and %s is gone: restore it from a copy, or give another directory (if only keys init was cut short, remove them)",
			d.path, orphans[0], manifestName)
	}
	return nil
}

// orphans returns the names of all private keys in the directory, whatever the
// manifest says. Where there is no directory there is none.
func (d *Dir) orphans() (names []string, err error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil // what is no directory is refused elsewhere
	}
	for _, e := range entries {
		if keyFile.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

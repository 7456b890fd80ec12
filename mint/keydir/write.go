package keydir

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/svidecar/svidecar/mint"
)

const (
	lockName  = ".lock"
	keySuffix = ".pem"
	tempName  = ".svidecar-keys-*" // of a manifest on its way

	lockPatience = 30 * time.Second // a writer may have to make a key of 4,096 bits
	lockPause    = 25 * time.Millisecond
)

// edit is one change of the manifest on its way.
type edit struct {
	dir *Dir
	manifest
	now      time.Time
	removed  []string // kids whose time was over
	thorough bool     // whatever cannot be removed is to be told, not only what this change removes
}

// update is how every writer changes the directory: under the lock, by what the
// manifest says there. An error of decide means that nothing was decided. Keys
// whose time is over go along, and so does what dead writers left. An error that
// matches ErrLeft comes after the change.
func (d *Dir) update(ctx context.Context, decide func(*edit) error) (removed []string, err error) {
	err = d.locked(ctx, func() error {
		if err := d.Reload(); err != nil {
			return err
		}
		before := d.snapshot.Load().manifest
		e := &edit{dir: d, manifest: before.clone(), now: time.Now()}
		e.removed = e.prune(e.now)
		if err := decide(e); err != nil {
			_ = d.sweep(before, nothing) // of the key that a refused change may have made, too
			return err
		}
		removed = e.removed
		return d.commit(before, e)
	})
	return removed, err
}

// commit writes the manifest, if it differs, and removes what is not in it. That
// order lets no reader find a key in the manifest that has no file. What cannot be
// removed does not undo the change: the next writer tries again, and only keys that
// this one has dropped are told of.
func (d *Dir) commit(before manifest, e *edit) error {
	old, err := before.encode()
	if err != nil {
		return fmt.Errorf("keydir: %w", err)
	}
	data, err := e.encode()
	if err != nil {
		return fmt.Errorf("keydir: %w", err)
	}
	if !bytes.Equal(old, data) {
		if err := d.store(e.manifest); err != nil {
			return err
		}
	}
	return d.sweep(e.manifest, func(kid string) bool { return e.thorough || before.has(kid) })
}

// store puts m in the place of the old manifest.
func (d *Dir) store(m manifest) error {
	data, err := m.encode()
	if err != nil {
		return fmt.Errorf("keydir: %w", err)
	}
	if err := d.replace(data); err != nil {
		return d.cannot("write "+strconv.Quote(d.manifestPath()), err)
	}
	return nil
}

// replace puts a manifest in the place of the old one, in one step.
func (d *Dir) replace(data []byte) error {
	m, err := decode(data)
	if err != nil {
		return fmt.Errorf("internal error: %w", err) // better than a directory that nobody can read
	}
	d.reading.Lock()
	defer d.reading.Unlock()
	d.step("make a temporary file")
	tmp, err := os.CreateTemp(d.path, tempName)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails harmlessly after the rename
	d.step("write the temporary file")
	_, err = tmp.Write(data)
	d.step("sync the temporary file")
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	d.step("rename the temporary file")
	if err := os.Rename(tmp.Name(), d.manifestPath()); err != nil {
		return err
	}
	d.step("sync the directory")
	syncDir(d.path)
	d.keep(data, m)
	return nil
}

// syncDir makes the new name last through a power cut where the system can; the
// file is complete either way.
func syncDir(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}

// newKey makes a key and its file. The manifest comes after it: a key that is
// announced has a file, whenever the process dies.
func (e *edit) newKey(bits int) (*entry, error) {
	key, err := e.dir.generate(bits)
	if err != nil {
		return nil, fmt.Errorf("keydir: %w", err)
	}
	made, err := newEntry(key.Public(), e.now)
	if err != nil {
		return nil, fmt.Errorf("keydir: make a key: %w", err)
	}
	if err := e.dir.writeKey(made.ID, key); err != nil {
		return nil, err
	}
	e.removed = append(e.removed, e.trim(e.now, maxDocumented-1)...)
	e.Keys = append(e.Keys, made)
	return &e.Keys[len(e.Keys)-1], nil
}

func (d *Dir) writeKey(kid string, key crypto.Signer) error {
	d.step("write the private key")
	if err := mint.WriteKey(d.keyPath(kid), key); err != nil {
		return d.cannot("write a private key", err)
	}
	return nil
}

// generate makes a key whose id does not begin with a dash, which a command line
// would take for a flag.
func (d *Dir) generate(bits int) (crypto.Signer, error) {
	make := mint.GenerateKey
	if d.hooks.generate != nil {
		make = d.hooks.generate
	}
	for {
		key, err := make(bits)
		if err != nil {
			return nil, err
		}
		if kid, err := mint.KeyID(key.Public()); err != nil || !strings.HasPrefix(kid, "-") {
			return key, err
		}
	}
}

func (d *Dir) step(name string) {
	if d.hooks.step != nil {
		d.hooks.step(name)
	}
}

// locked runs do while no other writer runs, in any process. It waits for its turn
// until ctx ends, and no longer than lockPatience.
func (d *Dir) locked(ctx context.Context, do func() error) error {
	if err := d.checkWritable(); err != nil {
		return err
	}
	path := filepath.Join(d.path, lockName)
	turn, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	d.step("take the lock")
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|noFollow))
	_, err := lock.TryLockContext(turn, lockPause)
	switch {
	case err != nil && ctx.Err() != nil:
		return d.cannot("wait for the lock "+strconv.Quote(path), context.Cause(ctx))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("keydir: another process has held %q for %v: try again when the svidecar has ended that changes these keys, here or on another machine that shares the directory", path, lockPatience)
	case err != nil && isLink(path):
		return fmt.Errorf("keydir: %q is a symbolic link, which may lead anywhere: remove it", path)
	case err != nil:
		return d.cannot("lock "+strconv.Quote(path), err)
	}
	defer lock.Close()
	return do()
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

// checkWritable refuses to put keys where others could put theirs, and to put
// them as root where the owner then could not read them.
func (d *Dir) checkWritable() error {
	info, err := os.Stat(d.path)
	switch {
	case err != nil:
		return d.cannot("look at "+strconv.Quote(d.path), err)
	case !info.IsDir():
		return fmt.Errorf("keydir: %q is not a directory: give the directory that holds %s", d.path, manifestName)
	case othersMayWrite(info) && readOnlyMount(d.path): // a Secret or a ConfigMap
		return d.cannot("write to "+strconv.Quote(d.path), syscall.EROFS)
	case othersMayWrite(info):
		return fmt.Errorf("keydir: any user may write to %q (mode %#o): run chmod 700 %s, or use a new directory in it", d.path, info.Mode().Perm(), d.path)
	}
	if uid, another := ownedByAnother(info); another && os.Geteuid() == 0 {
		return fmt.Errorf("keydir: %q belongs to user %d, who could not read a key that root writes: run this as that user, or give the directory and its files to root", d.path, uid)
	}
	return nil
}

// cannot says what could not be done. A read-only file system is a lack of
// permission to callers, who may go on without writing.
func (d *Dir) cannot(do string, err error) error {
	if errors.Is(err, syscall.EROFS) {
		err = readOnlyError{err}
	}
	return fmt.Errorf("keydir: %s: %w", do, err)
}

type readOnlyError struct{ error }

func (e readOnlyError) Unwrap() error        { return e.error }
func (e readOnlyError) Is(target error) bool { return target == fs.ErrPermission }

// bare strips the path, which the message names itself.
func bare(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// has reports whether the key is in the manifest.
func (m manifest) has(kid string) bool {
	return slices.ContainsFunc(m.Keys, func(e entry) bool { return e.ID == kid })
}

// Package keydir owns a directory of signing keys: their states, their rotation,
// and what is published of them. It never signs an assertion, never serves a
// document and never contacts anything.
//
// A verifier may keep the issuer's key document for a day. So a new key signs
// only once it has been in the published document for the publication wait, and
// an old one leaves the document only when the last assertion that it signed has
// expired. Its private key is kept for another 7 days: were it removed at once, a
// clock that is ahead for a moment could leave nobody to sign. Time moves a key from state to state; nobody has to be there for it.
//
// The directory holds keys.json, the manifest, which has no secret in it, a
// private key for each of its keys (<kid>.pem, mode 0600), and .lock, which
// writers take and readers never need. keys.json alone says which keys there are.
// It is replaced whole, so that a process that dies leaves the old directory or
// the new one; what else it leaves, the next writer removes.
package keydir

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// ErrTooOften means that keys are asked for faster than they can be published and
// retired.
var ErrTooOften = errors.New("too often")

// ErrRotating means that a key is on its way already: only one at a time waits
// to sign.
var ErrRotating = errors.New("another key is waiting")

// ErrLeft means that a change was made, and that a private key which has left the
// directory by it could not be removed: somebody has to, above all if it was stolen.
var ErrLeft = errors.New("a private key is left")

// Options configures [Create].
type Options struct {
	// Issuer is the iss claim of the assertions, as mint.LocalConfig describes it.
	// Required.
	Issuer string

	// Bits is the size of the first key, and so of those that follow it: 2,048 to
	// 4,096. Zero means 2,048.
	Bits int

	// PublicationWait is how long a new key is in the published document before it
	// signs: whole seconds, 1 s to 30 days. Zero means 24 h, as long as Entra may
	// keep a document. Less is for tests and development: Entra would refuse what
	// the new key signs for as long as it keeps a document without it.
	PublicationWait time.Duration
}

// Dir is a directory of keys as it was last read. What it says of states is of
// the moment of the call. It is safe for concurrent use, also by several
// processes: writers take turns, and act on what they read in their turn.
type Dir struct {
	path  string
	hooks hooks

	reading  sync.Mutex // orders readings and writings, so that an older one never replaces a newer
	snapshot atomic.Pointer[snapshot]

	loading sync.Mutex
	loaded  map[string]crypto.Signer // by kid; private keys that were asked for
}

// snapshot is one manifest, never changed.
type snapshot struct {
	raw []byte
	manifest
}

// hooks let tests see, and stop, what happens in between. The zero value is what
// programs use.
type hooks struct {
	step     func(name string)                     // before each change of the directory
	generate func(bits int) (crypto.Signer, error) // in place of mint.GenerateKey
	quiet    bool                                  // the file system does not notify
}

// Open reads a directory that [Create] made. It writes nothing, so the directory
// may be read-only, such as a Secret that kubelet mounts; and private keys are
// read when they are asked for, so it may be one that has the manifest alone. It
// refuses a directory or manifest that any user may write to.
func Open(dir string) (*Dir, error) {
	d := &Dir{path: dir}
	if err := d.Reload(); err != nil {
		return nil, err
	}
	return d, nil
}

// Path returns the directory as it was given to [Create] or [Open].
func (d *Dir) Path() string { return d.path }

// Reload reads the manifest again. On an error the old contents stay in use. The
// manifest of another issuer is refused: its keys would be published as this one's.
func (d *Dir) Reload() error {
	d.reading.Lock()
	defer d.reading.Unlock()
	raw, err := readManifest(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if orphans, _ := d.orphans(); len(orphans) > 0 {
			return fmt.Errorf("keydir: %q: %w, though there are private keys beside it, such as %s: restore it from a copy", d.manifestPath(), fs.ErrNotExist, orphans[0])
		}
		return fmt.Errorf("keydir: no keys in %q: %w; run svidecar keys init, or give the directory in which you did", d.path, fs.ErrNotExist)
	case err != nil:
		return fmt.Errorf("keydir: read %q: %w", d.manifestPath(), bare(err))
	}
	return d.adopt(raw)
}

// adopt makes raw the contents.
func (d *Dir) adopt(raw []byte) error {
	if old := d.snapshot.Load(); old != nil && bytes.Equal(old.raw, raw) {
		return nil
	}
	m, err := decode(raw)
	if err != nil {
		return fmt.Errorf("keydir: read %q: %w; undo what changed the file, or restore it from a copy", d.manifestPath(), err)
	}
	if old := d.snapshot.Load(); old != nil && m.Issuer != old.Issuer {
		return fmt.Errorf("keydir: %q is of the issuer %q now, and was of %q: restore it from a copy, or start anew to use another issuer's keys", d.manifestPath(), m.Issuer, old.Issuer)
	}
	d.keep(raw, m)
	return nil
}

func (d *Dir) keep(raw []byte, m manifest) {
	d.snapshot.Store(&snapshot{raw, m})
	d.forget(m)
}

func (d *Dir) manifestPath() string { return filepath.Join(d.path, manifestName) }

func (d *Dir) keyPath(kid string) string { return filepath.Join(d.path, kid+keySuffix) }

// Issuer returns the issuer whose keys these are.
func (d *Dir) Issuer() string { return d.snapshot.Load().Issuer }

// Keys returns the keys with their states: the active one, those that are
// published, that are pending, and that are retired, the last one first.
func (d *Dir) Keys() []Key { return d.snapshot.Load().keysAt(time.Now()) }

// NextChange returns the time of the next change of a key's state, or the zero
// time if none is to come by itself.
func (d *Dir) NextChange() time.Time { return d.snapshot.Load().nextChange(time.Now()) }

// Documented returns the public keys, one to 100, that belong in the key document
// now, the active one first. Pending keys are among them: a document that holds
// them, once it is public, is what [Dir.MarkPublished] is told of. The keys must
// not be changed.
func (d *Dir) Documented() []crypto.PublicKey {
	var public []crypto.PublicKey
	for _, k := range d.Keys() {
		public = append(public, k.Public)
	}
	return public
}

// Signer returns the active key. Its file is read once, when it is first asked
// for; after that a call costs next to nothing. The key cannot be printed.
//
// Without an active key, or without its file, which must have mode 0600 or less
// (on unix), there is no signer, and the error says what to do.
func (d *Dir) Signer() (crypto.Signer, error) {
	now := time.Now()
	m := d.snapshot.Load().manifest
	if kid, ok := m.activeAt(now); ok {
		return d.load(kid)
	}
	keys := m.keysAt(now)
	if keys[0].State == Published {
		return nil, fmt.Errorf("keydir: in %q %s", d.path, noneSigns(keys[0]))
	}
	return nil, fmt.Errorf("keydir: no key of %q was published yet, so nobody could verify what it signs: run svidecar keys export, or svidecar issuer, first", d.path)
}

// UnsafeSigner returns the newest key, whatever its state. It is for trying a key
// out: nobody who fetched the key document before may know it.
func (d *Dir) UnsafeSigner() (crypto.Signer, error) {
	keys := d.snapshot.Load().Keys
	return d.load(keys[len(keys)-1].ID)
}

// load reads a private key, unless it was read before.
func (d *Dir) load(kid string) (crypto.Signer, error) {
	d.loading.Lock()
	defer d.loading.Unlock()
	if key, ok := d.loaded[kid]; ok {
		return key, nil
	}
	key, err := d.readKey(kid)
	if err != nil {
		return nil, err
	}
	if d.loaded == nil {
		d.loaded = make(map[string]crypto.Signer)
	}
	d.loaded[kid] = key
	return key, nil
}

func (d *Dir) readKey(kid string) (crypto.Signer, error) {
	key, err := mint.LoadKey(d.keyPath(kid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keydir: the private key %q is missing (%w): restore the file, or replace the key with svidecar keys retire --unsafe-now", d.keyPath(kid), fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("keydir: %w", err)
	}
	if id, err := mint.KeyID(key.Public()); err != nil || id != kid {
		return nil, fmt.Errorf("keydir: %q holds another key than its name says: restore the file", d.keyPath(kid))
	}
	return key, nil
}

// forget drops the private keys that m does not have.
func (d *Dir) forget(m manifest) {
	d.loading.Lock()
	defer d.loading.Unlock()
	for kid := range d.loaded {
		if !m.has(kid) {
			delete(d.loaded, kid)
		}
	}
}

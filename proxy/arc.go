package proxy

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/svidecar/svidecar/imds"
)

// Azure Arc's clients prove that they may read a file: a request without a key
// is told the path of one, and comes again with what is in it. So whoever may
// read the directory may have tokens, as with Arc's own agent.

const (
	arcLife    = 20 * time.Second // of a key that nobody uses
	arcLeast   = 5 * time.Second  // that a key given again has left, if one has
	arcMost    = 128              // keys at once
	arcPrefix  = "svidecar-"      // of the names of ours
	arcSuffix  = ".key"           // that SDKs insist on
	arcMaxAuth = 4096             // bytes; SDKs read no more from the file
)

// arcKeys are the keys that may be used once. Only their hashes are kept.
type arcKeys struct {
	dir string

	busy    sync.WaitGroup // who has taken root
	mu      sync.Mutex
	root    *os.Root // nil while closed
	pending int      // being written
	live    map[string]arcKey
}

type arcKey struct {
	sum    [sha256.Size]byte
	expiry *time.Timer
	until  time.Time
	given  int // again
}

// open makes the directory if need be.
func (a *arcKeys) open() error {
	if err := os.MkdirAll(a.dir, 0o750); err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w: make it, writable for svidecar and readable for the app's group", err)
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	}
	if err := a.vet(root); err != nil {
		return errors.Join(err, root.Close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.root, a.live = root, map[string]arcKey{}
	return sweep(root)
}

// vet looks at the directory that is open, which is the one that keys will be
// written to. Others than its owner and group must not write there: they could
// put a key in place of ours, or learn when one is read. Nor may another user own
// it, or lead to it.
func (a *arcKeys) vet(root *os.Root) error {
	info, err := root.Stat(".")
	if err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	}
	named, err := os.Lstat(filepath.Clean(a.dir))
	switch {
	case err != nil:
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	case !os.SameFile(named, info):
		return fmt.Errorf("proxy: the directory of Arc's keys, %q, is a symbolic link: name the directory itself", a.dir)
	case !ownerTrusted(info):
		return fmt.Errorf("proxy: the directory of Arc's keys, %q, belongs to another user: chown it to root or to svidecar's user", a.dir)
	case info.Mode().Perm()&0o002 != 0 && runtime.GOOS != "windows":
		return fmt.Errorf("proxy: the directory of Arc's keys, %q, can be written by every user: chmod o-w it", a.dir)
	}
	return nil
}

// sweep removes what a process that was killed left: no running one has keys so
// old.
func sweep(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		ours := strings.HasPrefix(e.Name(), arcPrefix) && strings.HasSuffix(e.Name(), arcSuffix)
		if err == nil && ours && time.Since(info.ModTime()) > 2*arcLife {
			_ = root.Remove(e.Name()) // worth nothing; the next start tries again
		}
	}
	return nil
}

// close removes the keys that are left, and waits for those who still write or
// remove one: no file outlives it.
func (a *arcKeys) close() {
	a.mu.Lock()
	root, live := a.root, a.live
	a.root, a.live = nil, nil
	a.mu.Unlock()
	if root == nil {
		return
	}
	for name, key := range live {
		key.expiry.Stop()
		_ = root.Remove(name)
	}
	a.busy.Wait()
	_ = root.Close()
}

var (
	errArcCrowded = errors.New("proxy: too many keys wait to be used")
	errArcClosed  = errors.New("proxy: the server is shutting down")
)

// challenge returns the path of a new key. If there are too many it is that of
// one which waits: whoever asks for keys without end keeps nobody out.
func (a *arcKeys) challenge() (path string, err error) {
	root, path, err := a.begin()
	if root == nil {
		return path, err
	}
	defer a.busy.Done()
	return a.add(root)
}

// add writes a new key, for which begin has taken root.
func (a *arcKeys) add(root *os.Root) (path string, err error) {
	name, key := arcPrefix+rand.Text()+arcSuffix, rand.Text()+rand.Text()
	err = writeArcKey(root, name, key)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending--
	if err == nil && a.live == nil {
		err = errArcClosed
	}
	if err != nil {
		_ = root.Remove(name)
		return "", err
	}
	expiry := time.AfterFunc(arcLife, func() { a.drop(name) })
	a.live[name] = arcKey{sum: sha256.Sum256([]byte(key)), expiry: expiry, until: time.Now().Add(arcLife)}
	return filepath.Join(a.dir, name), nil
}

// begin takes the directory for a new key, or returns the path of one that waits.
func (a *arcKeys) begin() (root *os.Root, path string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.root == nil {
		return nil, "", errArcClosed
	}
	if len(a.live)+a.pending < arcMost {
		a.pending++
		a.busy.Add(1)
		return a.root, "", nil
	}
	name := a.again(time.Now())
	if name == "" { // all are being written
		return nil, "", errArcCrowded
	}
	return nil, filepath.Join(a.dir, name), nil
}

// again chooses the key that was given least often, so that clients which come
// together get different ones; and none that is about to expire, if there is
// another. The lock is held.
func (a *arcKeys) again(now time.Time) (best string) {
	for name, key := range a.live {
		chosen := a.live[best]
		late, chosenLate := key.until.Sub(now) < arcLeast, chosen.until.Sub(now) < arcLeast
		if best == "" || !late && chosenLate || late == chosenLate && key.given < chosen.given {
			best = name
		}
	}
	if best != "" {
		key := a.live[best]
		key.given++
		a.live[best] = key
	}
	return best
}

// writeArcKey leaves the file's group to the directory: with the set-group-ID
// bit it is the directory's. The umask has no say.
func writeArcKey(root *os.Root, name, key string) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(key)
	return errors.Join(err, f.Chmod(0o640), f.Close())
}

// drop ends a key.
func (a *arcKeys) drop(name string) {
	a.mu.Lock()
	root, key := a.root, a.live[name]
	delete(a.live, name)
	if key.expiry != nil {
		a.busy.Add(1)
		defer a.busy.Done()
	}
	a.mu.Unlock()
	if key.expiry != nil {
		key.expiry.Stop()
		_ = root.Remove(name)
	}
}

// use reports whether the Authorization header carries a key, and ends that key:
// of two requests with one key one is refused. Every key is compared with, in
// constant time.
func (a *arcKeys) use(authorization string) bool {
	scheme, given, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	sum, found := sha256.Sum256([]byte(given)), ""
	a.mu.Lock()
	for name, key := range a.live {
		if subtle.ConstantTimeCompare(key.sum[:], sum[:]) == 1 {
			found = name
		}
	}
	key, root := a.live[found], a.root
	delete(a.live, found)
	if found != "" {
		a.busy.Add(1)
		defer a.busy.Done()
	}
	a.mu.Unlock()
	if found == "" {
		return false
	}
	key.expiry.Stop()
	_ = root.Remove(found)
	return true
}

// admitArc answers a request without a key with the path of one.
func (s *Server) admitArc(w http.ResponseWriter, r *http.Request) *imds.Refusal {
	if refusal := requireMetadata(r.Header); refusal != nil {
		return refusal
	}
	if refusal := requireNoBody(r); refusal != nil {
		return refusal
	}
	given := r.Header["Authorization"]
	switch {
	case len(given) == 1 && len(given[0]) <= arcMaxAuth && s.arc.use(given[0]):
		return nil
	case len(given) > 0:
		return &imds.Refusal{Outcome: imds.Unauthorized, Description: "the header Authorization carries no key that is valid: a key can be used once, within 20 s; ask without the header for another one"}
	}
	if _, err := s.parse(w.(*call), r); err != nil { // a key would be of no use to it
		return refusalOf(err)
	}
	path, err := s.arc.challenge()
	switch {
	case errors.Is(err, errArcCrowded):
		return &imds.Refusal{Outcome: imds.Throttled, Description: "too many keys wait to be used: come back; find what asks for keys and does not use them"}
	case err != nil:
		s.cfg.Logger.Error("a key for a client of Arc's protocol could not be written", "error", err.Error())
		return &imds.Refusal{Outcome: imds.Unavailable, Description: "no key could be written: see svidecar's log, and --arc-tokens-dir"}
	}
	// One '=', no quotes: SDKs cut the path off by hand.
	w.Header()["WWW-Authenticate"] = []string{"Basic realm=" + path}
	return &imds.Refusal{Outcome: imds.Challenged, Description: "ask again with the header 'Authorization: Basic ' and what is in the file that WWW-Authenticate names"}
}

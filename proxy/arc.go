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
	arcMost    = 128              // keys at once
	arcPrefix  = "svidecar-"      // of the names of ours
	arcSuffix  = ".key"           // that SDKs insist on
	arcMaxAuth = 4096             // bytes; SDKs read no more from the file
)

// arcKeys are the keys that may be used once. Only their hashes are kept.
type arcKeys struct {
	dir string

	mu      sync.Mutex
	root    *os.Root // nil while closed
	pending int      // being written
	live    map[string]arcKey
}

type arcKey struct {
	sum    [sha256.Size]byte
	expiry *time.Timer
}

// open makes the directory if need be. Others than its owner and group must not
// write there: they could put a key in place of ours, or learn when one is read.
func (a *arcKeys) open() error {
	if err := os.MkdirAll(a.dir, 0o750); err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w: make it, writable for svidecar and readable for the app's group", err)
	}
	info, err := os.Stat(a.dir)
	if err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("proxy: the directory of Arc's keys, %q, can be written by every user: chmod o-w it", a.dir)
	}
	root, err := os.OpenRoot(a.dir)
	if err != nil {
		return fmt.Errorf("proxy: the directory of Arc's keys: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.root, a.live = root, map[string]arcKey{}
	return sweep(root)
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

// close removes the keys that are left.
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
	_ = root.Close()
}

var (
	errArcCrowded = errors.New("proxy: too many keys wait to be used")
	errArcClosed  = errors.New("proxy: the server is shutting down")
)

// challenge writes a new key and returns its path.
func (a *arcKeys) challenge() (path string, err error) {
	a.mu.Lock()
	root := a.root
	switch {
	case root == nil:
		err = errArcClosed
	case len(a.live)+a.pending >= arcMost:
		err = errArcCrowded
	default:
		a.pending++
	}
	a.mu.Unlock()
	if err != nil {
		return "", err
	}
	name, key := arcPrefix+rand.Text()+arcSuffix, rand.Text()+rand.Text()
	err = writeArcKey(root, name, key)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending--
	if err != nil || a.live == nil {
		_ = root.Remove(name)
		return "", err
	}
	a.live[name] = arcKey{sha256.Sum256([]byte(key)), time.AfterFunc(arcLife, func() { a.drop(name) })}
	return filepath.Join(a.dir, name), nil
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

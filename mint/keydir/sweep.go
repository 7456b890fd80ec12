package keydir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// leftover matches the names of what a writer that died may leave behind: a
// private key that is not in the manifest, a temporary file of ours or of
// mint.WriteKey.
var leftover = regexp.MustCompile(`^([A-Za-z0-9_-]{43}\.pem|\.svidecar-keys?-[0-9]+)$`)

// keyFile matches the names of private keys.
var keyFile = regexp.MustCompile(`^[A-Za-z0-9_-]{43}\.pem$`)

// sweep removes the files that look like ours and are not in the manifest. The
// error is of the first that is left and that matters, by its kid or name.
func (d *Dir) sweep(m manifest, matters func(kid string) bool) (err error) {
	names, lost := d.leftovers(m)
	if lost != nil {
		return left(d.path, lost)
	}
	for _, name := range names {
		d.step("remove " + name)
		path := filepath.Join(d.path, name)
		gone := os.Remove(path)
		if gone != nil && !errors.Is(gone, fs.ErrNotExist) && err == nil && matters(strings.TrimSuffix(name, keySuffix)) {
			err = left(path, gone)
		}
	}
	return err
}

func nothing(string) bool { return false }

// left does not wrap the cause, which callers may take for leave to go on.
func left(path string, cause error) error {
	return fmt.Errorf("keydir: the change was made, but %w: remove what is at %q and not in %s yourself: %v", ErrLeft, path, manifestName, bare(cause))
}

func (d *Dir) leftovers(m manifest) (names []string, err error) {
	entries, err := os.ReadDir(d.path)
	for _, e := range entries {
		kid := strings.TrimSuffix(e.Name(), keySuffix)
		if e.Type().IsRegular() && leftover.MatchString(e.Name()) && !m.has(kid) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// prune drops the keys whose time is over and returns their kids.
func (m *manifest) prune(now time.Time) (removed []string) {
	return m.dropWhere(now, func(k Key) bool { return k.left(now.Add(-keep)) })
}

// trim drops keys that have left the document, before their time, until most are in
// the manifest or none of them is left.
func (m *manifest) trim(now time.Time, most int) (removed []string) {
	excess := len(m.Keys) - most
	return m.dropWhere(now, func(k Key) bool {
		if excess <= 0 || !k.left(now) {
			return false
		}
		excess--
		return true
	})
}

// dropWhere asks for the oldest key first.
func (m *manifest) dropWhere(now time.Time, over func(Key) bool) (removed []string) {
	for _, k := range slices.Backward(m.everyKeyAt(now)) {
		if over(k) {
			removed = append(removed, k.ID)
		}
	}
	m.Keys = slices.DeleteFunc(m.Keys, func(e entry) bool { return slices.Contains(removed, e.ID) })
	return removed
}

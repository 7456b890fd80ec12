package keydir_test

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/mint/keydir"
)

// TestDyingWriters kills another process before each step of each operation. What
// it leaves must be the old directory or the new one, and must be mended by the
// next writer.
func TestDyingWriters(t *testing.T) {
	for _, tt := range []struct {
		op     string
		states []string // before; none for a directory that is not there
		want   string   // the states afterwards
		steps  int      // at least
	}{
		{"create", nil, "pending", 8},
		{"rotate", []string{"retired", "active"}, "active pending retired", 7},
		{"publish", []string{"active", "pending"}, "active published", 6},
		{"prune", []string{"removed", "retired", "active"}, "active retired", 9},
		{"retire retired", []string{"retired", "active"}, "active", 7},
		{"retire active", []string{"retired", "active"}, "active retired", 8},
		{"retire active", []string{"retired", "active", "published"}, "active retired", 7},
	} {
		t.Run(tt.op+" with "+strings.Join(tt.states, " "), func(t *testing.T) {
			for step := 1; ; step++ {
				f := beforeCrash(t, tt.op, tt.states)
				said, killed := start(t, tt.op, f.path, 20, childDies+"="+strconv.Itoa(step)).end()
				checkAfterCrash(t, f, said)
				if now := stateNames(f.Dir); now != tt.want {
					t.Errorf("%s: the states are %q in the end, want %q", said, now, tt.want)
				}
				if t.Failed() {
					t.FailNow()
				}
				if !killed {
					if said != "done" || step <= tt.steps {
						t.Errorf("the child says %q after %d steps, want at least %d: the test has lost its teeth", said, step-1, tt.steps)
					}
					return
				}
			}
		})
	}
}

// crashing is a directory that a process dies over.
type crashing struct {
	*fixture
	path   string
	op     string
	doomed string // the kid that a retirement is about
}

// beforeCrash makes the directory, for prune with leavings of its own.
func beforeCrash(t *testing.T, op string, states []string) *crashing {
	t.Helper()
	if states == nil {
		return &crashing{fixture: &fixture{t: t}, path: filepath.Join(t.TempDir(), "keys"), op: op}
	}
	f := scene(t, states...)
	c := &crashing{fixture: f, path: f.Path(), op: op}
	if state, ok := strings.CutPrefix(op, "retire "); ok {
		c.doomed = f.kids[slices.Index(states, state)]
	}
	if op == "prune" {
		for _, name := range []string{strings.Repeat("a", 43) + ".pem", ".svidecar-key-12", ".svidecar-keys-34"} {
			f.must(os.WriteFile(filepath.Join(f.Path(), name), nil, 0o600))
		}
	}
	return c
}

// checkAfterCrash looks at the directory as other processes do, repeats what the
// dead one did unless that was done, and looks for what is left over.
func checkAfterCrash(t *testing.T, c *crashing, said string) {
	t.Helper()
	dir, err := keydir.Open(c.path)
	if c.op == "create" && errors.Is(err, fs.ErrNotExist) {
		dir, err = nil, nil
	}
	if err != nil {
		t.Fatalf("%s: the directory does not open: %v", said, err)
	}
	if dir != nil {
		checkComplete(t, dir, said)
	}
	if c.op == "create" && dir == nil {
		c.removeOrphans(said)
	}
	if c.undone(dir) {
		hooks := keydir.TestHooks{Generate: func(int) (crypto.Signer, error) { return keyAt(21), nil }}
		if err := operate(c.op, c.path, hooks); err != nil {
			t.Fatalf("%s: it cannot be repeated: %v", said, err)
		}
	}
	c.Dir, err = keydir.Open(c.path)
	c.must(err)
	if _, err := c.Prune(t.Context()); err != nil {
		t.Errorf("%s: Prune: %v", said, err)
	}
	checkComplete(t, c.Dir, said)
	want := []string{".lock", "keys.json"}
	for _, k := range c.Keys() {
		want = append(want, k.ID+".pem")
	}
	slices.Sort(want)
	if got := listed(t, c.path); got != fmt.Sprint(want) {
		t.Errorf("%s: the directory holds %s, want %s", said, got, want)
	}
}

// removeOrphans does as the refusal of a creation over private keys says.
func (c *crashing) removeOrphans(said string) {
	c.t.Helper()
	orphans, err := filepath.Glob(filepath.Join(c.path, "*.pem"))
	c.must(err)
	if len(orphans) == 0 {
		return
	}
	if err := operate(c.op, c.path, keydir.TestHooks{}); err == nil || !strings.Contains(err.Error(), "keys init was cut short, remove them") {
		c.t.Errorf("%s: Create again = %v, want a refusal", said, err)
	}
	for _, name := range orphans {
		c.must(os.Remove(name))
	}
}

// undone reports whether the change has still to be made. dir is nil if there is
// no directory yet.
func (c *crashing) undone(dir *keydir.Dir) bool {
	switch {
	case dir == nil:
		return true
	case c.op == "create":
		return false
	case c.op == "rotate":
		return !strings.Contains(stateNames(dir), "pending")
	case c.doomed != "":
		return slices.ContainsFunc(dir.Keys(), func(k keydir.Key) bool { return k.ID == c.doomed })
	case c.op == "publish":
		return strings.Contains(stateNames(dir), "pending")
	}
	return true
}

func listed(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return fmt.Sprint(names)
}

// checkComplete wants a private key for each key, and one that signs unless the
// first key is pending.
func checkComplete(t *testing.T, dir *keydir.Dir, said string) {
	t.Helper()
	for _, k := range dir.Keys() {
		if !exists(filepath.Join(dir.Path(), k.ID+".pem")) {
			t.Errorf("%s: %v key %s has no file", said, k.State, k.ID)
		}
	}
	if _, err := dir.Signer(); err != nil && dir.Keys()[0].State != keydir.Pending {
		t.Errorf("%s: nobody signs: %v", said, err)
	}
}

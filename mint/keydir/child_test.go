package keydir_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
)

// What a child process does, on which directory, with which new key, and before
// which of its steps it dies.
const (
	childOp   = "KEYDIR_TEST_OP"
	childDir  = "KEYDIR_TEST_DIR"
	childKey  = "KEYDIR_TEST_KEY"
	childDies = "KEYDIR_TEST_DIES_AT"
)

// TestMain lets this program stand for another process that uses the package.
func TestMain(m *testing.M) {
	if op := os.Getenv(childOp); op != "" {
		os.Exit(child(op))
	}
	os.Exit(m.Run())
}

func child(op string) int {
	fmt.Println("ready")
	_, _ = io.ReadAll(os.Stdin) // until the parent says go
	hooks := keydir.TestHooks{Step: dieAt(os.Getenv(childDies)), Generate: func(int) (crypto.Signer, error) { return mint.LoadKey(os.Getenv(childKey)) }}
	err := operate(op, os.Getenv(childDir), hooks)
	switch {
	case errors.Is(err, keydir.ErrRotating):
		fmt.Println("rotating")
	case err != nil:
		fmt.Println("error:", err)
	default:
		fmt.Println("done")
	}
	return 0
}

// dieAt returns a hook that kills this process before its step of that number, as
// a SIGKILL would or a machine that stops.
func dieAt(number string) func(string) {
	at, err := strconv.Atoi(number)
	if err != nil {
		return nil
	}
	steps := 0
	return func(name string) {
		if steps++; steps < at {
			return
		}
		fmt.Println("dies before:", name)
		self, err := os.FindProcess(os.Getpid())
		if err != nil || self.Kill() != nil {
			panic("cannot die")
		}
		select {}
	}
}

// operate does one thing to a directory.
func operate(op, path string, hooks keydir.TestHooks) error {
	if op == "create" {
		_, err := keydir.CreateHooked(path, keydir.Options{Issuer: issuer}, hooks)
		return err
	}
	dir, err := keydir.Open(path)
	if err != nil {
		return err
	}
	dir.Hook(hooks)
	switch op {
	case "rotate":
		_, err = dir.Rotate(context.Background())
	case "publish":
		err = dir.MarkPublished(context.Background(), dir.Keys()[1].ID)
	case "prune":
		_, err = dir.Prune(context.Background())
	default:
		state, _ := strings.CutPrefix(op, "retire ")
		i := slices.IndexFunc(dir.Keys(), func(k keydir.Key) bool { return k.State.String() == state })
		err = dir.Retire(context.Background(), dir.Keys()[i].ID, true)
	}
	return err
}

// process is a child that waits for its go.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
	out bytes.Buffer
}

// start begins a child with a key of its own, the one with that number.
func start(t *testing.T, op, dir string, key int, env ...string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := mint.WriteKey(file, keyAt(key)); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.CommandContext(t.Context(), exe)}
	p.cmd.Env = append(os.Environ(), append(env, childOp+"="+op, childDir+"="+dir, childKey+"="+file,
		"GORACE=atexit_sleep_ms=0")...) // the race detector would wait a second
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) run() { _ = p.in.Close() }

// end waits for the child and returns what it has said, and whether it was killed.
func (p *process) end() (said string, killed bool) {
	p.t.Helper()
	p.run()
	err := p.cmd.Wait()
	said = strings.TrimSpace(strings.TrimPrefix(p.out.String(), "ready\n"))
	if killed = strings.HasPrefix(said, "dies before: "); !killed && err != nil || killed && err == nil {
		p.t.Fatalf("the child says %q and ends with %v", said, err)
	}
	return said, killed
}

// scene makes a directory with keys in the states named, now: A is the first.
// "removed" is a key whose time is over.
func scene(t *testing.T, states ...string) *fixture {
	t.Helper()
	const day = 24 * time.Hour
	signs := map[string]time.Duration{"removed": -20 * day, "retired": -8 * day, "active": -10 * time.Minute, "published": 23 * time.Hour}
	var from []time.Time
	for _, state := range states {
		if after, ok := signs[state]; ok {
			from = append(from, time.Now().Add(after))
		} else {
			from = append(from, time.Time{})
		}
	}
	return written(t, from)
}

// written is a directory of keys that sign from these times, or are pending. The
// manifest is written here, not by the package.
func written(t *testing.T, from []time.Time) *fixture {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	f := &fixture{t: t}
	f.must(os.Mkdir(dir, 0o700))
	var entries []string
	for i, signs := range from {
		key := keyAt(i)
		f.kids = append(f.kids, kidOf(t, key.Public()))
		f.must(mint.WriteKey(filepath.Join(dir, f.kids[i]+".pem"), key))
		entries = append(entries, entryText(f.kids[i], spki(t, key.Public()), signs))
	}
	text := fmt.Sprintf(`{"version":1,"issuer":%q,"publication_wait":"24h0m0s","keys":[%s]}`, issuer, strings.Join(entries, ","))
	f.must(os.WriteFile(filepath.Join(dir, "keys.json"), []byte(text), 0o644))
	var err error
	f.Dir, err = keydir.Open(dir)
	f.must(err)
	f.Hook(f.hooks())
	return f
}

func entryText(kid, public string, signs time.Time) string {
	long := time.Now().Add(-30 * 24 * time.Hour).UTC().Format(time.RFC3339)
	text := fmt.Sprintf(`{"kid":%q,"public_key":%q,"created":%q`, kid, public, long)
	if !signs.IsZero() {
		text += fmt.Sprintf(`,"published":%q,"signs_from":%q`, long, signs.UTC().Format(time.RFC3339))
	}
	return text + "}"
}

// stateNames is the states without the keys' names.
func stateNames(dir *keydir.Dir) string {
	var out []string
	for _, k := range dir.Keys() {
		out = append(out, k.State.String())
	}
	return strings.Join(out, " ")
}

package keydir_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// another is the directory as another process has it open, with keys of its own.
func (f *fixture) another() *fixture {
	f.t.Helper()
	dir, err := keydir.Open(f.Path())
	f.must(err)
	other := &fixture{t: f.t, Dir: dir, kids: []string{"-", "-", "-", "-", "-", "-"}}
	other.Hook(other.hooks())
	return other
}

// TestWritersTakeTurns stops a writer before each of its steps. Another one must
// not write meanwhile, and must say for what it waits.
func TestWritersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		other := f.another()
		stopped := 0
		f.step = func(name string) {
			if name == "take the lock" {
				return
			}
			stopped++
			start := time.Now()
			_, err := other.Rotate(t.Context())
			if err == nil || !strings.Contains(err.Error(), "another process has held") {
				t.Fatalf("before %q: Rotate of another process = %v, want it to wait for this one", name, err)
			}
			checkOneLine(t, err)
			if waited := time.Since(start); waited < 29*time.Second || waited > 31*time.Second {
				t.Errorf("before %q: gave up after %v, want 30 s", name, waited)
			}
		}
		f.rotate()
		if stopped < 5 {
			t.Errorf("only %d steps: the test has lost its teeth", stopped)
		}
		if _, err := other.Rotate(t.Context()); !errors.Is(err, keydir.ErrRotating) {
			t.Errorf("Rotate after another process has = %v, want ErrRotating", err)
		}
		if other.Keys()[1].ID != f.kid("B") {
			t.Error("the refused writer does not know why")
		}
	})
}

// TestWritersWaitNoLongerThanAsked: who is told to stop does not wait for the lock.
func TestWritersWaitNoLongerThanAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		other := f.another()
		f.step = func(name string) {
			if name != "write the private key" {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			for do, err := range map[string]error{
				"Rotate":  rotateError(other.Rotate(ctx)),
				"Retire":  other.Retire(ctx, f.kid("A"), true),
				"Publish": other.Publish(ctx, func([]keydir.Key) error { return nil }),
			} {
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for the lock") {
					t.Errorf("%s = %v, want the end of its context", do, err)
				}
			}
			if waited := time.Since(start); waited != time.Second {
				t.Errorf("they waited for %v, want 1s", waited)
			}
		}
		f.rotate()
	})
}

func rotateError(_ keydir.Key, err error) error { return err }

// TestReadersDoNotWait: a writer that hangs stops no reader.
func TestReadersDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		f.step = func(name string) {
			start := time.Now()
			dir, err := keydir.Open(f.Path())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dir.Signer(); err != nil || len(dir.Documented()) != 1 && name != "sync the directory" && !strings.HasPrefix(name, "remove") {
				t.Errorf("before %q: %v, %d keys", name, err, len(dir.Documented()))
			}
			if time.Since(start) > 0 || dir.MarkPublished(t.Context(), f.kid("A")) != nil || time.Since(start) > 0 {
				t.Errorf("before %q: a reader waits", name)
			}
		}
		f.rotate()
	})
}

// Without a bubble, for the race detector.
func TestConcurrentUse(t *testing.T) {
	f := create(t, time.Second)
	f.publish()
	var all sync.WaitGroup
	for i := range 4 {
		dir, err := keydir.Open(f.Path())
		f.must(err)
		if i%2 == 0 {
			dir = f.Dir
		}
		all.Go(func() {
			for range 20 {
				key, err := dir.Signer()
				if err != nil || len(dir.Documented()) == 0 || dir.Issuer() != issuer || dir.Reload() != nil {
					t.Errorf("%v, %v", key, err)
				}
				dir.NextChange()
			}
		})
		all.Go(func() {
			for range 3 {
				if err := dir.SetWait(t.Context(), time.Hour); err != nil {
					t.Error(err)
				}
				if _, err := dir.Prune(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestNothingToDoWritesNothing: such calls work where nothing can be written, and
// take no lock.
func TestNothingToDoWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		f.step = func(name string) { t.Errorf("a writer: %s", name) }
		f.publish()
		f.must(f.MarkPublished(t.Context()))
		f.must(f.MarkPublished(t.Context(), "a key that was dropped"))
		if removed, err := f.Prune(t.Context()); err != nil || removed != nil {
			t.Errorf("Prune = %v, %v", removed, err)
		}
		if _, rotated, err := f.RotateIfDue(t.Context(), 48*time.Hour); err != nil || rotated {
			t.Errorf("RotateIfDue = %v, %v", rotated, err)
		}
	})
}

func TestPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Minute)
		f.publish()
		f.rotate()
		f.publish()
		time.Sleep(time.Minute + linger + keep - 1)
		if removed, err := f.Prune(t.Context()); err != nil || removed != nil {
			t.Errorf("Prune before its time = %v, %v", removed, err)
		}
		time.Sleep(time.Nanosecond)
		removed, err := f.Prune(t.Context())
		if err != nil || len(removed) != 1 || f.name(removed[0]) != "A" || f.files() != ".lock B.pem keys.json" {
			t.Errorf("Prune = %v, %v; files %s", removed, err, f.files())
		}
	})
}

// TestSweep: what looks like ours goes, and nothing else does.
func TestSweep(t *testing.T) {
	f := create(t, 0)
	orphan := strings.Repeat("a", 43)
	for _, name := range []string{orphan + ".pem", ".svidecar-key-1234567890", ".svidecar-keys-987"} {
		f.must(os.WriteFile(filepath.Join(f.Path(), name), nil, 0o600))
	}
	stays := []string{orphan, orphan + ".pem.bak", orphan + "b.pem", orphan[1:] + ".pem", "key.pem", "keys.json.bak", ".svidecar-key-", ".svidecar-key-x", "x.svidecar-key-1", "README"}
	for _, name := range stays {
		f.must(os.WriteFile(filepath.Join(f.Path(), name), nil, 0o600))
	}
	folder := strings.Repeat("b", 43) + ".pem"
	f.must(os.Mkdir(filepath.Join(f.Path(), folder), 0o700))
	if _, err := f.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(stays, folder) {
		if !exists(filepath.Join(f.Path(), name)) {
			t.Errorf("%s is gone", name)
		}
	}
	if files := f.files(); strings.Contains(files, orphan+".pem ") || strings.Contains(files, "-1234567890") || strings.Contains(files, "-987") {
		t.Errorf("orphans are left: %s", files)
	}
}

// A read-only file system says EROFS, which package fs has no name for.
func TestReadOnlyIsALackOfPermission(t *testing.T) {
	f := create(t, 0)
	for err, want := range map[error]bool{
		syscall.EROFS: true, &fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}: true, fs.ErrPermission: true, fs.ErrNotExist: false,
	} {
		if got := f.Cannot(err); errors.Is(got, fs.ErrPermission) != want || !errors.Is(got, err) {
			t.Errorf("%v matches fs.ErrPermission: %v, want %v", got, !want, want)
		}
	}
}

// stuck lets the removal of a key's file fail: it becomes a folder that is not
// empty.
func (f *fixture) stuck(name string) {
	path := filepath.Join(f.Path(), f.kid(name)+".pem")
	f.step = func(step string) {
		if step == "remove "+f.kid(name)+".pem" {
			f.must(os.Remove(path))
			f.must(os.MkdirAll(filepath.Join(path, "x"), 0o700))
		}
	}
}

// TestKeyIsLeft: a change that was made is not said to have failed, and who makes
// it hears of a private key that should be gone.
func TestKeyIsLeft(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*fixture) error
		want string // the states afterwards
	}{
		{"stolen", func(f *fixture) error { return f.Retire(f.t.Context(), f.kid("B"), true) }, "C:active"},
		{"over", func(f *fixture) error {
			f.stuck("A")
			key, err := f.Rotate(f.t.Context())
			if key.ID != f.kids[len(f.kids)-1] {
				f.t.Errorf("the key that was made is not returned, but %q", key.ID)
			}
			return err
		}, "B:active C:pending"},
		{"pruned", func(f *fixture) error {
			f.stuck("A")
			_, err := f.Prune(f.t.Context())
			return err
		}, "B:active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := create(t, 0)
				f.publish()
				f.rotate()
				f.publish()
				time.Sleep(10 * 24 * time.Hour)
				f.stuck("B")
				err := tt.do(f)
				if !errors.Is(err, keydir.ErrLeft) || errors.Is(err, fs.ErrPermission) || f.states() != tt.want {
					t.Errorf("%v, and %s; want ErrLeft, and %s", err, f.states(), tt.want)
				}
				checkOneLine(t, err)
			})
		})
	}
}

// What a dead writer left is no concern of the next one, if it cannot remove it.
func TestLeavingsDoNotFailAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		orphan := strings.Repeat("a", 43) + ".pem"
		path := filepath.Join(f.Path(), orphan)
		leave := func() {
			f.must(os.RemoveAll(path))
			f.must(os.WriteFile(path, nil, 0o600))
		}
		f.step = func(step string) {
			if step == "remove "+orphan {
				f.must(os.Remove(path))
				f.must(os.MkdirAll(filepath.Join(path, "x"), 0o700))
			}
		}
		leave()
		f.rotate()
		leave()
		if _, err := f.Prune(t.Context()); !errors.Is(err, keydir.ErrLeft) {
			t.Errorf("Prune that cannot = %v, want ErrLeft", err)
		}
	})
}

package proxy

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
)

// TestArcClose: a challenge has a path or an error whenever the end comes, and
// leaves no file. It looks inside, since a server ends only after its requests.
func TestArcClose(t *testing.T) {
	dir := t.TempDir()
	opened := func(t *testing.T) *arcKeys {
		a := &arcKeys{dir: dir}
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	empty := func(t *testing.T) {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	t.Run("before it", func(t *testing.T) {
		a := opened(t)
		a.close()
		if path, err := a.challenge(); path != "" || !errors.Is(err, errArcClosed) {
			t.Errorf("challenge = %q, %v; want %v", path, err, errArcClosed)
		}
		empty(t)
	})
	t.Run("while its key is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := opened(t)
			root, path, err := a.begin()
			if root == nil {
				t.Fatalf("begin = %q, %v", path, err)
			}
			closed := make(chan struct{})
			go func() { a.close(); close(closed) }()
			synctest.Wait() // until close waits for us
			select {
			case <-closed:
				t.Error("closed while a key is being written")
			default:
			}
			if path, err := a.add(root); path != "" || !errors.Is(err, errArcClosed) {
				t.Errorf("add = %q, %v; want %v", path, err, errArcClosed)
			}
			a.busy.Done()
			<-closed
			empty(t)
		})
	})
	t.Run("after it", func(t *testing.T) {
		a := opened(t)
		path, err := a.challenge()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		a.close()
		empty(t)
	})
}

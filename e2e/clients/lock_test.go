//go:build e2e && linux

package clients_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLock: who has not the lock waits, and gets it once it is given back. Without it
// two runs at once removed what the other had half installed.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "clients.lock")
	unlock, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second lock while the first is held: %v, want %v", err, syscall.EWOULDBLOCK)
	}
	unlock()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Errorf("a lock that was given back: %v", err)
	}
}

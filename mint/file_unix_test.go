//go:build unix

package mint_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// within fails if call takes longer than anything but waiting could.
func within(t *testing.T, call func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call waits")
		return nil
	}
}

func TestPipesAndDevicesDoNotBlock(t *testing.T) {
	dir := t.TempDir()
	fifo, toFIFO := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	link(t, "fifo", toFIFO)
	for _, path := range []string{fifo, toFIFO, "/dev/zero", "/dev/tty"} {
		err := within(t, func() error { _, err := newFile(t, path).Assertion(t.Context()); return err })
		detail, ok := errors.AsType[*mint.Error](err)
		if !ok || detail.Temporary() && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Assertion from %s: %v, want a permanent refusal", path, err)
		}
		if err := within(t, func() error { _, err := mint.LoadKey(path); return err }); err == nil {
			t.Errorf("LoadKey(%q) succeeds", path)
		}
	}
}

// A path may turn into a FIFO between the look and the open.
func TestFileTurnsIntoFIFO(t *testing.T) {
	dir := t.TempDir()
	path, token := filepath.Join(dir, "token"), current(t)
	file := newFile(t, path)
	stop, swapped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(swapped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			pipe, plain := filepath.Join(dir, "pipe"), filepath.Join(dir, "plain")
			_ = os.WriteFile(plain, []byte(token), 0o600)
			_ = os.Rename(plain, path)
			_ = syscall.Mkfifo(pipe, 0o600)
			_ = os.Rename(pipe, path)
		}
	}()
	_ = within(t, func() error {
		for range 500 {
			got, err := file.Assertion(t.Context())
			if err == nil && !got.Value.Equal(token) {
				t.Error("another token")
			}
		}
		return nil
	})
	close(stop)
	<-swapped
}

func TestFileWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, current(t))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := newFile(t, path).Assertion(t.Context())
	checkError(t, err, path, fs.ErrPermission, false, "permission denied", "fsGroup")
}

func TestFileBadPath(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "plain"), "x")
	link(t, "loop", filepath.Join(dir, "loop"))
	for name, path := range map[string]string{
		"NUL":              "a\x00b",
		"below a file":     filepath.Join(dir, "plain", "token"),
		"link to itself":   filepath.Join(dir, "loop"),
		"name of 300 byte": filepath.Join(dir, strings.Repeat("n", 300)),
	} {
		_, err := newFile(t, path).Assertion(t.Context())
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		checkOneLine(t, err)
	}
}

func TestLoadKeyRefusesModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	write(t, path, string(testdata(t, "test-only-rsa2048-pkcs8.pem")))
	for mode := range fs.FileMode(0o1000) {
		if mode&0o400 == 0 && os.Geteuid() != 0 {
			continue // cannot be read at all
		}
		if mode&0o077 != 0 && mode&0o077&(mode&0o077-1) != 0 {
			continue // one bit too many is enough
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := mint.LoadKey(path)
		if open := mode&^0o600 != 0; open != (err != nil) {
			t.Errorf("LoadKey with mode %#o: %v", mode, err)
		} else if open && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("LoadKey with mode %#o: %v, want it to say chmod 600 %s", mode, err, path)
		}
	}
}

// TestLoadKeyOfAnotherOwner: kubelet hands a Secret to a pod that does not run as
// root as root's file, which a group of the pod's may read. Nobody else may.
func TestLoadKeyOfAnotherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	const another = 65532
	path := filepath.Join(t.TempDir(), "key.pem")
	write(t, path, string(testdata(t, "test-only-rsa2048-pkcs8.pem")))
	if err := os.Chown(path, another, -1); err != nil {
		t.Fatal(err)
	}
	for mode, accepted := range map[fs.FileMode]bool{0o400: true, 0o440: true, 0o640: true, 0o460: false, 0o444: false, 0o644: false, 0o450: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := mint.LoadKey(path); (err == nil) != accepted {
			t.Errorf("LoadKey with mode %#o: %v, want it accepted: %v", mode, err, accepted)
		}
	}
}

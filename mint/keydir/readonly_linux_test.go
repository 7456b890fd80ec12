package keydir_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/svidecar/svidecar/mint/keydir"
)

// TestReadOnlyFileSystem runs itself once more in a mount namespace of its own,
// where the directory is read-only, as a Secret is.
func TestReadOnlyFileSystem(t *testing.T) {
	if dir := os.Getenv("KEYDIR_TEST_READ_ONLY"); dir != "" {
		inReadOnly(t, dir)
		return
	}
	f := scene(t, "active", "pending")
	f.must(os.Chmod(f.Path(), 0o777)) // as a ConfigMap's, which nobody may write to all the same
	exe, err := os.Executable()
	f.must(err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestReadOnlyFileSystem$", "-test.v")
	cmd.Env = append(os.Environ(), "KEYDIR_TEST_READ_ONLY="+f.Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, fs.ErrPermission), strings.Contains(string(out), "may not mount"):
		t.Skip("no mount namespace to be had: ", err)
	case err != nil || !strings.Contains(string(out), "read-only: all was tried"):
		t.Errorf("in a read-only directory: %v\n%s", err, out)
	}
}

func inReadOnly(t *testing.T, path string) {
	for _, flags := range []uintptr{syscall.MS_BIND, syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY} {
		if err := syscall.Mount(path, path, "", flags, ""); err != nil {
			t.Skip("may not mount: ", err)
		}
	}
	dir, err := keydir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Signer(); err != nil || len(dir.Documented()) != 2 {
		t.Errorf("%d keys, %v", len(dir.Documented()), err)
	}
	_, rotateErr := dir.Rotate(t.Context())
	if !errors.Is(rotateErr, keydir.ErrRotating) && !errors.Is(rotateErr, fs.ErrPermission) {
		t.Errorf("Rotate = %v", rotateErr)
	}
	for _, err := range []error{dir.MarkPublished(t.Context(), dir.Keys()[1].ID), dir.Retire(t.Context(), dir.Keys()[1].ID, true)} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("a writer = %v, want fs.ErrPermission", err)
		}
	}
	if err := dir.MarkPublished(t.Context(), dir.Keys()[0].ID); err != nil {
		t.Errorf("MarkPublished of a key that is = %v", err)
	}
	fmt.Println("read-only: all was tried")
}

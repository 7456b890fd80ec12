//go:build unix

package keydir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

func TestModes(t *testing.T) {
	f := create(t, 0)
	for name, want := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "keys.json": 0o644, f.kid("A") + ".pem": 0o600, ".lock": 0o600} {
		info, err := os.Stat(filepath.Join(f.Path(), name))
		f.must(err)
		if info.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode(), want)
		}
	}
}

func TestSignerRefusesOpenFile(t *testing.T) {
	f := create(t, 0)
	f.publish()
	path := filepath.Join(f.Path(), f.kid("A")+".pem")
	for mode, accepted := range map[fs.FileMode]bool{0o400: true, 0o600: true, 0o640: false, 0o604: false, 0o660: false, 0o644: false} {
		f.must(os.Chmod(path, mode))
		dir, err := keydir.Open(f.Path())
		f.must(err)
		_, err = dir.Signer()
		if (err == nil) != accepted {
			t.Errorf("Signer with a file of mode %#o: %v, want it accepted: %v", mode, err, accepted)
		}
		if err != nil && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("Signer = %v, want what to do", err)
		}
	}
}

// Whoever may write to the directory may put a key of their own there.
func TestWritersRefuseOpenDirectory(t *testing.T) {
	f := create(t, 0)
	for mode, accepted := range map[fs.FileMode]bool{0o700: true, 0o750: true, 0o755: true, 0o770: true, 0o2775: true, 0o702: false, 0o777: false} {
		f.must(os.Chmod(f.Path(), mode.Perm()))
		err := f.SetWait(t.Context(), 24*time.Hour)
		if (err == nil) != accepted {
			t.Errorf("a writer in a directory of mode %#o: %v, want it accepted: %v", mode, err, accepted)
		}
		if err != nil && !strings.Contains(err.Error(), "chmod 700 "+f.Path()) {
			t.Errorf("a writer = %v, want what to do", err)
		}
	}
	open := t.TempDir()
	f.must(os.Chmod(open, 0o777))
	if _, err := keydir.CreateHooked(open, keydir.Options{Issuer: issuer}, f.hooks()); err == nil || listed(t, open) != "[]" {
		t.Errorf("Create in a directory of mode 0777: %v, %s", err, listed(t, open))
	}
}

// TestReadersRefuseOpenDirectory: whoever may write to it may have other keys
// published. A Secret's volume has mode 1777, or 3777 with an fsGroup.
func TestReadersRefuseOpenDirectory(t *testing.T) {
	f := create(t, 0)
	const sticky, setgid = fs.ModeSticky, fs.ModeSetgid
	for mode, accepted := range map[fs.FileMode]bool{
		0o700: true, 0o755: true, 0o770: true, sticky | 0o777: true, sticky | setgid | 0o777: true, 0o702: false, 0o777: false, setgid | 0o777: false,
	} {
		f.must(os.Chmod(f.Path(), mode))
		_, openErr := keydir.Open(f.Path())
		for _, err := range []error{openErr, f.Reload()} {
			if (err == nil) != accepted {
				t.Errorf("a reader in a directory of mode %v: %v, want it accepted: %v", mode, err, accepted)
			}
			if err != nil && !strings.Contains(err.Error(), "chmod 700 "+f.Path()) {
				t.Errorf("a reader = %v, want what to do", err)
			}
		}
	}
}

// The manifest may be a link, as in a Secret: what it leads to counts.
func TestReadersRefuseOpenManifest(t *testing.T) {
	f := create(t, 0)
	link, real := filepath.Join(f.Path(), "keys.json"), filepath.Join(t.TempDir(), "real")
	f.must(os.Rename(link, real))
	f.must(os.Symlink(real, link))
	for mode, accepted := range map[fs.FileMode]bool{0o400: true, 0o644: true, 0o664: true, 0o646: false, 0o666: false} {
		f.must(os.Chmod(real, mode))
		_, err := keydir.Open(f.Path())
		if (err == nil) != accepted {
			t.Errorf("a manifest of mode %#o: %v, want it accepted: %v", mode, err, accepted)
		}
		if err != nil {
			checkOneLine(t, err)
			if !strings.Contains(err.Error(), "chmod 644 "+link) {
				t.Errorf("a manifest of mode %#o: %v, want what to do", mode, err)
			}
		}
	}
}

// Root can write where it likes; what it writes, the owner could not read.
func TestRootDoesNotWriteForOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	f := create(t, 0)
	f.publish()
	f.must(os.Chown(f.Path(), 65532, -1))
	_, err := f.Rotate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "belongs to user 65532") {
		t.Errorf("Rotate as root = %v, want it refused", err)
	}
	if f.signer() != "A" || f.files() != ".lock A.pem keys.json" {
		t.Errorf("%q signs, files %s", f.signer(), f.files())
	}
}

func TestWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	f := create(t, 0)
	f.must(os.Remove(filepath.Join(f.Path(), ".lock")))
	f.must(os.Chmod(f.Path(), 0o500))
	t.Cleanup(func() { _ = os.Chmod(f.Path(), 0o700) })
	if err := f.MarkPublished(t.Context(), f.kid("A")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("MarkPublished in a directory of mode 0500: %v, want fs.ErrPermission", err)
	}
}

// TestLockFollowsNoLink: who may write to the directory too cannot turn the lock
// into a file of another place.
func TestLockFollowsNoLink(t *testing.T) {
	f := create(t, 0)
	lock, victim := filepath.Join(f.Path(), ".lock"), filepath.Join(t.TempDir(), "victim")
	f.must(os.WriteFile(victim, []byte("precious"), 0o600))
	for _, target := range []string{victim, victim + "-that-is-not-there"} {
		f.must(os.Remove(lock))
		f.must(os.Symlink(target, lock))
		err := f.Retire(t.Context(), f.kid("A"), false)
		if err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			t.Errorf("a writer with a link in the place of the lock: %v, want it refused", err)
		}
		checkOneLine(t, err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" || exists(victim+"-that-is-not-there") {
		t.Errorf("what the link leads to has changed: %q, %v", text, err)
	}
}

// Nothing is written through the lock, which may be a hard link too.
func TestLockIsNotWritten(t *testing.T) {
	f := create(t, 0)
	lock := filepath.Join(f.Path(), ".lock")
	f.must(os.WriteFile(lock, []byte("linked"), 0o600))
	f.must(f.Retire(t.Context(), f.kid("A"), false))
	if text, err := os.ReadFile(lock); err != nil || string(text) != "linked" {
		t.Errorf("a writer has written %q into the lock, %v", text, err)
	}
}

package keydir_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, dir, says string
		opts            keydir.Options
	}{
		{"no issuer", "new", "Options.Issuer", keydir.Options{}},
		{"http issuer", "new", "https://", keydir.Options{Issuer: "http://issuer.example.org"}},
		{"small key", "new", "Options.Bits", keydir.Options{Issuer: issuer, Bits: 1024}},
		{"large key", "new", "Options.Bits", keydir.Options{Issuer: issuer, Bits: 8192}},
		{"negative wait", "new", "Options.PublicationWait", keydir.Options{Issuer: issuer, PublicationWait: -time.Second}},
		{"short wait", "new", "Options.PublicationWait", keydir.Options{Issuer: issuer, PublicationWait: time.Second - 1}},
		{"long wait", "new", "Options.PublicationWait", keydir.Options{Issuer: issuer, PublicationWait: 30*24*time.Hour + time.Second}},
		{"wait with a fraction", "new", "Options.PublicationWait", keydir.Options{Issuer: issuer, PublicationWait: 1500 * time.Millisecond}},
		{"a file", "file", "not a directory", keydir.Options{Issuer: issuer}},
	} {
		f := &fixture{t: t}
		_, err := keydir.CreateHooked(filepath.Join(dir, tt.dir), tt.opts, f.hooks())
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: Create = %v, want it to say %q", tt.name, err, tt.says)
			continue
		}
		checkOneLine(t, err)
		if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the refused directory is there", tt.name)
		}
	}
}

func TestCreateLeavesKeysAlone(t *testing.T) {
	f := create(t, 0)
	before, err := os.ReadFile(filepath.Join(f.Path(), "keys.json"))
	f.must(err)
	_, err = keydir.Create(f.Path(), keydir.Options{Issuer: issuer})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over keys = %v, want fs.ErrExist", err)
	}
	checkOneLine(t, err)
	after, err := os.ReadFile(filepath.Join(f.Path(), "keys.json"))
	if err != nil || !bytes.Equal(before, after) || f.files() != ".lock A.pem keys.json" {
		t.Errorf("the directory has changed: %s, %v", f.files(), err)
	}
}

// TestLostManifest: whoever has lost it loses no private key too, and is not told
// to make another directory of keys over them.
func TestLostManifest(t *testing.T) {
	f := create(t, 0)
	f.publish()
	f.rotate()
	f.must(os.Remove(filepath.Join(f.Path(), "keys.json")))
	again := &fixture{t: t, kids: []string{"-", "-", "-"}}
	_, createErr := keydir.CreateHooked(f.Path(), keydir.Options{Issuer: issuer}, again.hooks())
	if createErr == nil || !strings.Contains(createErr.Error(), "private keys are left") {
		t.Errorf("Create over private keys = %v, want it refused", createErr)
	}
	_, openErr := keydir.Open(f.Path())
	if !errors.Is(openErr, fs.ErrNotExist) || strings.Contains(openErr.Error(), "keys init") || !strings.Contains(openErr.Error(), "restore it from a copy") {
		t.Errorf("Open without manifest = %v, want no advice to make another", openErr)
	}
	checkOneLine(t, createErr)
	checkOneLine(t, openErr)
	if f.files() != ".lock A.pem B.pem" {
		t.Errorf("files %s are left, want A.pem and B.pem", f.files())
	}
}

// A creation that fails leaves nothing that stands in the way of the next one.
func TestCreateAgainAfterAFailure(t *testing.T) {
	f, dir := &fixture{t: t}, filepath.Join(t.TempDir(), "keys")
	f.step = func(name string) {
		if name == "make a temporary file" { // of the manifest, in whose place there is a folder
			f.must(os.MkdirAll(filepath.Join(dir, "keys.json", "x"), 0o700))
		}
	}
	if _, err := keydir.CreateHooked(dir, keydir.Options{Issuer: issuer}, f.hooks()); err == nil {
		t.Fatal("Create over a folder succeeds")
	}
	f.must(os.RemoveAll(filepath.Join(dir, "keys.json")))
	f.step = nil
	if _, err := keydir.CreateHooked(dir, keydir.Options{Issuer: issuer}, f.hooks()); err != nil {
		t.Errorf("Create after that = %v", err)
	}
}

func TestCreateMakesARealKey(t *testing.T) {
	dir, err := keydir.Create(filepath.Join(t.TempDir(), "a", "b"), keydir.Options{Issuer: issuer})
	if err != nil {
		t.Fatal(err)
	}
	key, err := dir.UnsafeSigner()
	if err != nil || kidOf(t, key.Public()) != dir.Keys()[0].ID || dir.Keys()[0].Bits != 2048 || dir.Issuer() != issuer {
		t.Errorf("keys %+v of %s, err %v; want one of 2,048 bits of %s", dir.Keys(), dir.Issuer(), err, issuer)
	}
}

func TestOpenRefusesWhatIsNoDirectoryOfKeys(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		_, err := keydir.Open(path)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "svidecar keys init") {
			t.Errorf("Open(%q) = %v, want fs.ErrNotExist and what to do", path, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "keys.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := keydir.Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Open with a folder as manifest = %v", err)
	}
}

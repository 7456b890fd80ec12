package publish_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/publish"
)

func exported(t *testing.T, issuer string) (discovery, keySet []byte) {
	t.Helper()
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	discovery, keySet, err = mint.Documents(issuer, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return discovery, keySet
}

func TestExportRefuses(t *testing.T) {
	discovery, keySet := exported(t, issuer)
	for _, tt := range []struct {
		name  string
		spoil func(dir string) error
		want  string
	}{
		{"of another issuer", func(dir string) error {
			other, keys := exported(t, "https://other.example")
			_, err := publish.Export(dir, other, keys)
			return err
		}, `is of issuer "https://other.example", not "https://issuer.example/team"`},
		{"not a discovery document", func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, ".well-known"), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, ".well-known", "openid-configuration"), []byte("hello"), 0o644)
		}, `is of issuer ""`},
		{"a link to elsewhere", func(dir string) error { return os.Symlink(t.TempDir(), filepath.Join(dir, "openid")) }, "escapes"},
		{"a file in the way", func(dir string) error { return os.WriteFile(filepath.Join(dir, "openid"), nil, 0o644) }, "openid"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := publish.Export(dir, discovery, keySet); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Export = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestExportWritesWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "site")
	discovery, keySet := exported(t, issuer)
	for range 2 { // again, over what is there and what a killed one left
		if dropped, err := publish.Export(dir, discovery, keySet); err != nil || len(dropped) > 0 {
			t.Fatalf("Export = %q, %v", dropped, err)
		}
		for name, want := range map[string][]byte{".well-known/openid-configuration": discovery, "openid/v1/jwks": keySet} {
			path := filepath.Join(dir, filepath.FromSlash(name))
			got, err := os.ReadFile(path)
			if err != nil || string(got) != string(want) {
				t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o644 {
				t.Errorf("%s: %v (%v), want mode 0644 for a web server to read", name, info.Mode(), err)
			}
			if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
				t.Errorf("%q are left (%v)", left, err)
			}
			if err := os.WriteFile(path+".KILLED.tmp", []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestExportNamesWhatItDrops: another machine's keys may lie in the same place.
func TestExportNamesWhatItDrops(t *testing.T) {
	dir := t.TempDir()
	discovery, keySet := exported(t, issuer)
	if _, err := publish.Export(dir, discovery, keySet); err != nil {
		t.Fatal(err)
	}
	key, err := mint.GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := mint.KeySet(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	first, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	kid, err := mint.KeyID(first.Public())
	if err != nil {
		t.Fatal(err)
	}
	if dropped, err := publish.Export(dir, discovery, other); err != nil || len(dropped) != 1 || dropped[0] != kid {
		t.Errorf("Export = %q, %v; want %s", dropped, err, kid)
	}
}

// TestKeySetComesFirst: a discovery document that is there leads to a key set.
func TestKeySetComesFirst(t *testing.T) {
	discovery, keySet := exported(t, issuer)
	for _, tt := range []struct {
		inTheWay, written string // a link to nowhere that makes one fail; whether the other is there then
		want              bool
	}{
		{".well-known", "openid/v1/jwks", true},
		{"openid/v1", ".well-known/openid-configuration", false},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(tt.inTheWay)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("nowhere", filepath.Join(dir, tt.inTheWay)); err != nil {
			t.Fatal(err)
		}
		if _, err := publish.Export(dir, discovery, keySet); err == nil {
			t.Errorf("Export with a link called %s succeeds", tt.inTheWay)
		}
		if _, err := os.Stat(filepath.Join(dir, tt.written)); (err == nil) != tt.want {
			t.Errorf("with a link called %s: %s: %v", tt.inTheWay, tt.written, err)
		}
	}
}

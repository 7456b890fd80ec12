package keydir_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
)

const (
	issuer = "https://issuer.example.org/keys"
	linger = time.Hour + 5*time.Minute
	keep   = 7 * 24 * time.Hour
)

// primes are enough for 120 keys: each pair of them makes one, which takes no
// time, while two primes of its own take most of a second.
var primes = sync.OnceValue(func() (list []*big.Int) {
	for len(list) < 16 {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			panic(err)
		}
		if rest := new(big.Int).Sub(p, big.NewInt(1)); new(big.Int).Mod(rest, big.NewInt(65537)).Sign() != 0 {
			list = append(list, p)
		}
	}
	return list
})

// keyAt is the key number i, from 0 to 119.
func keyAt(i int) *rsa.PrivateKey {
	list := primes()
	for a := range list {
		if i < a {
			p, q, one, e := list[a], list[i], big.NewInt(1), big.NewInt(65537)
			phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
			key := &rsa.PrivateKey{
				PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
				D:         new(big.Int).ModInverse(e, phi),
				Primes:    []*big.Int{p, q},
			}
			key.Precompute()
			return key
		}
		i -= a
	}
	panic("no more test keys")
}

// fixture is a directory whose keys are named in the order in which they are
// made: A, B, …
type fixture struct {
	t testing.TB
	*keydir.Dir
	kids []string
	step func(name string)
}

func (f *fixture) hooks() keydir.TestHooks {
	return keydir.TestHooks{Quiet: true, Generate: f.generate, Step: func(name string) {
		if f.step != nil {
			f.step(name)
		}
	}}
}

func (f *fixture) generate(bits int) (crypto.Signer, error) {
	if bits != 2048 {
		return mint.GenerateKey(bits)
	}
	key := keyAt(len(f.kids))
	f.kids = append(f.kids, kidOf(f.t, key.Public()))
	return key, nil
}

func kidOf(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	kid, err := mint.KeyID(pub)
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// create makes a directory with key A, which is pending.
func create(t testing.TB, wait time.Duration) *fixture {
	t.Helper()
	f := &fixture{t: t}
	dir, err := keydir.CreateHooked(filepath.Join(t.TempDir(), "keys"), keydir.Options{Issuer: issuer, PublicationWait: wait}, f.hooks())
	if err != nil {
		t.Fatal(err)
	}
	f.Dir = dir
	return f
}

func (f *fixture) name(kid string) string {
	i := slices.Index(f.kids, kid)
	if i < 0 {
		f.t.Fatalf("key %s is none of ours", kid)
	}
	return string(rune('A' + i))
}

// kid is the id of the key with that name.
func (f *fixture) kid(name string) string { return f.kids[name[0]-'A'] }

// states reads like "B:active A:retired".
func (f *fixture) states() string {
	var out []string
	for _, k := range f.Keys() {
		out = append(out, f.name(k.ID)+":"+k.State.String())
	}
	return strings.Join(out, " ")
}

// signer is the name of the key that signs, or "".
func (f *fixture) signer() string {
	key, err := f.Signer()
	if err != nil {
		return ""
	}
	return f.name(kidOf(f.t, key.Public()))
}

// document is the names of the keys that belong in the document, in its order.
func (f *fixture) document() (names string) {
	for _, pub := range f.Documented() {
		names += f.name(kidOf(f.t, pub))
	}
	return names
}

// publish does as who has put the document where verifiers find it.
func (f *fixture) publish() {
	f.t.Helper()
	var kids []string
	for _, k := range f.Keys() {
		kids = append(kids, k.ID)
	}
	f.must(f.MarkPublished(f.t.Context(), kids...))
}

func (f *fixture) rotate() keydir.Key {
	f.t.Helper()
	key, err := f.Rotate(f.t.Context())
	f.must(err)
	return key
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// files lists the directory, with the names of keys in the place of their ids.
func (f *fixture) files() string {
	f.t.Helper()
	entries, err := os.ReadDir(f.Path())
	f.must(err)
	var out []string
	for _, e := range entries {
		name := e.Name()
		if kid, ok := strings.CutSuffix(name, ".pem"); ok && slices.Contains(f.kids, kid) {
			name = f.name(kid) + ".pem"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func checkOneLine(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	} else if text := err.Error(); strings.ContainsAny(text, "\r\n\t") || len(text) > 600 || !strings.HasPrefix(text, "keydir: ") {
		t.Errorf("the error is not one bounded line of keydir: %q", text)
	}
}

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

// TestReloadRefusesAnotherIssuer: who asked for the issuer goes on with its keys.
func TestReloadRefusesAnotherIssuer(t *testing.T) {
	f := create(t, 0)
	f.publish()
	rewrite(t, f, issuer, "https://mallory.example.org")
	_, rotateErr := f.Rotate(t.Context())
	for _, err := range []error{f.Reload(), rotateErr} {
		if err == nil || !strings.Contains(err.Error(), `of the issuer "https://mallory.example.org" now`) {
			t.Errorf("with the manifest of another issuer: %v, want it refused", err)
		}
		checkOneLine(t, err)
	}
	if f.Issuer() != issuer || f.states() != "A:active" || f.files() != ".lock A.pem keys.json" {
		t.Errorf("the old contents are not in use: %s, %s, files %s", f.Issuer(), f.states(), f.files())
	}
}

// The public half is all that an issuer needs.
func TestManifestAloneServes(t *testing.T) {
	f := create(t, 0)
	f.publish()
	if err := os.Remove(filepath.Join(f.Path(), f.kid("A")+".pem")); err != nil {
		t.Fatal(err)
	}
	alone, err := keydir.Open(f.Path())
	f.must(err)
	if got := alone.Documented(); len(got) != 1 || kidOf(t, got[0]) != f.kid("A") {
		t.Errorf("Documented without private keys = %v", got)
	}
	_, err = alone.Signer()
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), f.kid("A")+".pem") {
		t.Errorf("Signer without its file = %v, want it to name the file", err)
	}
	checkOneLine(t, err)
}

func TestSignerRefusesAnotherKey(t *testing.T) {
	f := create(t, 0)
	f.publish()
	path := filepath.Join(f.Path(), f.kid("A")+".pem")
	f.must(os.Remove(path))
	f.must(mint.WriteKey(path, keyAt(7)))
	if _, err := f.Signer(); err == nil || !strings.Contains(err.Error(), "another key than its name says") {
		t.Errorf("Signer with a changed file = %v", err)
	}
}

func TestDirIsNotPrinted(t *testing.T) {
	f := create(t, 0)
	f.publish()
	if f.signer() != "A" {
		t.Fatal("no signer")
	}
	var out bytes.Buffer
	for _, subject := range []any{f.Dir, *new(struct{ D any }), []any{f.Dir}, f.Keys()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", subject)
		}
		_ = json.NewEncoder(&out).Encode(subject)
	}
	manifest, err := os.ReadFile(filepath.Join(f.Path(), "keys.json"))
	f.must(err)
	out.Write(manifest)
	key := keyAt(0)
	for _, number := range append(slices.Clone(key.Primes), key.D) {
		for _, part := range []string{number.String()[:20], fmt.Sprintf("%x", number)[:20], base64.StdEncoding.EncodeToString(number.Bytes())[:20]} {
			if strings.Contains(strings.ToLower(out.String()), strings.ToLower(part)) {
				t.Error("a private number is printed")
			}
		}
	}
}

// The time that a key stays after its last signature rests on what mint allows.
func TestLingerCoversTheLongestAssertion(t *testing.T) {
	cfg := mint.LocalConfig{Signer: keyAt(0), Issuer: issuer, Subject: "spiffe://example.org/a", Audience: "a", Lifetime: linger - 5*time.Minute}
	if _, err := mint.NewLocal(cfg); err != nil {
		t.Error(err)
	}
	cfg.Lifetime += time.Second
	if _, err := mint.NewLocal(cfg); err == nil {
		t.Errorf("mint takes a life of %v, and keys stay for %v only", cfg.Lifetime, linger)
	}
}

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

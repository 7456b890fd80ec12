package keydir_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint/keydir"
)

// twoKeys is a directory with A active and B published, of which the tests know
// the manifest's text.
func twoKeys(t testing.TB) *fixture {
	f := create(t, 0)
	f.publish()
	time.Sleep(time.Second)
	f.rotate()
	f.publish()
	return f
}

func TestManifestText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := twoKeys(t)
		got, err := os.ReadFile(filepath.Join(f.Path(), "keys.json"))
		f.must(err)
		want := strings.NewReplacer("KID_A", f.kid("A"), "KID_B", f.kid("B"), "SPKI_A", spki(t, keyAt(0).Public()), "SPKI_B", spki(t, keyAt(1).Public())).Replace(`{
  "version": 1,
  "issuer": "https://issuer.example.org/keys",
  "publication_wait": "24h0m0s",
  "keys": [
    {
      "kid": "KID_A",
      "public_key": "SPKI_A",
      "created": "2000-01-01T00:00:00Z",
      "published": "2000-01-01T00:00:00Z",
      "signs_from": "2000-01-01T00:00:00Z"
    },
    {
      "kid": "KID_B",
      "public_key": "SPKI_B",
      "created": "2000-01-01T00:00:01Z",
      "published": "2000-01-01T00:00:01Z",
      "signs_from": "2000-01-02T00:00:01Z"
    }
  ]
}
`)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("keys.json (-want +got):\n%s", diff)
		}
	})
}

func spki(t testing.TB, pub any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// TestManifestRefuses edits a good manifest as people, tools and accidents do.
func TestManifestRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := twoKeys(t)
		path := filepath.Join(f.Path(), "keys.json")
		good, err := os.ReadFile(path)
		f.must(err)
		text := string(good)
		small := *keyAt(0)
		small.N = keyAt(0).Primes[0] // 1,024 bits, and not a key
		for _, tt := range []struct{ name, old, new, says string }{
			{"empty", text, "", "unexpected end"},
			{"null", text, "null", "no version"},
			{"no object", text, "[]", "cannot unmarshal"},
			{"text after", text, text + "x", "invalid character"},
			{"twice", text, text + text, "invalid character"},
			{"no version", `"version": 1,`, ``, "no version"},
			{"newer version", `"version": 1`, `"version": 2`, "version 2, and this svidecar reads version 1 only"},
			{"newer version with a new field", `"version": 1`, `"version": 2, "curve": "x"`, "use the svidecar that wrote it"},
			{"version as text", `"version": 1`, `"version": "1"`, "cannot unmarshal"},
			{"unknown field", `"version": 1`, `"version": 1, "revision": 7`, `unknown field "revision"`},
			{"unknown field of a key", `"kid"`, `"state": "active", "kid"`, `unknown field "state"`},
			{"issuer twice", `"issuer"`, `"issuer": "https://mallory.example.org", "issuer"`, `field "issuer" is there twice`},
			{"kid twice", `"kid"`, `"kid": "x", "kid"`, `field "kid" is there twice`},
			{"issuer in capitals, too", `"issuer"`, `"Issuer": "https://mallory.example.org", "issuer"`, `unknown field "Issuer"`},
			{"issuer in capitals", `"issuer"`, `"ISSUER"`, `unknown field "ISSUER"`},
			{"long s", `"issuer"`, "\"i\u017fsuer\"", "unknown field"},
			{"name of a key in capitals", `"signs_from"`, `"Signs_From"`, `unknown field "Signs_From"`},
			{"private key in it", `"kid"`, `"private_key": "x", "kid"`, `unknown field "private_key"`},
			{"long unknown field", `"version"`, `"` + strings.Repeat("a", 2000) + `": 1, "version"`, "unknown field"},
			{"no issuer", `"https://issuer.example.org/keys"`, `""`, "required"},
			{"http issuer", `"https:`, `"http:`, "https://"},
			{"no wait", `"24h0m0s"`, `""`, "invalid duration"},
			{"wait without unit", `"24h0m0s"`, `"24"`, "missing unit"},
			{"wait as number", `"24h0m0s"`, `24`, "cannot unmarshal"},
			{"negative wait", `"24h0m0s"`, `"-24h"`, "publication_wait"},
			{"long wait", `"24h0m0s"`, `"1000h"`, "publication_wait"},
			{"no keys", text[strings.Index(text, `"keys"`):], `"keys": []}`, "0 keys"},
			{"null keys", text[strings.Index(text, `"keys"`):], `"keys": null}`, "0 keys"},
			{"doubled kid", f.kid("B"), f.kid("A"), "does not fit public_key"},
			{"doubled key", `"keys": [`, `"keys": [` + text[strings.Index(text, "    {"):strings.Index(text, "    },")] + "},", "another key's too"},
			{"kid of a friend", f.kid("A"), strings.Repeat("A", 43), "key 1: the kid does not fit public_key, whose kid is " + f.kid("A")},
			{"path as kid", f.kid("A"), "../../etc/passwd", "does not fit"},
			{"no public key", spki(t, keyAt(0).Public()), "", "public_key is not"},
			{"cut public key", spki(t, keyAt(0).Public())[:40], "", "public_key is not"},
			{"public key not in base64", `"public_key": "`, `"public_key": "!`, "illegal base64"},
			{"EC key", spki(t, keyAt(0).Public()), spki(t, ec.Public()), "public_key is not"},
			{"1,024 bits", `"kid": "` + f.kid("A") + `",
      "public_key": "` + spki(t, keyAt(0).Public()), `"kid": "` + kidOf(t, small.Public()) + `",
      "public_key": "` + spki(t, small.Public()), "1024 bits"},
			{"no created", `"created": "2000-01-01T00:00:00Z",`, ``, "created is missing"},
			{"created not a time", `"created": "2000-01-01T00:00:00Z"`, `"created": "yesterday"`, "parsing time"},
			{"created with a fraction", `"created": "2000-01-01T00:00:00Z"`, `"created": "2000-01-01T00:00:00.5Z"`, "whole seconds"},
			{"created before computers", `"created": "2000-01-01T00:00:00Z"`, `"created": "1900-01-01T00:00:00Z"`, "1970"},
			{"published missing", `"published": "2000-01-01T00:00:00Z",`, ``, "go together"},
			{"signs_from missing", `"published": "2000-01-01T00:00:00Z",
      "signs_from": "2000-01-01T00:00:00Z"`, `"published": "2000-01-01T00:00:00Z"`, "go together"},
			{"signs before published", `"signs_from": "2000-01-02T00:00:01Z"`, `"signs_from": "1999-01-02T00:00:01Z"`, "signs_from is before published"},
			{"two sign at once", `"signs_from": "2000-01-01T00:00:00Z"`, `"signs_from": "2000-01-02T00:00:01Z"`, "another key's too"},
			{"two sign at once, in two zones", `"signs_from": "2000-01-01T00:00:00Z"`, `"signs_from": "2000-01-02T01:00:01+01:00"`, "another key's too"},
			{"larger than 1 MiB", text, text + strings.Repeat("\n", 1<<20), "larger than 1 MiB"},
		} {
			if strings.Count(text, tt.old) == 0 {
				t.Fatalf("%s: the manifest has no %q", tt.name, tt.old)
			}
			f.must(os.WriteFile(path, []byte(strings.Replace(text, tt.old, tt.new, 1)), 0o644))
			checkRefused(t, f, tt.name, tt.says)
		}
		for i := 0; i < len(good)-1; i += 29 {
			f.must(os.WriteFile(path, good[:i], 0o644))
			checkRefused(t, f, "torn", "keys.json")
		}
		f.must(os.WriteFile(path, good, 0o644))
		f.must(f.Reload())
	})
}

// checkRefused wants a bad manifest refused by everybody, changed by nobody, and
// the old contents in use by who had them.
func checkRefused(t *testing.T, f *fixture, name, says string) {
	t.Helper()
	path := filepath.Join(f.Path(), "keys.json")
	before, err := os.ReadFile(path)
	f.must(err)
	_, openErr := keydir.Open(f.Path())
	_, rotateErr := f.Rotate(t.Context())
	_, pruneErr := f.Prune(t.Context())
	for _, err := range []error{openErr, f.Reload(), rotateErr, pruneErr, f.MarkPublished(t.Context(), f.kids...), f.Retire(t.Context(), f.kids[1], true)} {
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "restore it from a copy") && says != "larger than 1 MiB" {
			t.Errorf("%s: %v, want it to say %q", name, err, says)
			continue
		}
		checkOneLine(t, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("%s: a bad manifest was changed, %v", name, err)
	}
	if f.states() != "A:active B:published" || f.signer() != "A" || f.files() != ".lock A.pem B.pem keys.json" {
		t.Errorf("%s: the old contents are not in use: %s, %q signs, files %s", name, f.states(), f.signer(), f.files())
	}
}

// Times in other zones, and another order of members, are taken for what they say.
func TestManifestEditedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := twoKeys(t)
		want := f.Keys()
		rewrite(t, f, `"signs_from": "2000-01-02T00:00:01Z"`, `"signs_from": "2000-01-02T05:30:01+05:30"`)
		rewrite(t, f, `  "version": 1,`, ``)
		rewrite(t, f, `  "keys": [`, `  "version" : 1,  "keys": [`)
		f.must(f.Reload())
		if diff := cmp.Diff(want, f.Keys()); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
	})
}

func FuzzManifest(f *testing.F) {
	two := create(f, 0)
	two.publish()
	two.rotate()
	good, err := os.ReadFile(filepath.Join(two.Path(), "keys.json"))
	two.must(err)
	f.Add(good)
	f.Add([]byte(`{"version":1,"issuer":"https://a","publication_wait":"1s","keys":[{"kid":"","public_key":"","created":"2000-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"version":1,"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Now()
		again, keys, err := keydir.Decode(data, now)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 1000 {
				t.Errorf("not one bounded line: %v", err)
			}
			return
		}
		if len(keys) == 0 || len(keys) > 100 {
			t.Errorf("%d keys", len(keys))
		}
		once, keysAgain, err := keydir.Decode(again, now)
		if err != nil || !bytes.Equal(again, once) || !cmp.Equal(keys, keysAgain) {
			t.Errorf("what was written reads differently: %v", err)
		}
	})
}

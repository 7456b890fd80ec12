package mint_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	issuer   = "https://issuer.example.org/cluster"
	subject  = "spiffe://example.org/ns/shop/sa/cart"
	audience = "api://AzureADTokenExchange"
)

// testdata reads a file of the folder testdata.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// testKey is the fixed key of the golden files. It protects nothing.
func testKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := mint.ParseKey(testdata(t, "test-only-rsa2048-pkcs8.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// otherKey is a second fixed key.
func otherKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := mint.ParseKey(testdata(t, "test-only-rsa2048-pkcs1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// forge makes a compact JWS from a header and a payload, without the product
// and without any JOSE library, so that both may be as wrong as a test needs.
func forge(t testing.TB, header, payload string) string {
	t.Helper()
	block, _ := pem.Decode(testdata(t, "test-only-rsa2048-pkcs8.pem"))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(string(signature))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const goodHeader = `{"alg":"RS256","kid":"k1","typ":"JWT"}`

// payload is that of a Kubernetes service-account token.
func payload(issued, expires time.Time) string {
	return fmt.Sprintf(`{"aud":[%q],"exp":%d,"iat":%d,"iss":%q,"nbf":%d,"sub":%q,"kubernetes.io":{"namespace":"shop"}}`,
		audience, expires.Unix(), issued.Unix(), issuer, issued.Unix(), subject)
}

// golden compares got with a file of testdata, or rewrites that with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", name), got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(testdata(t, name)), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got; -update rewrites it):\n%s", name, diff)
	}
}

// checkNoLeak fails if any text that err can show holds 8 bytes in a row of raw.
func checkNoLeak(t *testing.T, err error, raw string) {
	t.Helper()
	const window = 8
	for e := err; e != nil; e = errors.Unwrap(e) {
		for _, text := range []string{e.Error(), fmt.Sprintf("%+v %#v", e, e)} {
			for i := 0; i+window <= len(raw); i++ {
				if part := raw[i : i+window]; strings.Trim(part, " \t\n.") != "" && strings.Contains(text, part) {
					t.Fatalf("the error shows %q of the token: %s", part, text)
				}
			}
		}
	}
}

// checkOneLine fails unless err is one printable line of bounded length.
func checkOneLine(t *testing.T, err error) {
	t.Helper()
	if text := err.Error(); strings.ContainsAny(text, "\r\n\t\x00\x1b") || len(text) > 6<<10 {
		t.Errorf("the error is not one bounded line: %q", text)
	}
}

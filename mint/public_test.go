package mint_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// publicForms are all that a key's public half can be read from.
func publicForms(t *testing.T, key *rsa.PrivateKey) map[string][]byte {
	t.Helper()
	pkix, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"PUBLIC KEY":      block("PUBLIC KEY", pkix),
		"RSA PUBLIC KEY":  block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey)),
		"CERTIFICATE":     block("CERTIFICATE", cert),
		"PRIVATE KEY":     block("PRIVATE KEY", pkcs8),
		"RSA PRIVATE KEY": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
	}
}

func TestLoadPublicKeysRefuses(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forms := publicForms(t, key)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKIXPublicKey(curve.Public())
	if err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "not a PEM file"},
		{"text", []byte("hello"), "not a PEM file"},
		{"an elliptic curve", block("PUBLIC KEY", ec), "Entra accepts RS256 only"},
		{"rubbish", block("PUBLIC KEY", []byte("x")), "does not decode"},
		{"rubbish in a private key", block("PRIVATE KEY", []byte("x")), "not a valid PKCS #8 private key"},
		{"encrypted", block("ENCRYPTED PRIVATE KEY", []byte("x")), "must be decrypted"},
		{"a second block that is damaged", join(forms["PUBLIC KEY"], []byte("-----BEGIN PUBLIC KEY-----\nAAA")), "a damaged one"},
		{"a chain", join(forms["CERTIFICATE"], forms["CERTIFICATE"]), "give a file of that one alone"},
		{"a key and its certificate", join(forms["PUBLIC KEY"], forms["CERTIFICATE"]), "give a file of that one alone"},
		{"a private key and more", join(forms["PRIVATE KEY"], forms["PUBLIC KEY"]), "give a file of that one alone"},
		{"too long", bytes.Repeat([]byte("x"), 65<<10), "load public keys"},
	} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := mint.LoadPublicKeys(path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: LoadPublicKeys = %d keys, %v; want %q", tt.name, len(keys), err, tt.want)
		}
	}
}

// TestPublicFormsAgree: whatever the key is read from, its name is the same.
func TestPublicFormsAgree(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	want, err := mint.KeySet(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	forms := publicForms(t, key)
	for name, data := range forms {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		keys, err := mint.LoadPublicKeys(path)
		if err != nil {
			t.Errorf("%s: LoadPublicKeys = %v", name, err)
			continue
		}
		if got, err := mint.KeySet(keys...); err != nil || string(got) != string(want) {
			t.Errorf("%s: key set %s (%v), want %s", name, got, err, want)
		}
		if _, private := keys[0].(crypto.Signer); private {
			t.Errorf("%s: the private key came along", name)
		}
	}
	path := filepath.Join(t.TempDir(), "sa.pub")
	second := publicForms(t, mustKey(t))
	if err := os.WriteFile(path, append(forms["PUBLIC KEY"], second["RSA PUBLIC KEY"]...), 0o644); err != nil {
		t.Fatal(err)
	}
	if keys, err := mint.LoadPublicKeys(path); err != nil || len(keys) != 2 {
		t.Errorf("a file of two: %d keys, %v", len(keys), err)
	}
}

func mustKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

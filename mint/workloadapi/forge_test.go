package workloadapi_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"
)

// claims are good ones of cart, issued at a time, with changes: names and values
// in turn; nil takes a claim out.
func claims(issued time.Time, changes ...any) map[string]any {
	c := map[string]any{
		"iss": issuerURL, "sub": cart.String(), "aud": audience,
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(5 * time.Minute).Unix(),
	}
	return changed(c, changes)
}

func changed(m map[string]any, changes []any) map[string]any {
	for i := 0; i < len(changes); i += 2 {
		name := changes[i].(string)
		m[name] = changes[i+1]
		if changes[i+1] == nil {
			delete(m, name)
		}
	}
	return m
}

// forge makes a compact JWS signed with RS256 by test key n, without the product
// and without a JOSE library. The header is a good one with changes.
func forge(t testing.TB, n int, header []any, payload map[string]any) string {
	t.Helper()
	h := changed(map[string]any{"alg": "RS256", "typ": "JWT", "kid": keyID(t, testKey(t, n))}, header)
	return forgeText(t, n, encode(t, h), encode(t, payload))
}

func forgeText(t testing.TB, n int, header, payload string) string {
	t.Helper()
	signed := b64(header) + "." + b64(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, rsaKey(t, n), crypto.SHA256, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(string(signature))
}

func rsaKey(t testing.TB, n int) *rsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(testPEM(t, n))
	if n == 1 {
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

func encode(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

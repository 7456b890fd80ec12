package mint_test

import (
	"crypto"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

// manyKeys are no real keys, but distinct and of the right size.
func manyKeys(n int) []crypto.PublicKey {
	keys := make([]crypto.PublicKey, n)
	for i := range keys {
		key := rsaOfBits(2048)
		key.N.Add(key.N, big.NewInt(int64(2*i)))
		keys[i] = key
	}
	return keys
}

func TestDocumentsRefuse(t *testing.T) {
	key := testKey(t)
	for _, tt := range []struct {
		name, issuer, says string
		keys               []crypto.PublicKey
	}{
		{"no issuer", "", "required", manyKeys(1)},
		{"http issuer", "http://issuer.example.org", "https://", manyKeys(1)},
		{"issuer with query", issuer + "?a", "query", manyKeys(1)},
		{"no keys", issuer, "0 keys", nil},
		{"101 keys", issuer, "101 keys", manyKeys(101)},
		{"same key twice", issuer, "there already", []crypto.PublicKey{key.Public(), key.Public()}},
		{"equal keys", issuer, "there already", append(manyKeys(3), manyKeys(1)...)},
		{"nil key", issuer, "key 1", append(manyKeys(1), nil)},
		{"private key", issuer, "not an RSA key", []crypto.PublicKey{key}},
		{"small key", issuer, "2047 bits", []crypto.PublicKey{rsaOfBits(2047)}},
		{"large key", issuer, "4097 bits", []crypto.PublicKey{rsaOfBits(4097)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			discovery, keySet, err := mint.Documents(tt.issuer, tt.keys...)
			if err == nil || !strings.Contains(err.Error(), tt.says) || discovery != nil || keySet != nil {
				t.Errorf("Documents(%q, %d keys) = %s, %s, %v; want an error that says %q", tt.issuer, len(tt.keys), discovery, keySet, err, tt.says)
			}
			if _, err := mint.NewIssuer(mint.IssuerConfig{Issuer: tt.issuer, Keys: tt.keys}); err == nil {
				t.Error("NewIssuer takes what Documents refuses")
			}
		})
	}
}

func TestDocumentsGolden(t *testing.T) {
	discovery, keySet, err := mint.Documents(issuer, testKey(t).Public(), otherKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "discovery.golden", discovery)
	golden(t, "keyset.golden", keySet)
}

func TestDocumentsHaveNothingMore(t *testing.T) {
	discovery, keySet, err := mint.Documents(issuer, manyKeys(100)...)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	var set map[string][]map[string]any
	if err := json.Unmarshal(discovery, &doc); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(keySet, &set); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"issuer": issuer, "jwks_uri": issuer + "/openid/v1/jwks",
		"response_types_supported": []any{"id_token"}, "subject_types_supported": []any{"public"},
		"id_token_signing_alg_values_supported": []any{"RS256"},
	}
	if diff := cmp.Diff(want, doc); diff != "" {
		t.Errorf("discovery -want +got:\n%s", diff)
	}
	if len(set) != 1 || len(set["keys"]) != 100 {
		t.Fatalf("%d keys among %d members, want 100 in 1", len(set["keys"]), len(set))
	}
	for i, key := range set["keys"] {
		n, kid := key["n"], key["kid"]
		wantKey := map[string]any{"use": "sig", "kty": "RSA", "alg": "RS256", "e": "AQAB", "n": n, "kid": kid}
		if diff := cmp.Diff(wantKey, key); diff != "" || len(kid.(string)) != 43 {
			t.Errorf("key %d -want +got:\n%s", i, diff)
		}
	}
}

func TestDocumentsKeepTheIssuer(t *testing.T) {
	for _, tt := range []struct{ issuer, keySet string }{
		{"https://issuer.example.org", "https://issuer.example.org/openid/v1/jwks"},
		{"https://issuer.example.org/", "https://issuer.example.org/openid/v1/jwks"},
		{"https://issuer.example.org/a/b/", "https://issuer.example.org/a/b/openid/v1/jwks"},
		{"https://Issuer.Example.org:8443/A&B<c>", "https://Issuer.Example.org:8443/A&B<c>/openid/v1/jwks"},
	} {
		discovery, _, err := mint.Documents(tt.issuer, manyKeys(1)...)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(discovery, &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Issuer != tt.issuer || doc.JWKSURI != tt.keySet || !strings.Contains(string(discovery), `"`+tt.issuer+`"`) {
			t.Errorf("issuer %q gives %s, want jwks_uri %q", tt.issuer, discovery, tt.keySet)
		}
	}
}

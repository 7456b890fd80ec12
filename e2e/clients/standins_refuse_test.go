//go:build e2e && linux

package clients_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/internal/emulation"
)

// tokenMaker signs what it is told to, right or wrong.
type tokenMaker struct{ key *rsa.PrivateKey }

func newTokenMaker(t *testing.T) tokenMaker {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return tokenMaker{key}
}

func (m tokenMaker) keySet(use string) func(context.Context, string) ([]byte, error) {
	return func(context.Context, string) ([]byte, error) {
		encode := base64.RawURLEncoding.EncodeToString
		return json.Marshal(map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "use": use, "kid": "one", "n": encode(m.key.N.Bytes()), "e": encode(big.NewInt(int64(m.key.E)).Bytes()),
		}}})
	}
}

// token is a good one for the audience, but for what is changed; a nil claim is left out.
func (m tokenMaker) token(t *testing.T, audience string, header, changed map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"aud": audience, "iss": "https://sts.windows.net/" + addressTenant + "/", "tid": addressTenant,
		"appid": emulation.ClientID, "idtyp": "app", "nbf": now - 300, "exp": now + 3600,
	}
	maps.Copy(claims, changed)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	said := map[string]any{"alg": "RS256", "typ": "JWT", "kid": "one"}
	maps.Copy(said, header)
	signed := encodePart(t, said) + "." + encodePart(t, claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(m.sign(t, said["alg"], signed))
}

func (m tokenMaker) sign(t *testing.T, alg any, text string) []byte {
	t.Helper()
	switch alg {
	case "none":
		return nil
	case "HS256": // by the public key, which is no secret
		mac := hmac.New(sha256.New, m.key.N.Bytes())
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, m.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func encodePart(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// tampered puts another app into a signed token.
func tampered(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	var claims map[string]any
	if err := decodePart(parts[1], &claims); err != nil {
		t.Fatal(err)
	}
	claims["tid"], claims["oid"] = addressTenant, emulation.ObjectID
	return parts[0] + "." + encodePart(t, claims) + "." + parts[2]
}

// TestStandInsRefuse holds the stand-ins to looking at a token before they answer: else
// that a client was answered would say nothing about its token.
func TestStandInsRefuse(t *testing.T) {
	maker, other := newTokenMaker(t), newTokenMaker(t)
	now := time.Now().Unix()
	for _, service := range []struct {
		name, audience, url string
		handler             http.Handler
	}{
		{
			"ARM", "https://management.core.windows.net/", "https://" + armHost + "/subscriptions?api-version=2022-12-01",
			newARM(maker.keySet("sig"), addressTenant, variableTenant),
		},
		{
			"Key Vault", vaultResource, "https://" + addressVaultHost + "/secrets/name/?api-version=7.6",
			newVaults(maker.keySet("sig"), map[string]string{addressVaultHost: addressTenant}),
		},
	} {
		good := maker.token(t, service.audience, nil, nil)
		changed := func(claims map[string]any) string { return "Bearer " + maker.token(t, service.audience, nil, claims) }
		for _, test := range []struct {
			name, authorization string
			want                error
		}{
			{"nothing", "", errNoBearer},
			{"another scheme", "PoP " + good, errNoBearer},
			{"no JWT", "Bearer token", errMalformed},
			{"padded base64url", "Bearer " + good + "=", errMalformed},
			{"no signature", "Bearer " + maker.token(t, service.audience, map[string]any{"alg": "none"}, nil), errAlgorithm},
			{"signed by the public key", "Bearer " + maker.token(t, service.audience, map[string]any{"alg": "HS256"}, nil), errAlgorithm},
			{"another key by the same name", "Bearer " + other.token(t, service.audience, nil, nil), errSignature},
			{"a key that is not published", "Bearer " + maker.token(t, service.audience, map[string]any{"kid": "two"}, nil), errSignature},
			{"claims that were not signed", "Bearer " + tampered(t, good), errSignature},
			{"another audience", "Bearer " + maker.token(t, "https://storage.azure.com", nil, nil), errAudience},
			{"the beginning of the audience", "Bearer " + maker.token(t, service.audience+".example", nil, nil), errAudience},
			{"no audience", changed(map[string]any{"aud": nil}), errAudience},
			{"another issuer", changed(map[string]any{"iss": "https://sts.example/" + addressTenant + "/"}), errIssuer},
			{"an unknown tenant's issuer", changed(map[string]any{"iss": "https://sts.windows.net/33333333-aaaa-4aaa-8aaa-333333333333/"}), errIssuer},
			{"another tenant than the issuer's", changed(map[string]any{"tid": variableTenant}), errTenant},
			{"expired", changed(map[string]any{"exp": now - 1}), errExpired},
			{"no end", changed(map[string]any{"exp": nil}), errExpired},
			{"not valid yet", changed(map[string]any{"nbf": now + 3600}), errNotYet},
			{"no app", changed(map[string]any{"appid": nil}), errNoIdentity},
			{"a person's", changed(map[string]any{"idtyp": nil}), errNoIdentity},
			{"good", "Bearer " + good, nil},
		} {
			t.Run(service.name+"/"+test.name, func(t *testing.T) {
				requireRefusal(t, service.handler, service.url, test.authorization, test.want)
			})
		}
	}
}

func requireRefusal(t *testing.T, handler http.Handler, url, authorization string, want error) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if want == nil {
		if w.Code != http.StatusOK {
			t.Fatalf("a good token: %d %s", w.Code, w.Body)
		}
		return
	}
	if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), want.Error()) || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("%d %s, WWW-Authenticate %q, want 401 and %q", w.Code, w.Body, w.Header().Get("WWW-Authenticate"), want)
	}
}

// TestStandInsHide: a good token is not enough where its app, or its tenant, has no
// business.
func TestStandInsHide(t *testing.T) {
	maker := newTokenMaker(t)
	keys := maker.keySet("sig")
	stranger := map[string]any{"appid": strangerID}
	management := newARM(keys, addressTenant, variableTenant)
	kept := newVaults(keys, map[string]string{addressVaultHost: addressTenant, variableVaultHost: variableTenant})
	for _, test := range []struct {
		name, url, audience string
		handler             http.Handler
		changed             map[string]any
		want                int
	}{
		{"a stranger's secret", "https://" + addressVaultHost + "/secrets/name?api-version=7.6", vaultResource, kept, stranger, http.StatusForbidden},
		{"another tenant's secret", "https://" + variableVaultHost + "/secrets/name?api-version=7.6", vaultResource, kept, nil, http.StatusUnauthorized},
		{"no version of the vault's", "https://" + addressVaultHost + "/secrets/name", vaultResource, kept, nil, http.StatusBadRequest},
		{"a stranger's group", "https://" + armHost + "/subscriptions/" + subscriptionID(addressTenant) + "/resourceGroups/" + groupName + "?api-version=2024-03-01", "https://management.azure.com", management, stranger, http.StatusNotFound},
		{"another tenant's group", "https://" + armHost + "/subscriptions/" + subscriptionID(variableTenant) + "/resourceGroups/" + groupName + "?api-version=2024-03-01", "https://management.azure.com", management, nil, http.StatusNotFound},
		{"no version of ARM's", "https://" + armHost + "/subscriptions", "https://management.azure.com", management, nil, http.StatusBadRequest},
		{"one's own group", "https://" + armHost + "/subscriptions/" + subscriptionID(addressTenant) + "/resourceGroups/" + groupName + "?api-version=2024-03-01", "https://management.azure.com", management, nil, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.url, nil)
			r.Header.Set("Authorization", "Bearer "+maker.token(t, test.audience, nil, test.changed))
			w := httptest.NewRecorder()
			test.handler.ServeHTTP(w, r)
			if w.Code != test.want {
				t.Errorf("%d %s, want %d", w.Code, w.Body, test.want)
			}
		})
	}
}

// TestEncryptionKeysSignNothing: a key that is published for another use is no key
// for signatures.
func TestEncryptionKeysSignNothing(t *testing.T) {
	maker := newTokenMaker(t)
	handler := newARM(maker.keySet("enc"), addressTenant)
	requireRefusal(t, handler, "https://"+armHost+"/subscriptions?api-version=2022-12-01",
		"Bearer "+maker.token(t, "https://management.azure.com", nil, nil), errSignature)
}

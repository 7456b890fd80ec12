//go:build unix

package workloadapi_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"
)

// signedBy makes a token whose header names kid of test key 0, but which another
// hand has signed.
func signedBy(t testing.TB, alg string, sign func(signed []byte) []byte) string {
	t.Helper()
	signed := b64(encode(t, map[string]any{"alg": alg, "typ": "JWT", "kid": keyID(t, testKey(t, 0))})) + "." + b64(encode(t, claims(time.Now())))
	return signed + "." + b64(string(sign([]byte(signed))))
}

// byMAC takes the public key, which everybody has, for a shared secret.
func byMAC(t testing.TB, key []byte) string {
	return signedBy(t, "HS256", func(signed []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(signed)
		return mac.Sum(nil)
	})
}

func byES256(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signedBy(t, "ES256", func(signed []byte) []byte {
		digest := sha256.Sum256(signed)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	})
}

// byRSA signs with the right key by another algorithm of its kind.
func byRSA(t testing.TB, alg string) string {
	t.Helper()
	return signedBy(t, alg, func(signed []byte) []byte {
		key := rsaKey(t, 0)
		short, long := sha256.Sum256(signed), sha512.Sum512(signed)
		signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA512, long[:])
		if alg == "PS256" {
			signature, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, short[:], nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return signature
	})
}

// forgeries are tokens that must be refused, by name, with a part of what is said.
func forgeries(t testing.TB) map[string][2]string {
	t.Helper()
	now := time.Now()
	good := forge(t, 0, nil, claims(now))
	parts := strings.Split(good, ".")
	kid := keyID(t, testKey(t, 0))
	der, err := x509.MarshalPKIXPublicKey(testKey(t, 0).Public())
	if err != nil {
		t.Fatal(err)
	}
	header := func(changes ...any) string { return forge(t, 0, changes, claims(now)) }
	payload := func(changes ...any) string { return forge(t, 0, nil, claims(now, changes...)) }
	const form, headers, notRS256, notSigned = "not a compact JWS", "more than alg, kid and typ", "not signed with RS256", "does not fit"
	return map[string][2]string{
		"alg none":                    {b64(`{"alg":"none","kid":"`+kid+`"}`) + "." + parts[1] + ".", form},
		"alg none with a signature":   {b64(`{"alg":"none","kid":"`+kid+`"}`) + "." + parts[1] + "." + parts[2], form},
		"alg absent":                  {header("alg", nil), form},
		"HS256 with the key's PEM":    {byMAC(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), form},
		"HS256 with the key's DER":    {byMAC(t, der), form},
		"ES256":                       {byES256(t), notRS256},
		"RS512 by the same key":       {byRSA(t, "RS512"), notRS256},
		"PS256 by the same key":       {byRSA(t, "PS256"), notRS256},
		"another key, same kid":       {forge(t, 1, []any{"kid", kid}, claims(now)), notSigned},
		"another key, its own kid":    {forge(t, 1, nil, claims(now)), "no key of its kid"},
		"no kid":                      {header("kid", nil), "has no kid"},
		"kid that is no string":       {header("kid", 7), form},
		"another payload":             {parts[0] + "." + strings.Split(payload("sub", stock.String()), ".")[1] + "." + parts[2], notSigned},
		"an empty signature":          {parts[0] + "." + parts[1] + ".", form},
		"a short signature":           {parts[0] + "." + parts[1] + ".AAAA", notSigned},
		"typ at+jwt":                  {header("typ", "at+jwt"), "typ"},
		"jku":                         {header("jku", "https://example.com/jwks"), headers},
		"jwk":                         {header("jwk", map[string]any{"kty": "RSA", "n": b64("\xff" + strings.Repeat("a", 255)), "e": "AQAB"}), headers},
		"x5u":                         {header("x5u", "https://example.com/chain"), headers},
		"x5t":                         {header("x5t", "AAAA"), headers},
		"a private header":            {header("example", "1"), headers},
		"crit":                        {header("crit", []string{"exp"}), headers},
		"crit and b64":                {header("crit", []string{"b64"}, "b64", false), headers},
		"nonce":                       {header("nonce", "AAAA"), headers},
		"alg twice":                   {forgeText(t, 0, `{"alg":"none","alg":"RS256","kid":"`+kid+`"}`, encode(t, claims(now))), form},
		"sub twice":                   {forgeText(t, 0, `{"alg":"RS256","kid":"`+kid+`"}`, `{"sub":"x",`+encode(t, claims(now))[1:]), form},
		"a line break inside":         {parts[0] + ".\n" + parts[1] + "." + parts[2], form},
		"padding":                     {parts[0] + "." + parts[1] + "." + parts[2] + "==", form},
		"five parts":                  {good + ".a.b", form},
		"JSON serialization":          {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, form},
		"17 KiB":                      {payload("filler", strings.Repeat("a", 17<<10)), form},
		"expired 61 s ago":            {payload("exp", now.Unix()-61), "expired"},
		"no exp":                      {payload("exp", nil), "no exp"},
		"exp that is a string":        {payload("exp", "tomorrow"), form},
		"valid in 2 minutes":          {payload("nbf", now.Unix()+120), "not valid yet"},
		"issued in 2 minutes":         {payload("iat", now.Unix()+120), "not valid yet"},
		"another audience":            {payload("aud", "api://other"), "another audience"},
		"no audience":                 {payload("aud", nil), "another audience"},
		"the audience as a prefix":    {payload("aud", audience+"/more"), "another audience"},
		"another issuer":              {payload("iss", "https://example.com"), "another issuer"},
		"no issuer":                   {payload("iss", nil), "another issuer"},
		"another trust domain":        {payload("sub", other.String()), "trust domain"},
		"no SPIFFE ID":                {payload("sub", "system:serviceaccount:shop:cart"), "trust domain"},
		"no sub":                      {payload("sub", nil), "trust domain"},
		"a payload that is no object": {forgeText(t, 0, `{"alg":"RS256","kid":"`+kid+`"}`, `["a"]`), form},
	}
}

func TestValidateRefuses(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	c := raw(t, address)
	for name, tt := range forgeries(t) {
		t.Run(name, func(t *testing.T) {
			got, err := c.ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: tt[0]})
			checkStatus(t, err, codes.InvalidArgument, tt[1])
			if got.GetClaims() != nil || got.GetSpiffeId() != "" {
				t.Error("claims come with the refusal")
			}
			if err != nil {
				checkNoLeak(t, err.Error(), tt[0])
			}
		})
	}
	good := forge(t, 0, nil, claims(time.Now()))
	_, err := c.ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Svid: good})
	checkStatus(t, err, codes.InvalidArgument, "audience is missing")
	_, err = c.ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Audience: audience})
	checkStatus(t, err, codes.InvalidArgument, "svid is missing")
}

func TestValidate(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	now := time.Now()
	for name, token := range map[string]string{
		"plain":                  forge(t, 0, nil, claims(now)),
		"typ JOSE":               forge(t, 0, []any{"typ", "JOSE"}, claims(now)),
		"no typ":                 forge(t, 0, []any{"typ", nil}, claims(now)),
		"no nbf":                 forge(t, 0, nil, claims(now, "nbf", nil)),
		"one of two audiences":   forge(t, 0, nil, claims(now, "aud", []string{"b", audience})),
		"expired within skew":    forge(t, 0, nil, claims(now, "exp", now.Unix()-50)),
		"valid soon within skew": forge(t, 0, nil, claims(now, "nbf", now.Unix()+50)),
		"more claims":            forge(t, 0, nil, claims(now, "nested", map[string]any{"a": []any{1, "b", nil, true}})),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := raw(t, address).ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
			if err != nil || got.GetSpiffeId() != cart.String() {
				t.Fatalf("ValidateJWTSVID: %v, %v", got, err)
			}
			fields := got.GetClaims().AsMap()
			if fields["sub"] != cart.String() || fields["iss"] != issuerURL || fields["exp"].(float64) < 1e9 {
				t.Errorf("claims %v", fields)
			}
		})
	}
	c := client(t, address)
	if svid, err := c.ValidateJWTSVID(t.Context(), mustFetch(t, raw(t, address), audience), audience); err != nil || svid.ID != cart {
		t.Errorf("by go-spiffe: %v, %v", svid, err)
	}
}

// TestValidateAsksForTheKeysOfNow: a token of a key that is gone is refused at
// once, without Refresh.
func TestValidateAsksForTheKeysOfNow(t *testing.T) {
	iss := newIssuer(t)
	address, _ := start(t, newServer(t, iss.config()))
	c := client(t, address)
	token := mustFetch(t, raw(t, address), audience)
	iss.set(func(i *issuer) { i.keys = []crypto.PublicKey{testKey(t, 1).Public()} })
	_, err := c.ValidateJWTSVID(t.Context(), token, audience)
	checkStatus(t, err, codes.InvalidArgument, "no key of its kid")
}

// FuzzValidate holds ValidateJWTSVID against go-spiffe: it takes nothing that
// go-spiffe refuses, and shows nothing of what it refuses.
func FuzzValidate(f *testing.F) {
	address, _ := start(f, newServer(f, newIssuer(f).config()))
	c := raw(f, address)
	bundles, err := client(f, address).FetchJWTBundles(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	for _, forgery := range forgeries(f) {
		f.Add(forgery[0], audience)
	}
	f.Add(forge(f, 0, nil, claims(time.Now())), audience)
	f.Fuzz(func(t *testing.T, token, audience string) {
		if !utf8.ValidString(token) || !utf8.ValidString(audience) || len(token)+len(audience) > 60<<10 {
			return // what no client can send
		}
		got, err := c.ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: token})
		if err != nil {
			checkStatus(t, err, codes.InvalidArgument, "")
			checkNoLeak(t, err.Error(), token)
			return
		}
		if svid, err := jwtsvid.ParseAndValidate(token, bundles, []string{audience}); err != nil || svid.ID.String() != got.GetSpiffeId() {
			t.Errorf("taken as %s; go-spiffe: %v", got.GetSpiffeId(), err)
		}
	})
}

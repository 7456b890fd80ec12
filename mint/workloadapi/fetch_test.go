//go:build unix

package workloadapi_test

import (
	"context"
	"crypto"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	spiffe "github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint"
)

func TestFetchRefuses(t *testing.T) {
	iss := newIssuer(t)
	address, _ := start(t, newServer(t, iss.config()))
	c := raw(t, address)
	for _, tt := range []struct {
		name      string
		audiences []string
		id        string
		code      codes.Code
		says      string
	}{
		{"no audience", nil, "", codes.InvalidArgument, "audience is missing"},
		{"an empty audience", []string{""}, "", codes.InvalidArgument, "audience is missing"},
		{"two audiences", []string{audience, "b"}, "", codes.InvalidArgument, "2 audiences"},
		{"a space in the audience", []string{"a b"}, "", codes.InvalidArgument, "printable"},
		{"a long audience", []string{strings.Repeat("a", 601)}, "", codes.InvalidArgument, "600"},
		{"no SPIFFE ID", []string{audience}, "https://example.org/shop/cart", codes.InvalidArgument, "not a SPIFFE ID"},
		{"another's identity", []string{audience}, "spiffe://example.org/shop", codes.PermissionDenied, "no identity issued"},
		{"another trust domain", []string{audience}, "spiffe://example.com/shop/cart", codes.PermissionDenied, "no identity issued"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := c.FetchJWTSVID(withHeader(t.Context()), &workload.JWTSVIDRequest{Audience: tt.audiences, SpiffeId: tt.id})
			checkStatus(t, err, tt.code, tt.says)
		})
	}
	if n := iss.mints.Load(); n != 0 {
		t.Errorf("%d tokens were minted for refusals", n)
	}
}

func TestFetch(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	c := client(t, address)
	all, err := c.FetchJWTSVIDs(t.Context(), jwtsvid.Params{Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, svid := range all {
		got = append(got, svid.ID.String()+" "+svid.Hint)
	}
	if diff := cmp.Diff([]string{cart.String() + " cart", stock.String() + " "}, got); diff != "" {
		t.Errorf("FetchJWTSVIDs (-want +got):\n%s", diff)
	}
	one, err := c.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience, Subject: stock})
	if err != nil || one.ID != stock {
		t.Fatalf("FetchJWTSVID of %s: %v, %v", stock, one, err)
	}
	bundles, err := c.FetchJWTBundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwtsvid.ParseAndValidate(one.Marshal(), bundles, []string{audience}); err != nil {
		t.Errorf("against the bundle: %v", err)
	}
	if _, err := jwtsvid.ParseAndValidate(one.Marshal(), bundles, []string{"another"}); err == nil {
		t.Error("for another audience it is taken too")
	}
}

func TestJWTSource(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	source, err := spiffe.NewJWTSource(t.Context(), spiffe.WithClientOptions(spiffe.WithAddr(address)))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience})
	if err != nil || svid.ID != cart {
		t.Fatalf("FetchJWTSVID: %v, %v", svid, err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), source, []string{audience}); err != nil {
		t.Error(err)
	}
}

// TestOwnConsumer has svidecar's own source of assertions ask, which refuses
// whatever Entra would refuse.
func TestOwnConsumer(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	source, err := mint.NewWorkload(mint.WorkloadConfig{Address: address, Audience: audience, Subject: cart.String(), VerifyBundle: true})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	got, err := source.Assertion(t.Context())
	if err != nil || got.Claims.Issuer != issuerURL || got.Claims.Subject != cart.String() {
		t.Errorf("Assertion: %v, %v", got.Claims, err)
	}
}

// fetch asks for one token of cart.
func fetch(t testing.TB, c workload.SpiffeWorkloadAPIClient, audience string) (string, error) {
	t.Helper()
	got, err := c.FetchJWTSVID(withHeader(t.Context()), &workload.JWTSVIDRequest{Audience: []string{audience}, SpiffeId: cart.String()})
	if err != nil {
		return "", err
	}
	return got.GetSvids()[0].GetSvid(), nil
}

func mustFetch(t testing.TB, c workload.SpiffeWorkloadAPIClient, audience string) string {
	t.Helper()
	got, err := fetch(t, c, audience)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestMintedIsChecked has a Mint that gives what verifiers would refuse.
func TestMintedIsChecked(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name, says string
		raw        string
	}{
		{"nothing", "not a compact JWS", ""},
		{"garbage", "not a compact JWS", "a.b.c"},
		{"another subject", "another subject", forge(t, 0, nil, claims(now, "sub", stock.String()))},
		{"another trust domain", "trust domain", forge(t, 0, nil, claims(now, "sub", other.String()))},
		{"another audience", "another audience", forge(t, 0, nil, claims(now, "aud", "b"))},
		{"two audiences", "more audiences", forge(t, 0, nil, claims(now, "aud", []string{audience, "b"}))},
		{"another issuer", "another issuer", forge(t, 0, nil, claims(now, "iss", "https://example.com"))},
		{"a key that is not published", "no key of its kid", forge(t, 1, nil, claims(now))},
		{"expired", "expired", forge(t, 0, nil, claims(now.Add(-time.Hour)))},
		{"expired just now", "has expired or is not valid yet", forge(t, 0, nil, claims(now, "exp", now.Add(-5*time.Second).Unix()))},
		{"no iat", "no iat", forge(t, 0, nil, claims(now, "iat", nil))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			iss := newIssuer(t)
			iss.play = func(context.Context, spiffeid.ID, string) (secret.Value, error) { return secret.New(tt.raw), nil }
			address, _ := start(t, newServer(t, iss.config()))
			_, err := fetch(t, raw(t, address), audience)
			checkStatus(t, err, codes.Unavailable, "its log says why")
			told := iss.told()
			if !strings.Contains(told, tt.says) || strings.Contains(told, "\n") {
				t.Errorf("told %q, want one line with %q", told, tt.says)
			}
			checkNoLeak(t, fmt.Sprint(told, err), tt.raw)
		})
	}
}

func TestMintFails(t *testing.T) {
	iss := newIssuer(t)
	iss.play = func(context.Context, spiffeid.ID, string) (secret.Value, error) { return secret.Value{}, errSigner }
	address, _ := start(t, newServer(t, iss.config()))
	_, err := fetch(t, raw(t, address), audience)
	checkStatus(t, err, codes.Unavailable, "its log says why")
	if strings.Contains(err.Error(), errSigner.Error()) {
		t.Errorf("the caller is told the issuer's own error: %v", err)
	}
	if told := iss.told(); !strings.Contains(told, errSigner.Error()) || !strings.Contains(told, cart.String()) {
		t.Errorf("told %q", told)
	}
}

// checkNoLeak looks for parts of a token in a text.
func checkNoLeak(t testing.TB, text, token string) {
	t.Helper()
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= 16 && (strings.Contains(text, part) || strings.Contains(text, part[:16])) {
			t.Errorf("a part of the token is shown: %s", text)
		}
	}
}

// TestAsksAreKeptApart: what is held for one subject or audience is never given
// for another.
func TestAsksAreKeptApart(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	c := client(t, address)
	for range 2 {
		for _, id := range []spiffeid.ID{cart, stock} {
			for _, aud := range []string{"a", "b", `a" "b`[:1]} {
				svid, err := c.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: aud, Subject: id})
				if err != nil || svid.ID != id || len(svid.Audience) != 1 || svid.Audience[0] != aud {
					t.Errorf("%s for %s: %v, %v", id, aud, svid, err)
				}
			}
		}
	}
}

func TestHeldTokensAreBounded(t *testing.T) {
	t.Parallel() // a thousand signatures
	iss := newIssuer(t)
	address, _ := start(t, newServer(t, iss.config()))
	c := raw(t, address)
	old := mustFetch(t, c, "first")
	for i := range 1000 {
		mustFetch(t, c, fmt.Sprint("a", i))
	}
	if mustFetch(t, c, "first") == old {
		t.Error("more than a thousand are kept")
	}
}

// TestKeyIsWithdrawn is what happens after a theft: the copy in hand must not
// outlive its key.
func TestKeyIsWithdrawn(t *testing.T) {
	iss := newIssuer(t)
	address, _ := start(t, newServer(t, iss.config()))
	c := raw(t, address)
	old := mustFetch(t, c, audience)
	key := testKey(t, 1)
	iss.set(func(i *issuer) { i.signer, i.keys = key, append(i.keys, key.Public()) })
	if mustFetch(t, c, audience) != old {
		t.Error("a second key made the first one's token worthless")
	}
	iss.set(func(i *issuer) { i.keys = []crypto.PublicKey{key.Public()} })
	got := mustFetch(t, c, audience)
	parsed, err := mint.Parse(got)
	if err != nil || parsed.KeyID != keyID(t, key) {
		t.Errorf("after the first key went: a token of key %s, error %v", parsed.KeyID, err)
	}
}

func BenchmarkFetchHeld(b *testing.B) {
	address, _ := start(b, newServer(b, newIssuer(b).config()))
	c := raw(b, address)
	mustFetch(b, c, audience)
	for b.Loop() {
		mustFetch(b, c, audience)
	}
}

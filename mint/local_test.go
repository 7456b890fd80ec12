package mint_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"github.com/svidecar/svidecar/mint"
)

func localConfig(t testing.TB) mint.LocalConfig {
	t.Helper()
	return mint.LocalConfig{Signer: testKey(t), Issuer: issuer, Subject: subject, Audience: audience}
}

func newLocal(t testing.TB, cfg mint.LocalConfig) *mint.Local {
	t.Helper()
	local, err := mint.NewLocal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// signer is a remote key: it counts, and may fail, wait, or sign with another
// key than it shows.
type signer struct {
	crypto.Signer
	public crypto.PublicKey // shown; nil means the key's own
	calls  atomic.Int32
	fail   atomic.Bool
	wait   atomic.Pointer[chan struct{}]
}

var errSigner = errors.New("TPM_RC_LOCKOUT\nfrom the\x1b[31m device")

func (s *signer) Public() crypto.PublicKey {
	if s.public != nil {
		return s.public
	}
	return s.Signer.Public()
}

func (s *signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.calls.Add(1)
	if wait := s.wait.Load(); wait != nil {
		<-*wait
	}
	if s.fail.Load() {
		return nil, errSigner
	}
	return s.Signer.Sign(random, digest, opts)
}

// publicOnly shows a key and cannot sign.
type publicOnly struct{ public crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.public }
func (publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("cannot sign")
}

// rsaOfBits is no real key, but has the size of one.
func rsaOfBits(bits int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: 65537}
}

func TestNewLocalRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	shows := func(pub crypto.PublicKey) func(*mint.LocalConfig) {
		return func(c *mint.LocalConfig) { c.Signer = publicOnly{pub} }
	}
	iss := func(s string) func(*mint.LocalConfig) { return func(c *mint.LocalConfig) { c.Issuer = s } }
	sub := func(s string) func(*mint.LocalConfig) { return func(c *mint.LocalConfig) { c.Subject = s } }
	aud := func(s string) func(*mint.LocalConfig) { return func(c *mint.LocalConfig) { c.Audience = s } }
	life := func(d time.Duration) func(*mint.LocalConfig) {
		return func(c *mint.LocalConfig) { c.Lifetime = d }
	}
	for _, tt := range []struct {
		name, field string
		change      func(*mint.LocalConfig)
	}{
		{"no signer", "Signer", func(c *mint.LocalConfig) { c.Signer = nil }},
		{"EC key", "Signer", func(c *mint.LocalConfig) { c.Signer = ec }},
		{"Ed25519 key", "Signer", func(c *mint.LocalConfig) { c.Signer = ed }},
		{"no public key", "Signer", shows(nil)},
		{"nil RSA key", "Signer", shows((*rsa.PublicKey)(nil))},
		{"RSA key without modulus", "Signer", shows(&rsa.PublicKey{})},
		{"RSA key by value", "Signer", shows(*rsaOfBits(2048))},
		{"RSA key with even exponent", "Signer", shows(&rsa.PublicKey{N: rsaOfBits(2048).N, E: 4})},
		{"2,047 bits", "Signer", shows(rsaOfBits(2047))},
		{"4,097 bits", "Signer", shows(rsaOfBits(4097))},
		{"no issuer", "Issuer", iss("")},
		{"http issuer", "Issuer", iss("http://issuer.example.org")},
		{"issuer in capitals", "Issuer", iss("HTTPS://issuer.example.org")},
		{"issuer without scheme", "Issuer", iss("issuer.example.org")},
		{"issuer without host", "Issuer", iss("https:///path")},
		{"issuer with only a port", "Issuer", iss("https://:8443")},
		{"issuer with an empty port", "Issuer", iss("https://issuer.example.org:")},
		{"issuer with a bad port", "Issuer", iss("https://issuer.example.org:https")},
		{"issuer with a query", "Issuer", iss("https://issuer.example.org/?a=b")},
		{"issuer with an empty query", "Issuer", iss("https://issuer.example.org/?")},
		{"issuer with a fragment", "Issuer", iss("https://issuer.example.org/#a")},
		{"issuer with an empty fragment", "Issuer", iss("https://issuer.example.org/#")},
		{"issuer with a user", "Issuer", iss("https://user@issuer.example.org/")},
		{"issuer with a password", "Issuer", iss("https://user:pass@issuer.example.org/")},
		{"issuer with an empty user", "Issuer", iss("https://@issuer.example.org/")},
		{"issuer with escapes", "Issuer", iss("https://issuer.example.org/a%2Fb")},
		{"issuer with a backslash", "Issuer", iss(`https://issuer.example.org\a`)},
		{"issuer with a space", "Issuer", iss("https://issuer.example.org/a b")},
		{"issuer with a newline", "Issuer", iss("https://issuer.example.org/\n")},
		{"issuer not in ASCII", "Issuer", iss("https://issuer.example.org/ä")},
		{"issuer with two trailing slashes", "Issuer", iss("https://issuer.example.org//")},
		{"issuer with an empty segment", "Issuer", iss("https://issuer.example.org/a//b")},
		{"issuer with a dot segment", "Issuer", iss("https://issuer.example.org/a/./b")},
		{"issuer with dots at the end", "Issuer", iss("https://issuer.example.org/a/..")},
		{"opaque issuer", "Issuer", iss("https:issuer.example.org")},
		{"issuer of 601 characters", "Issuer", iss("https://h/" + strings.Repeat("a", 591))},
		{"no subject", "Subject", sub("")},
		{"subject of Kubernetes", "Subject", sub("system:serviceaccount:shop:cart")},
		{"subject without path", "Subject", sub("spiffe://example.org")},
		{"subject with trailing slash", "Subject", sub("spiffe://example.org/")},
		{"subject with empty segment", "Subject", sub("spiffe://example.org/a//b")},
		{"subject with dot segment", "Subject", sub("spiffe://example.org/a/../b")},
		{"subject with capitals in trust domain", "Subject", sub("spiffe://Example.org/a")},
		{"subject with escapes", "Subject", sub("spiffe://example.org/a%20b")},
		{"subject with query", "Subject", sub("spiffe://example.org/a?b")},
		{"subject with port", "Subject", sub("spiffe://example.org:80/a")},
		{"subject of 601 characters", "Subject", sub("spiffe://h/" + strings.Repeat("a", 590))},
		{"no audience", "Audience", aud("")},
		{"audience with a space", "Audience", aud("api://a b")},
		{"audience of 601 characters", "Audience", aud(strings.Repeat("a", 601))},
		{"negative lifetime", "Lifetime", life(-time.Minute)},
		{"lifetime under a minute", "Lifetime", life(59 * time.Second)},
		{"lifetime over an hour", "Lifetime", life(time.Hour + time.Second)},
		{"lifetime with a fraction", "Lifetime", life(time.Minute + time.Millisecond)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := localConfig(t)
			tt.change(&cfg)
			_, err := mint.NewLocal(cfg)
			if err == nil || !strings.HasPrefix(err.Error(), "mint: LocalConfig."+tt.field) {
				t.Fatalf("NewLocal: %v, want a refusal of %s", err, tt.field)
			}
			checkOneLine(t, err)
		})
	}
}

func TestNewLocalTakesTheLimits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*mint.LocalConfig)
	}{
		{"2,048 bits", func(c *mint.LocalConfig) { c.Signer = publicOnly{rsaOfBits(2048)} }},
		{"4,096 bits", func(c *mint.LocalConfig) { c.Signer = publicOnly{rsaOfBits(4096)} }},
		{"issuer of 600 characters", func(c *mint.LocalConfig) { c.Issuer = "https://h/" + strings.Repeat("a", 590) }},
		{"issuer with a port", func(c *mint.LocalConfig) { c.Issuer = "https://127.0.0.1:8443" }},
		{"issuer by IPv6", func(c *mint.LocalConfig) { c.Issuer = "https://[::1]:8443/a" }},
		{"issuer with a trailing slash", func(c *mint.LocalConfig) { c.Issuer = issuer + "/" }},
		{"subject of 600 characters", func(c *mint.LocalConfig) { c.Subject = "spiffe://h/" + strings.Repeat("a", 589) }},
		{"audience of 600 characters", func(c *mint.LocalConfig) { c.Audience = strings.Repeat("a", 600) }},
		{"lifetime of a minute", func(c *mint.LocalConfig) { c.Lifetime = time.Minute }},
		{"lifetime of an hour", func(c *mint.LocalConfig) { c.Lifetime = time.Hour }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := localConfig(t)
			tt.change(&cfg)
			newLocal(t, cfg)
		})
	}
}

func TestLocalGolden(t *testing.T) {
	for range 2 { // the second time shows that nothing but the seed decides
		cryptotest.SetGlobalRandom(t, 1)
		synctest.Test(t, func(t *testing.T) {
			got, err := newLocal(t, localConfig(t)).Assertion(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "test-only-assertion.golden", []byte(got.Value.Reveal()+"\n"))
		})
	}
}

// TestLocalShape reads the token without any JOSE library.
func TestLocalShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1500 * time.Millisecond) // so that there is a fraction to drop
		cfg := localConfig(t)
		cfg.Lifetime = time.Hour
		got, err := newLocal(t, cfg).Assertion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kid, err := mint.KeyID(cfg.Signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		header, claims := decode(t, got.Value.Reveal())
		if diff := cmp.Diff(map[string]any{"alg": "RS256", "kid": kid, "typ": "JWT"}, header); diff != "" {
			t.Errorf("header -want +got:\n%s", diff)
		}
		const start = 946684801 // 2000-01-01T00:00:01Z
		if id, _ := claims["jti"].(string); len(id) != 22 {
			t.Errorf("jti %q, want 16 bytes in base64url", id)
		}
		delete(claims, "jti")
		want := map[string]any{
			"iss": issuer, "sub": subject, "aud": audience,
			"iat": json.Number(fmt.Sprint(start)), "nbf": json.Number(fmt.Sprint(start - 30)), "exp": json.Number(fmt.Sprint(start + 3600)),
		}
		if diff := cmp.Diff(want, claims); diff != "" {
			t.Errorf("claims -want +got:\n%s", diff)
		}
		parsed, err := mint.Parse(got.Value.Reveal())
		if diff := cmp.Diff(parsed, got.Claims); err != nil || diff != "" {
			t.Errorf("Claims differ from what Parse reads (%v) -parsed +got:\n%s", err, diff)
		}
	})
}

func decode(t *testing.T, raw string) (header, claims map[string]any) {
	t.Helper()
	for i, into := range []*map[string]any{&header, &claims} {
		part, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[i])
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(strings.NewReader(string(part)))
		d.UseNumber()
		if err := d.Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

// TestLocalVerifies hands the token and the documents to other implementations.
func TestLocalVerifies(t *testing.T) {
	local := newLocal(t, localConfig(t))
	got, err := local.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := otherKey(t).Public()
	t.Run("go-jose, by the key set", func(t *testing.T) {
		_, keySet, err := mint.Documents(issuer, other, local.Public())
		if err != nil {
			t.Fatal(err)
		}
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(keySet, &set); err != nil {
			t.Fatal(err)
		}
		token, err := jwt.ParseSigned(got.Value.Reveal(), []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		var claims jwt.Claims
		if err := token.Claims(other, &claims); err == nil {
			t.Error("another key verifies the token")
		}
		if err := token.Claims(set, &claims); err != nil {
			t.Fatal(err)
		}
		if err := claims.Validate(jwt.Expected{Issuer: issuer, Subject: subject, AnyAudience: jwt.Audience{audience}, Time: time.Now()}); err != nil {
			t.Error(err)
		}
	})
	t.Run("go-spiffe", func(t *testing.T) {
		domain := spiffeid.RequireTrustDomainFromString("example.org")
		bundle := jwtbundle.FromJWTAuthorities(domain, map[string]crypto.PublicKey{got.Claims.KeyID: local.Public()})
		svid, err := jwtsvid.ParseAndValidate(got.Value.Reveal(), bundle, []string{audience})
		if err != nil {
			t.Fatal(err)
		}
		if svid.ID.String() != subject || !svid.Expiry.Equal(got.Claims.Expiry) {
			t.Errorf("JWT-SVID of %v until %v, want %v until %v", svid.ID, svid.Expiry, subject, got.Claims.Expiry)
		}
		wrong := jwtbundle.FromJWTAuthorities(domain, map[string]crypto.PublicKey{got.Claims.KeyID: other})
		if _, err := jwtsvid.ParseAndValidate(got.Value.Reveal(), wrong, []string{audience}); err == nil {
			t.Error("another key verifies the JWT-SVID")
		}
	})
}

func TestLocalReusesToHalfLife(t *testing.T) {
	for _, tt := range []struct{ lifetime, half time.Duration }{
		{0, 150 * time.Second},
		{time.Minute, 30 * time.Second},
		{time.Hour, 30 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := localConfig(t)
			key := &signer{Signer: cfg.Signer}
			cfg.Signer, cfg.Lifetime = key, tt.lifetime
			local := newLocal(t, cfg)
			seen := map[string]bool{}
			for _, step := range []struct {
				sleep time.Duration
				want  int32
			}{{0, 1}, {tt.half - 1, 1}, {1, 2}, {0, 2}, {tt.half - 1, 2}, {1, 3}, {24 * time.Hour, 4}} {
				time.Sleep(step.sleep)
				got, err := local.Assertion(t.Context())
				if err != nil || key.calls.Load() != step.want {
					t.Fatalf("lifetime %v, after %v: %d signatures, err %v; want %d", tt.lifetime, step.sleep, key.calls.Load(), err, step.want)
				}
				if left := time.Until(got.Claims.Expiry); left <= tt.half-time.Second {
					t.Errorf("lifetime %v: %v left, want at least half", tt.lifetime, left)
				}
				seen[got.Value.Reveal()] = true
			}
			if len(seen) != 4 {
				t.Errorf("lifetime %v: %d distinct tokens, want 4", tt.lifetime, len(seen))
			}
		})
	}
}

func TestLocalGivesEachCallerItsOwnClaims(t *testing.T) {
	local := newLocal(t, localConfig(t))
	for range 2 {
		got, err := local.Assertion(t.Context())
		if err != nil || got.Claims.Audience[0] != audience {
			t.Fatalf("audience %q, err %v", got.Claims.Audience, err)
		}
		got.Claims.Audience[0] = "changed by a caller"
	}
}

func TestLocalConcurrentCallersShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := localConfig(t)
		key, gate := &signer{Signer: cfg.Signer}, make(chan struct{})
		key.wait.Store(&gate)
		cfg.Signer = key
		local := newLocal(t, cfg)
		var callers sync.WaitGroup
		var mu sync.Mutex
		seen := map[string]int{}
		for range 50 {
			callers.Go(func() {
				got, err := local.Assertion(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				seen[got.Value.Reveal()]++
			})
		}
		synctest.Wait() // all wait for the one signature
		close(gate)
		callers.Wait()
		if calls := key.calls.Load(); calls != 1 || len(seen) != 1 {
			t.Errorf("50 callers: %d signatures, %d tokens; want 1 of each", calls, len(seen))
		}
	})
}

// Without a bubble, for the race detector: keys and clock are real.
func TestLocalConcurrent(t *testing.T) {
	local := newLocal(t, localConfig(t))
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for range 20 {
				if _, err := local.Assertion(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
}

func TestLocalSignerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := localConfig(t)
		key := &signer{Signer: cfg.Signer}
		cfg.Signer = key
		local := newLocal(t, cfg)
		key.fail.Store(true)
		_, err := local.Assertion(t.Context())
		checkError(t, err, "", errSigner, true, "TPM_RC_LOCKOUT from the", "check that the key is reachable")

		key.fail.Store(false)
		first, err := local.Assertion(t.Context())
		if err != nil {
			t.Fatalf("after the signer recovered: %v", err)
		}
		key.fail.Store(true)
		time.Sleep(289 * time.Second) // of 300: 11 s are left
		if got, err := local.Assertion(t.Context()); err != nil || !got.Value.Equal(first.Value.Reveal()) {
			t.Errorf("with 11 s left: %v, want the old assertion", err)
		}
		time.Sleep(time.Second)
		_, err = local.Assertion(t.Context())
		checkError(t, err, "", errSigner, true)
	})
}

func TestLocalSignerOfAnotherKey(t *testing.T) {
	cfg := localConfig(t)
	cfg.Signer = &signer{Signer: cfg.Signer, public: otherKey(t).Public()}
	_, err := newLocal(t, cfg).Assertion(t.Context())
	checkError(t, err, "", jose.ErrCryptoFailure, false, "does not fit")
}

func TestLocalSignerHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := localConfig(t)
		key, gate := &signer{Signer: cfg.Signer}, make(chan struct{})
		cfg.Signer = key
		local := newLocal(t, cfg)

		key.wait.Store(&gate)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := local.Assertion(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an assertion: %v, want the caller's deadline", err)
		}
		close(gate) // the abandoned signature completes and is kept
		synctest.Wait()
		first, err := local.Assertion(t.Context())
		if err != nil || key.calls.Load() != 1 {
			t.Fatalf("%d signatures, err %v; want the one that was under way", key.calls.Load(), err)
		}

		hang := make(chan struct{})
		key.wait.Store(&hang)
		time.Sleep(4 * time.Minute)
		start := time.Now()
		got, err := local.Assertion(t.Context())
		if err != nil || !got.Value.Equal(first.Value.Reveal()) || time.Since(start) > time.Second {
			t.Errorf("past half-life: %v after %v, want the old assertion within a second", err, time.Since(start))
		}
		close(hang)
		synctest.Wait()
		if got, err := local.Assertion(t.Context()); err != nil || got.Value.Equal(first.Value.Reveal()) {
			t.Errorf("after the signer answered: the old assertion, or %v", err)
		}
	})
}

func TestLocalContextDone(t *testing.T) {
	cause := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := newLocal(t, localConfig(t)).Assertion(ctx); !errors.Is(err, cause) {
		t.Errorf("Assertion with a done context: %v, want %v", err, cause)
	}
}

func TestAssertionIsNotPrinted(t *testing.T) {
	got, err := newLocal(t, localConfig(t)).Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{fmt.Sprint(got), fmt.Sprintf("%+v %#v %q", got, got, got), string(text)} {
		for _, part := range strings.Split(got.Value.Reveal(), ".") {
			if strings.Contains(out, part) {
				t.Errorf("%q shows a part of the token", out)
			}
		}
	}
}

// TestCorruptedTokensDoNotLeak damages a real assertion in many ways, and looks
// for its parts in whatever is said about the damage.
func TestCorruptedTokensDoNotLeak(t *testing.T) {
	got, err := newLocal(t, localConfig(t)).Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := got.Value.Reveal()
	path := t.TempDir() + "/token"
	file := newFile(t, path)
	refused := 0
	for raw := range corrupted(good) {
		_, parseErr := mint.Parse(raw)
		write(t, path, raw)
		_, fileErr := file.Assertion(t.Context())
		for _, err := range []error{parseErr, fileErr} {
			if err != nil {
				refused++
				checkNoLeak(t, err, good)
				checkOneLine(t, err)
			}
		}
	}
	if refused < 200 {
		t.Errorf("only %d refusals: the test has lost its teeth", refused)
	}
}

// corrupted yields each damaged form once.
func corrupted(good string) map[string]bool {
	out := map[string]bool{
		strings.ToUpper(good): true, good + good: true, good + " " + good: true, "Bearer " + good: true,
		`{"token":"` + good + `"}`: true, strings.ReplaceAll(good, ".", "\n"): true, strings.ReplaceAll(good, ".", ""): true,
	}
	parts := strings.Split(good, ".")
	for i := range parts {
		out[strings.Join(slices.Delete(slices.Clone(parts), i, i+1), ".")] = true
		for j := range parts {
			swapped := slices.Clone(parts)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			out[strings.Join(swapped, ".")] = true
		}
	}
	for i := 0; i < len(good); i += 13 {
		out[good[:i]] = true
		out[good[i:]] = true
		for _, damage := range []string{"A", "=", "\n", "\x00", "\xff", ".", `"`, "%s"} {
			out[good[:i]+damage+good[i:]] = true
			out[good[:i]+damage+good[min(i+1, len(good)):]] = true
		}
	}
	return out
}

func BenchmarkLocalReuse(b *testing.B) {
	local := newLocal(b, localConfig(b))
	for b.Loop() {
		if _, err := local.Assertion(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// panicking is a signer with a fault of its own.
type panicking struct{ crypto.Signer }

func (panicking) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("boom") }

// TestLocalSignerPanics: a signer's fault fails the calls that wanted it, not the
// process.
func TestLocalSignerPanics(t *testing.T) {
	cfg := localConfig(t)
	cfg.Signer = panicking{cfg.Signer}
	local := newLocal(t, cfg)
	for range 2 {
		_, err := local.Assertion(t.Context())
		var refused *mint.Error
		if !errors.As(err, &refused) || !refused.Temporary() || !strings.Contains(err.Error(), "the signer panicked") {
			t.Errorf("Assertion = %v, want a temporary error that says so", err)
		}
	}
}

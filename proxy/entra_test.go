package proxy_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

// wholePath is a server on real sockets before a real exchange with the
// emulator, whose assertions a test can choose.
type wholePath struct {
	*running
	cloud  *emulation.Emulation
	tokens *exchange.Source

	mu        sync.Mutex
	assertion func(context.Context) (secret.Value, error)
	seen      []string // all assertions and tokens that occurred
}

// recorder notes the tokens that go by.
type recorder struct {
	*exchange.Source
	p *wholePath
}

func (r recorder) Token(ctx context.Context, key exchange.Key) (exchange.Token, error) {
	token, err := r.Source.Token(ctx, key)
	r.p.note(token.Value)
	return token, err
}

func (p *wholePath) note(v secret.Value) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !v.IsZero() {
		p.seen = append(p.seen, v.Reveal())
	}
}

func (p *wholePath) use(assertion func(context.Context) (secret.Value, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.assertion = assertion
}

func (p *wholePath) mint(ctx context.Context, _ exchange.Key, _ bool) (secret.Value, error) {
	p.mu.Lock()
	assertion := p.assertion
	p.mu.Unlock()
	v, err := assertion(ctx)
	p.note(v)
	return v, err
}

func startWholePath(t *testing.T, timeout time.Duration) *wholePath {
	t.Helper()
	resources := []string{"https://vault.azure.net", "https://hang.example"}
	for i := range 100 {
		resources = append(resources, fmt.Sprintf("https://r%d.example", i))
	}
	cloud, err := emulation.Start(emulation.Config{Entra: entratest.Config{Resources: resources}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	p := &wholePath{cloud: cloud}
	p.use(func(ctx context.Context) (secret.Value, error) {
		a, err := cloud.Source.Assertion(ctx)
		return a.Value, err
	})
	entra, err := exchange.NewEntra(exchange.EntraConfig{Authority: cloud.Entra.URL(), Roots: cloud.CA.Pool(), Assertion: p.mint})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(entra.Close)
	if p.tokens, err = exchange.New(exchange.Config{Redeem: entra.Redeem, Timeout: timeout}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.tokens.Close)
	p.running = start(t, func(cfg *proxy.Config) {
		cfg.Tokens = recorder{p.tokens, p}
		cfg.Policy = policy(t, proxy.PolicyConfig{AnyClientTenant: emulation.TenantID, Identities: []proxy.Identity{
			{ClientID: emulation.ClientID, Tenant: emulation.TenantID},
			{ClientID: second, Tenant: "99999999-7777-4888-9999-aaaaaaaaaaaa"},
		}})
	})
	return p
}

// leaksNothing looks for every assertion and token in the log, the metrics and
// the texts given. A part of three characters less at the end may be a prefix
// that a client library shows; no more than the JWT's constant header may be.
func (p *wholePath) leaksNothing(t *testing.T, texts ...string) {
	t.Helper()
	metrics := raw(t, p.ops, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		t.Error("no assertion occurred: this test proves nothing")
	}
	for _, text := range append(texts, p.log.String(), metrics.body) {
		for _, secret := range p.seen {
			for part := range strings.SplitSeq(secret, ".") {
				if strings.Contains(text, part) {
					t.Errorf("%q leaks %q", text, part)
				}
			}
		}
	}
}

func TestTokenIsEarned(t *testing.T) {
	p := startWholePath(t, 0)
	got := get(t, p.running, imdsTarget, metadata)
	if got.StatusCode != 200 {
		t.Fatalf("got %d %s", got.StatusCode, got.body)
	}
	claims, err := p.cloud.Entra.VerifyAccessToken(got.field(t, "access_token"))
	if err != nil || claims["appid"] != emulation.ClientID || claims["aud"] != "https://vault.azure.net" {
		t.Errorf("claims %v, %v", claims, err)
	}
	if sent := p.cloud.Entra.Assertions()[emulation.ClientID]; sent.Subject != emulation.Subject {
		t.Errorf("Entra verified %+v", sent)
	}
	p.leaksNothing(t)
}

// forge makes assertions that break one rule each, signed by an issuer of its
// own that the emulator can fetch documents from.
type forge struct {
	issuer string
	key    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
}

// newForge serves, under /PATH for several PATHs, discovery documents of which
// each but the first is broken in its own way, and trusts them all.
func newForge(t *testing.T, cloud *emulation.Emulation) *forge {
	t.Helper()
	f := &forge{}
	var err error
	if f.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if f.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	cert, err := cloud.CA.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	f.issuer = s.URL
	for _, path := range []string{"/good", "/gone", "/malformed", "/emptyauth"} {
		err := cloud.Entra.AddCredential(emulation.ClientID, entratest.FederatedCredential{Issuer: s.URL + path, Subject: "spiffe://Forge.example/app", Audience: emulation.Audience})
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *forge) serve(w http.ResponseWriter, r *http.Request) {
	path, document, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case path == "gone":
		http.NotFound(w, r)
	case path == "malformed":
		fmt.Fprint(w, "<html>sign in</html>")
	case document == "keys":
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: f.key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	default:
		issuer := f.issuer + "/" + path
		fields := map[string]any{
			"issuer": issuer, "jwks_uri": issuer + "/keys", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		}
		if path == "emptyauth" {
			fields["authorization_endpoint"] = ""
		}
		_ = json.NewEncoder(w).Encode(fields)
	}
}

// forged is what an assertion holds; a nil claim is left out.
type forged struct {
	alg    jose.SignatureAlgorithm
	key    crypto.PrivateKey
	header map[jose.HeaderKey]any
	claims map[string]any
	spoil  bool
}

func (f *forge) sign(t *testing.T, change func(*forged)) string {
	t.Helper()
	now := time.Now()
	it := forged{alg: jose.RS256, key: f.key, header: map[jose.HeaderKey]any{"kid": "k", "typ": "JWT"}, claims: map[string]any{
		"iss": f.issuer + "/good", "sub": "spiffe://Forge.example/app", "aud": emulation.Audience,
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text(),
	}}
	change(&it)
	maps.DeleteFunc(it.claims, func(_ string, v any) bool { return v == nil })
	maps.DeleteFunc(it.header, func(_ jose.HeaderKey, v any) bool { return v == nil })
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: it.alg, Key: it.key}, &jose.SignerOptions{ExtraHeaders: it.header})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(it.claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	if it.spoil {
		token = token[:len(token)-8] + "AAAAAAAA"
	}
	return token
}

// TestEntraRefusals: an assertion that breaks one of Entra's rules yields 400
// with the code, its cause and the fix in words; nothing of it is shown.
func TestEntraRefusals(t *testing.T) {
	p := startWholePath(t, 0)
	f := newForge(t, p.cloud)
	claim := func(name string, value any) func(*forged) {
		return func(it *forged) { it.claims[name] = value }
	}
	header := func(name jose.HeaderKey, value any) func(*forged) {
		return func(it *forged) { it.header[name] = value }
	}
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	const any = "?resource=https://rN.example" // a new one for each, as failures are remembered
	for i, tt := range []struct {
		name   string
		code   int
		query  string
		change func(*forged)
		says   string
	}{
		{"ES256", 5002738, any, func(it *forged) { it.alg, it.key = jose.ES256, f.ec }, "RS256"},
		{"no kid", 5002723, any, header("kid", nil), "kid"},
		{"typ JOSE", 5002727, any, header("typ", "JOSE"), "typ"},
		{"another issuer", 700211, any, claim("iss", f.issuer+"/other"), "issuer"},
		{"issuer with a slash", 700211, any, claim("iss", f.issuer+"/good/"), "issuer"},
		{"another audience", 700212, any, claim("aud", "api://other"), "audience"},
		{"another subject", 700213, any, claim("sub", "spiffe://forge.example/other"), "subject"},
		{"subject in another case", 7002138, any, claim("sub", "spiffe://forge.example/app"), "upper and lower case"},
		{"no iss", 90014, any, claim("iss", nil), "iss"},
		{"no aud", 90014, any, claim("aud", nil), "aud"},
		{"a life of 26 hours", 70023, any, claim("exp", time.Now().Add(26*time.Hour).Unix()), "25 hours"},
		{"no iat", 70023, any, claim("iat", nil), "iat"},
		{"expired", 700024, any, func(it *forged) {
			it.claims["exp"], it.claims["iat"], it.claims["nbf"] = ago(time.Minute), ago(time.Hour), ago(time.Hour)
		}, "clocks"},
		{"not yet valid", 700024, any, claim("nbf", ago(-4*time.Minute)), "clocks"},
		{"unknown kid", 7000272, any, header("kid", "other"), "1 to 30 minutes"},
		{"wrong signature", 50012, any, func(it *forged) { it.spoil = true }, "signature"},
		{"discovery not found", 50166, any, claim("iss", "GONE"), "public over https"},
		{"discovery malformed", 501661, any, claim("iss", "MALFORMED"), "well formed"},
		{"empty authorization_endpoint", 90061, any, claim("iss", "EMPTYAUTH"), "authorization_endpoint"},
		{"unknown application", 700016, any + "&client_id=" + first, func(*forged) {}, "client id"},
		{"unknown tenant", 90002, any + "&client_id=" + second, func(*forged) {}, "tenant"},
		{"unknown resource", 500011, "?resource=https://nothing.example", func(*forged) {}, "resource"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assertion := f.sign(t, func(it *forged) {
				tt.change(it)
				if iss, _ := it.claims["iss"].(string); iss == strings.ToUpper(iss) && iss != "" {
					it.claims["iss"] = f.issuer + "/" + strings.ToLower(iss)
				}
			})
			p.use(func(context.Context) (secret.Value, error) { return secret.New(assertion), nil })
			got := get(t, p.running, "/metadata/identity/oauth2/token"+strings.Replace(tt.query, "rN", fmt.Sprint("r", i), 1), metadata)
			text := got.field(t, "error_description")
			if got.StatusCode != 400 || !strings.HasPrefix(text, "AADSTS"+strconv.Itoa(tt.code)+": ") {
				t.Fatalf("got %d %s, want 400 AADSTS%d", got.StatusCode, got.body, tt.code)
			}
			if !strings.Contains(text, "To fix: ") || !strings.Contains(text, tt.says) {
				t.Errorf("%q lacks the fix, or %q", text, tt.says)
			}
			p.leaksNothing(t, got.body)
		})
	}
	// The issuer itself is good: what it signs without a fault is redeemed.
	good := f.sign(t, func(*forged) {})
	p.use(func(context.Context) (secret.Value, error) { return secret.New(good), nil })
	got := get(t, p.running, imdsTarget, metadata)
	if got.StatusCode != 200 {
		t.Fatalf("the forge's good assertion: %d %s", got.StatusCode, got.body)
	}
	// An Entra token is no assertion.
	entras := got.field(t, "access_token")
	p.use(func(context.Context) (secret.Value, error) { return secret.New(entras), nil })
	got = get(t, p.running, "/metadata/identity/oauth2/token?resource=https://vault.azure.net/", metadata)
	if got.StatusCode != 400 || !strings.Contains(got.body, "AADSTS700222") {
		t.Errorf("an Entra token as assertion: %d %s", got.StatusCode, got.body)
	}
}

// TestEveryCodeOverHTTP: the codes that no assertion provokes, by fault.
func TestEveryCodeOverHTTP(t *testing.T) {
	p := startWholePath(t, 0)
	for i, refusal := range entratest.Refusals() {
		if err := p.cloud.Entra.SetFault("*", entratest.Fault{AADSTS: refusal.Code}); err != nil {
			t.Fatal(err)
		}
		got := get(t, p.running, fmt.Sprintf("/metadata/identity/oauth2/token?resource=https://r%d.example", i), metadata)
		want := 400
		switch {
		case refusal.Status == 429 || refusal.Code == 50196 || refusal.Code == 90055:
			want = 429
		case refusal.Status >= 500 || refusal.Code == 90006 || refusal.Code == 90012 || refusal.Code == 90024 || refusal.Code == 90033:
			want = 503
		}
		if got.StatusCode != want || !strings.Contains(got.field(t, "error_description"), fmt.Sprintf("AADSTS%d: ", refusal.Code)) || (got.Header.Get("Retry-After") != "") != (want != 400) {
			t.Errorf("AADSTS%d (HTTP %d): got %d %s", refusal.Code, refusal.Status, got.StatusCode, got.body)
		}
	}
	p.leaksNothing(t)
}

// TestEntraFaults: what goes wrong below the protocol ends within the deadline
// as 503, or as 429 with Entra's Retry-After.
func TestEntraFaults(t *testing.T) {
	const timeout = 500 * time.Millisecond
	p := startWholePath(t, timeout)
	for i, tt := range []struct {
		name   string
		fault  entratest.Fault
		status int
		after  string
	}{
		{"429", entratest.Fault{Status: 429, RetryAfter: "7"}, 429, "7"},
		{"429 for a minute", entratest.Fault{Status: 429, RetryAfter: "60"}, 429, "20"},
		{"500", entratest.Fault{Status: 500}, 503, "1"},
		{"503", entratest.Fault{Status: 503, RetryAfter: "3"}, 503, "3"},
		{"reset", entratest.Fault{Reset: true}, 503, "1"},
		{"hang", entratest.Fault{Hang: true}, 503, "1"},
		{"slow", entratest.Fault{Latency: time.Minute}, 503, "1"},
		{"garbage", entratest.Fault{Garbage: true}, 503, "1"},
		{"truncated", entratest.Fault{Truncate: true}, 503, "1"},
		{"endless", entratest.Fault{Huge: true}, 503, "1"},
		{"redirect", entratest.Fault{Redirect: "https://127.0.0.1:1/"}, 503, "1"},
		{"echo", entratest.Fault{EchoAssertion: true}, 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := p.cloud.Entra.SetFault("*", tt.fault); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			got := get(t, p.running, fmt.Sprintf("/metadata/identity/oauth2/token?resource=https://r%d.example", i), metadata)
			if got.StatusCode != tt.status || got.Header.Get("Retry-After") != tt.after {
				t.Errorf("got %d, Retry-After %q, %s; want %d, %q", got.StatusCode, got.Header.Get("Retry-After"), got.body, tt.status, tt.after)
			}
			if took := time.Since(begun); took > timeout+2*time.Second {
				t.Errorf("took %v with a deadline of %v", took, timeout)
			}
			p.leaksNothing(t, got.body)
		})
	}
	p.cloud.Entra.ClearFaults()
	if got := get(t, p.running, imdsTarget, metadata); got.StatusCode != 200 {
		t.Errorf("after the faults: %d %s", got.StatusCode, got.body)
	}
}

// burst sends n requests at once and returns how many got no token.
func (p *wholePath) burst(t *testing.T, n int, resource func(i int) string) int32 {
	t.Helper()
	var (
		all    sync.WaitGroup
		failed atomic.Int32
	)
	for i := range n {
		all.Go(func() {
			if got := get(t, p.running, "/metadata/identity/oauth2/token?resource="+resource(i), metadata); got.StatusCode != 200 {
				failed.Add(1)
			}
		})
	}
	all.Wait()
	return failed.Load()
}

func TestThousandColdRequestsAreOneExchange(t *testing.T) {
	p := startWholePath(t, 0)
	if failed := p.burst(t, 1000, func(int) string { return "https://vault.azure.net" }); failed != 0 {
		t.Errorf("%d of 1,000 requests failed", failed)
	}
	if calls := p.cloud.Entra.Calls(); calls.Token != 1 || calls.Requests != 2 {
		t.Errorf("%d exchanges, %d requests in all; want 1, 2", calls.Token, calls.Requests)
	}
}

// TestFailureIsShared: twenty callers at once while Entra fails get one failure
// each, of one exchange, and are told when to come back.
func TestFailureIsShared(t *testing.T) {
	p := startWholePath(t, 0)
	if err := p.cloud.Entra.SetFault("*", entratest.Fault{Status: 500, Latency: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got := get(t, p.running, imdsTarget, metadata); got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" {
				t.Errorf("got %d, Retry-After %q; want 503, 1", got.StatusCode, got.Header.Get("Retry-After"))
			}
		})
	}
	all.Wait()
	if calls := p.cloud.Entra.Calls(); calls.Token != 1 {
		t.Errorf("%d exchanges for 20 callers, want 1", calls.Token)
	}
}

// TestResourcesDoNotWaitForEachOther: ten cold resources are exchanged side by
// side, while an eleventh hangs until its deadline.
func TestResourcesDoNotWaitForEachOther(t *testing.T) {
	const timeout = 3 * time.Second
	p := startWholePath(t, timeout)
	if err := p.cloud.Entra.SetFault("https://hang.example/.default", entratest.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 { // so that they overlap for sure
		if err := p.cloud.Entra.SetFault(fmt.Sprintf("https://r%d.example/.default", i), entratest.Fault{Latency: 500 * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	hung := make(chan int)
	go func() {
		hung <- get(t, p.running, "/metadata/identity/oauth2/token?resource=https://hang.example", metadata).StatusCode
	}()
	if failed := p.burst(t, 100, func(i int) string { return fmt.Sprintf("https://r%d.example", i%10) }); failed != 0 {
		t.Errorf("%d of 100 requests failed", failed)
	}
	if took := time.Since(begun); took > timeout-time.Second {
		t.Errorf("ten resources took %v beside one that hangs", took)
	}
	calls := p.cloud.Entra.Calls()
	for i := range 10 {
		if n := calls.Scopes[fmt.Sprintf("https://r%d.example/.default", i)]; n != 1 {
			t.Errorf("resource %d was exchanged %d times", i, n)
		}
	}
	if calls.MaxInFlight < 10 {
		t.Errorf("at most %d exchanges were under way at once, want 10", calls.MaxInFlight)
	}
	if status := <-hung; status != 503 {
		t.Errorf("the resource that hangs: %d, want 503", status)
	}
}

package entratest_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange/entratest"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	app := entratest.App{ClientID: clientID, TenantID: tenantID}
	cred := entratest.FederatedCredential{Issuer: "https://i.example", Subject: "s", Audience: cloud}
	var many []entratest.FederatedCredential
	for n := range 21 {
		many = append(many, entratest.FederatedCredential{Issuer: cred.Issuer, Subject: strings.Repeat("s", n+1), Audience: cloud})
	}
	with := func(creds ...entratest.FederatedCredential) entratest.Config {
		return entratest.Config{Apps: []entratest.App{{ClientID: clientID, TenantID: tenantID, Credentials: creds}}}
	}
	for _, tt := range []struct {
		name string
		cfg  entratest.Config
		want string
	}{
		{"address without port", entratest.Config{Addr: "127.0.0.1"}, "Addr"},
		{"public address", entratest.Config{Addr: "0.0.0.0:0"}, "loopback"},
		{"named address", entratest.Config{Addr: "example.org:0"}, "loopback"},
		{"audience", entratest.Config{Audience: "x"}, "Audience"},
		{"issuer timeout", entratest.Config{IssuerTimeout: time.Hour}, "IssuerTimeout"},
		{"key cache", entratest.Config{KeyCacheTTL: -1}, "KeyCacheTTL"},
		{"short life", entratest.Config{TokenLifetime: time.Second}, "TokenLifetime"},
		{"fraction of a second", entratest.Config{TokenLifetime: 2500 * time.Millisecond}, "TokenLifetime"},
		{"refresh after expiry", entratest.Config{RefreshIn: 2 * time.Hour}, "RefreshIn"},
		{"host with port", entratest.Config{Hosts: []string{"a:1"}}, "Hosts"},
		{"resource as scope", entratest.Config{Resources: []string{vaultScope}}, "Resources"},
		{"weak key", entratest.Config{Key: weakKey()}, "Key"},
		{"client id", entratest.Config{Apps: []entratest.App{{ClientID: "x", TenantID: tenantID}}}, "client id"},
		{"tenant id", entratest.Config{Apps: []entratest.App{{ClientID: clientID, TenantID: "common"}}}, "tenant id"},
		{"object id", entratest.Config{Apps: []entratest.App{{ClientID: clientID, TenantID: tenantID, ObjectID: "x"}}}, "object id"},
		{"app twice", entratest.Config{Apps: []entratest.App{app, {ClientID: strings.ToUpper(clientID), TenantID: otherTenantID}}}, "twice"},
		{"21 credentials", with(many...), "limit of 20"},
		{"credential twice", with(cred, entratest.FederatedCredential{Issuer: cred.Issuer, Subject: "s", Audience: "other"}), "two federated credentials"},
		{"601 characters", with(entratest.FederatedCredential{Issuer: cred.Issuer, Subject: strings.Repeat("é", 601), Audience: cloud}), "601"},
		{"empty audience", with(entratest.FederatedCredential{Issuer: cred.Issuer, Subject: "s"}), "audience"},
		{"http issuer", with(entratest.FederatedCredential{Issuer: "http://i.example", Subject: "s", Audience: cloud}), "https"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := entratest.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New() = %v, want an error about %q", err, tt.want)
			}
		})
	}
}

func TestCA(t *testing.T) {
	t.Parallel()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Certificate(); err == nil {
		t.Error("Certificate() without hosts succeeded")
	}
	cert, err := ca.Certificate("login.example", "127.0.0.1", "::1")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"login.example", "127.0.0.1", "::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: ca.Pool()}); err != nil {
			t.Errorf("Verify(%q) = %v", host, err)
		}
	}
	if life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore); life > 398*24*time.Hour {
		t.Errorf("the certificate lives %v, more than platforms accept", life)
	}
	block, rest := pem.Decode(ca.PEM())
	if block == nil || len(rest) > 0 || block.Type != "CERTIFICATE" {
		t.Errorf("PEM() = %q, want one certificate", ca.PEM())
	}
	other, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "login.example", Roots: other.Pool()}); err == nil {
		t.Error("another CA's pool verifies the certificate")
	}
}

func TestStartAndClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	if err := f.entra.Start(); err == nil {
		t.Error("second Start() succeeded")
	}
	addr := strings.TrimPrefix(f.entra.URL(), "https://")
	second, err := entratest.New(entratest.Config{Addr: addr, Key: entraKey()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("Start() on a taken port = %v, want an error that names %s", err, addr)
	}
	for range 2 {
		if err := second.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	if err := second.Start(); err == nil {
		t.Error("Start() after Close() succeeded")
	}
}

func TestUnknownHostAndPath(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, tt := range []struct {
		name, host, path string
		want             int
	}{
		{"other host", "login.example", "/common/discovery/instance", http.StatusMisdirectedRequest},
		{"unknown path", "", "/nothing", http.StatusNotFound},
	} {
		req, err := http.NewRequest(http.MethodGet, f.entra.URL()+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host
		if got := f.do(t, req).status; got != tt.want {
			t.Errorf("%s: status = %d, want %d", tt.name, got, tt.want)
		}
	}
}

// verifyByJWKS verifies an access token by the published key set alone.
func verifyByJWKS(t *testing.T, f *fixture, token string) (header, claims map[string]any) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, f.entra.URL()+"/"+tenantID+"/discovery/v2.0/keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct{ Kty, Use, Kid, N, E string }
	}
	if err := json.Unmarshal(f.do(t, req).body, &set); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(set.Keys) != 1 || set.Keys[0].Kty != "RSA" || set.Keys[0].Use != "sig" {
		t.Fatalf("token %q, key set %+v", token, set)
	}
	decoded := make([][]byte, 3)
	for i, p := range append(parts, set.Keys[0].N, set.Keys[0].E) {
		b, err := base64.RawURLEncoding.DecodeString(p)
		if err != nil {
			t.Fatal(err)
		}
		if i < 3 {
			decoded[i] = b
		} else {
			decoded = append(decoded, b)
		}
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(decoded[3]), E: int(new(big.Int).SetBytes(decoded[4]).Int64())}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], decoded[2]); err != nil {
		t.Fatalf("verifying the access token: %v", err)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		if err := json.Unmarshal(decoded[i], to); err != nil {
			t.Fatal(err)
		}
	}
	if header["kid"] != set.Keys[0].Kid {
		t.Errorf("kid = %v, want %v", header["kid"], set.Keys[0].Kid)
	}
	return header, claims
}

func TestGrant(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	r := f.try(t, nil)
	g := granted(t, r)
	want := grant{TokenType: "Bearer", ExpiresIn: 3599, ExtExpiresIn: 3599, AccessToken: g.AccessToken}
	if d := cmp.Diff(want, g); d != "" {
		t.Errorf("reply (-want +got):\n%s", d)
	}
	if n := len(g.AccessToken); n < 1200 || n > 1800 {
		t.Errorf("the access token has %d bytes, want 1200 to 1800", n)
	}
	if got := r.header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
		t.Errorf("Cache-Control = %q", got)
	}
	header, claims := verifyByJWKS(t, f, g.AccessToken)
	if header["alg"] != "RS256" || header["typ"] != "JWT" || header["x5t"] == nil {
		t.Errorf("header = %v", header)
	}
	verified, err := f.entra.VerifyAccessToken(g.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(claims, verified); d != "" {
		t.Errorf("VerifyAccessToken (-by key set +got):\n%s", d)
	}
	for name, want := range map[string]string{
		"aud": vault, "appid": clientID, "tid": tenantID, "oid": objectID, "sub": objectID,
		"idtyp": "app", "appidacr": "2", "ver": "1.0", "iss": "https://sts.windows.net/" + tenantID + "/",
	} {
		if claims[name] != want {
			t.Errorf("claim %s = %v, want %s", name, claims[name], want)
		}
	}
	now := float64(time.Now().Unix())
	if exp, nbf := claims["exp"].(float64), claims["nbf"].(float64); exp < now+3500 || exp > now+3600 || nbf > now-200 {
		t.Errorf("nbf, exp = %v, %v, now %v", nbf, exp, now)
	}
	got := f.entra.Assertions()[clientID]
	if got.Issuer != f.issuer.url || got.Subject != subject || got.Audience != cloud || got.KeyID != "k1" || got.Issued.IsZero() || got.Expires.IsZero() {
		t.Errorf("Assertions() = %+v", got)
	}
}

// Every form that is stricter than nothing must still let these through.
func TestGrantVariants(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config func(*entratest.Config)
		issuer func(*testIssuer)
		change func(*attempt)
	}{
		{name: "no typ", change: header("typ", nil)},
		{name: "no nbf", change: claim("nbf", nil)},
		{name: "aud as list", change: claim("aud", []string{cloud})},
		{name: "exactly 25 h", change: func(a *attempt) { a.claims["exp"] = a.claims["iat"].(int64) + 25*3600 }},
		{name: "MSAL's scopes", change: form("scope", vaultScope+" openid offline_access profile")},
		{name: "tenant and client in upper case", change: func(a *attempt) {
			a.tenant = strings.ToUpper(tenantID)
			a.form.Set("client_id", strings.ToUpper(clientID))
		}},
		{name: "charset", change: func(a *attempt) { a.contentType += "; charset=utf-8" }},
		{name: "slash in scope", change: form("scope", vault+"//.default")},
		{name: "any resource", change: form("scope", "api://x/.default"), config: func(c *entratest.Config) { c.Resources = nil }},
		{name: "x5t instead of kid", issuer: jwkMember("x5t", "t1"), change: func(a *attempt) { set(a.header, "kid", nil); set(a.header, "x5t", "t1") }},
		{name: "x5t#S256 instead of kid", issuer: jwkMember("x5t#S256", "t2"), change: func(a *attempt) { set(a.header, "kid", nil); set(a.header, "x5t#S256", "t2") }},
		{name: "key without alg", issuer: jwkMember("alg", nil)},
		{name: "100th key", issuer: manyKeys(99)},
		{name: "authorization endpoint", issuer: discovery("authorization_endpoint", "https://x.example/authorize")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, tt.config)
			if tt.issuer != nil {
				tt.issuer(f.issuer)
			}
			granted(t, f.try(t, tt.change))
		})
	}
}

// A trailing slash belongs to the issuer, and not to the well-known path.
func TestIssuerWithSlash(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	slash := f.issuer.url + "/"
	f.issuer.discovery["issuer"] = slash
	if err := f.entra.AddCredential(clientID, entratest.FederatedCredential{Issuer: slash, Subject: subject, Audience: cloud}); err != nil {
		t.Fatal(err)
	}
	granted(t, f.try(t, claim("iss", slash)))
}

func TestVerifyAccessTokenRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	if err := f.entra.SetFault(vaultScope, entratest.Fault{ExpiresIn: -time.Second}); err != nil {
		t.Fatal(err)
	}
	g := granted(t, f.try(t, nil))
	if g.ExpiresIn != -1 {
		t.Errorf("expires_in = %d, want -1", g.ExpiresIn)
	}
	a := newAttempt(f)
	for name, token := range map[string]string{
		"expired": g.AccessToken, "foreign": a.sign(), "no token": "x", "bad header": sign([]byte(`{"alg":"none"}`), []byte(`{}`), a.key),
	} {
		if claims, err := f.entra.VerifyAccessToken(token); err == nil {
			t.Errorf("VerifyAccessToken(%s) = %v, want an error", name, claims)
		}
	}
}

func TestCredentialsChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	cred := entratest.FederatedCredential{Issuer: f.issuer.url, Subject: subject, Audience: cloud}
	if err := f.entra.AddCredential(clientID, cred); err == nil {
		t.Error("AddCredential() took a credential that is there")
	}
	if err := f.entra.RemoveCredential(objectID, cred); err == nil {
		t.Error("RemoveCredential() of an unknown app succeeded")
	}
	if err := f.entra.RemoveCredential(clientID, cred); err != nil {
		t.Fatal(err)
	}
	if err := f.entra.RemoveCredential(clientID, cred); err == nil {
		t.Error("RemoveCredential() removed twice")
	}
	checkRefusal(t, f.try(t, nil), 70025)
	if err := f.entra.AddCredential(clientID, cred); err != nil {
		t.Fatal(err)
	}
	granted(t, f.try(t, nil))
	apps := f.entra.Apps()
	apps[0].Credentials[0].Subject = "changed"
	if got := f.entra.Apps()[0].Credentials[0].Subject; got != subject {
		t.Errorf("Apps() shares its memory: subject = %q", got)
	}
	if err := f.entra.SetApps(nil); err != nil {
		t.Fatal(err)
	}
	checkRefusal(t, f.try(t, nil), 90002)
}

func TestKeyCache(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		ttl       time.Duration
		rotated   int // refusal after the key's change, 0 for none
		wantFetch int
	}{{"no cache", 0, 0, 3}, {"cache", time.Hour, 7000272, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *entratest.Config) { c.KeyCacheTTL = tt.ttl })
			granted(t, f.try(t, nil))
			granted(t, f.try(t, nil))
			f.issuer.mu.Lock()
			f.issuer.keys = []map[string]any{publicJWK("k2", &foreignKey().PublicKey)}
			f.issuer.mu.Unlock()
			r := f.try(t, func(a *attempt) { a.header["kid"], a.key = "k2", foreignKey() })
			if tt.rotated != 0 {
				checkRefusal(t, r, tt.rotated)
			} else {
				granted(t, r)
			}
			if got := f.issuer.fetches("/keys"); got != tt.wantFetch {
				t.Errorf("the keys were fetched %d times, want %d", got, tt.wantFetch)
			}
		})
	}
}

// The cache ends by time: in memory and in a bubble, where hours pass at once.
func TestKeyCacheExpires(t *testing.T) {
	t.Parallel()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	keys := []*rsa.PrivateKey{issuerKey(), entraKey()} // made outside the bubble
	synctest.Test(t, func(t *testing.T) {
		issuer := &testIssuer{url: "https://issuer.example", key: keys[0], fetched: map[string]int{}}
		issuer.discovery = map[string]any{
			"issuer": issuer.url, "jwks_uri": issuer.url + "/keys",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"},
		}
		issuer.keys = []map[string]any{publicJWK("k1", &issuer.key.PublicKey)}
		entra, err := entratest.New(entratest.Config{
			CA: ca, Key: keys[1], KeyCacheTTL: time.Hour, Hosts: []string{"login.example"},
			IssuerClient: &http.Client{Transport: inMemory{issuer}},
			Apps: []entratest.App{{ClientID: clientID, TenantID: tenantID, Credentials: []entratest.FederatedCredential{
				{Issuer: issuer.url, Subject: subject, Audience: cloud},
			}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		f := &fixture{entra: entra, issuer: issuer, client: &http.Client{Transport: inMemory{entra.Handler()}}}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 1}, {59 * time.Minute, 1}, {time.Minute, 2}} {
			time.Sleep(step.wait) // returns at once
			granted(t, f.do(t, newAttempt(f).request("https://login.example")))
			if got := issuer.fetches("/keys"); got != step.want {
				t.Errorf("after %v: keys fetched %d times, want %d", step.wait, got, step.want)
			}
		}
		if err := entra.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
}

type inMemory struct{ http.Handler }

func (h inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.Host = r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	h.ServeHTTP(w, in)
	return w.Result(), nil
}

func TestInstanceDiscovery(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	get := func(query string) reply {
		req, err := http.NewRequest(http.MethodGet, f.entra.URL()+"/common/discovery/instance?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("client-request-id", requestID)
		return f.do(t, req)
	}
	endpoint := "authorization_endpoint=" + f.entra.URL() + "/" + tenantID + "/oauth2/v2.0/authorize"
	for _, query := range []string{"", endpoint, "api-version=1.1", "api-version=1.1&authorization_endpoint=https://login.example/x/oauth2/v2.0/authorize"} {
		checkRefusal(t, get(query), 50049)
	}
	var doc struct {
		Endpoint string `json:"tenant_discovery_endpoint"`
		Metadata []struct{ Aliases []string }
	}
	if err := json.Unmarshal(get("api-version=1.1&"+endpoint).body, &doc); err != nil {
		t.Fatal(err)
	}
	if want := f.entra.URL() + "/" + tenantID + "/v2.0/.well-known/openid-configuration"; doc.Endpoint != want {
		t.Errorf("tenant_discovery_endpoint = %q, want %q", doc.Endpoint, want)
	}
	for _, path := range []string{"/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys"} {
		req, err := http.NewRequest(http.MethodGet, f.entra.URL()+"/"+objectID+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("client-request-id", requestID)
		checkRefusal(t, f.do(t, req), 90002)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	const n = 8
	if err := f.entra.SetFault(vaultScope, entratest.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			resp, err := f.client.Do(newAttempt(f).request(f.entra.URL()))
			if err == nil {
				_ = resp.Body.Close()
				t.Error("a hung request was answered")
			}
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.entra.Calls().InFlight < n {
		<-tick.C
	}
	granted(t, f.try(t, form("scope", vault+"//.default"))) // is not held up
	calls := f.entra.Calls()
	want := entratest.Calls{
		Requests: n + 1, Token: n + 1, Successes: 1,
		Scopes:   map[string]int{vaultScope: n, vault + "//.default": 1},
		Refusals: map[int]int{},
		InFlight: n, MaxInFlight: n + 1,
		ScopesInFlight:    map[string]int{vaultScope: n},
		ScopesMaxInFlight: map[string]int{vaultScope: n, vault + "//.default": 1},
	}
	if d := cmp.Diff(want, calls); d != "" {
		t.Errorf("Calls() (-want +got):\n%s", d)
	}
	f.entra.ResetCalls()
	want = entratest.Calls{
		InFlight: n, MaxInFlight: n, Scopes: map[string]int{}, Refusals: map[int]int{},
		ScopesInFlight: map[string]int{vaultScope: n}, ScopesMaxInFlight: map[string]int{vaultScope: n},
	}
	if d := cmp.Diff(want, f.entra.Calls()); d != "" {
		t.Errorf("Calls() after ResetCalls (-want +got):\n%s", d)
	}
	if err := f.entra.Close(); err != nil { // ends the hung requests
		t.Errorf("Close() = %v", err)
	}
	wg.Wait()
	if got := f.entra.Calls().InFlight; got != 0 {
		t.Errorf("after Close(): %d in flight", got)
	}
}

// Many clients and every method at once: for the race detector.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *entratest.Config) { c.KeyCacheTTL = time.Nanosecond })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				resp, err := f.client.Do(newAttempt(f).request(f.entra.URL()))
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Go(func() {
		cred := entratest.FederatedCredential{Issuer: "https://i.example", Subject: "s", Audience: cloud}
		for range 20 {
			if err := f.entra.AddCredential(clientID, cred); err != nil {
				t.Error(err)
			}
			if err := f.entra.SetFault("", entratest.Fault{Latency: time.Microsecond}); err != nil {
				t.Error(err)
			}
			_, _, _, _ = f.entra.Calls(), f.entra.Apps(), f.entra.Faults(), f.entra.Assertions()
			f.entra.ClearFaults()
			if err := f.entra.RemoveCredential(clientID, cred); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if got := f.entra.Calls().Successes; got != 40 {
		t.Errorf("successes = %d, want 40", got)
	}
}

func TestTLSIsRequired(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	resp, err := http.Get("http://" + strings.TrimPrefix(f.entra.URL(), "https://") + "/common/discovery/instance")
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: status = %d, want 400", resp.StatusCode)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}}
	if resp, err := client.Get(f.entra.URL()); err == nil {
		_ = resp.Body.Close()
		t.Error("a client that does not trust the CA connected")
	}
}

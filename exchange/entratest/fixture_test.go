package entratest_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

const (
	tenantID      = "7e307b14-2a27-4f66-ada8-ec6400eb4977"
	otherTenantID = "0b2d8766-f13f-4524-83a6-c78d691c9cf6"
	clientID      = "af3110ba-0ba9-4412-b1a0-59f50b7e9273"
	otherClientID = "c25d6e4c-33c5-46f5-b2a5-cb541453f149"
	objectID      = "4ecd6548-e33b-4b9d-9986-bd3c22986c6f"
	subject       = "spiffe://example.org/ns/shop/sa/cart"
	cloud         = "api://AzureADTokenExchange"
	vault         = "https://vault.azure.net"
	vaultScope    = vault + "/.default"
	jwtBearer     = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	requestID     = "30b6df93-efd2-459c-ae6a-bad0838f6f00"
)

func mustKey(bits int) func() *rsa.PrivateKey {
	return sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	})
}

// Keys are made once for all tests.
var (
	issuerKey  = mustKey(2048)
	foreignKey = mustKey(2048)
	weakKey    = mustKey(1024)
	entraKey   = mustKey(2048)
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// testIssuer is an OpenID provider made by hand. Its documents may be changed
// before the first request.
type testIssuer struct {
	url       string
	key       *rsa.PrivateKey
	discovery map[string]any
	keys      []map[string]any

	// Raw replies take the documents' place when not nil.
	serveDiscovery, serveKeys http.HandlerFunc

	mu      sync.Mutex
	fetched map[string]int
}

func publicJWK(kid string, key *rsa.PublicKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
		"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
	}
}

func newIssuer(t testing.TB, ca *entratest.CA) *testIssuer {
	t.Helper()
	cert, err := ca.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	i := &testIssuer{key: issuerKey(), fetched: map[string]int{}}
	srv := httptest.NewUnstartedServer(i)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are expected
	srv.StartTLS()
	t.Cleanup(srv.Close)
	i.url = srv.URL
	i.discovery = map[string]any{
		"issuer": i.url, "jwks_uri": i.url + "/keys",
		"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
	i.keys = []map[string]any{publicJWK("k1", &i.key.PublicKey)}
	return i
}

func (i *testIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetched[r.URL.Path]++
	i.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		if i.serveDiscovery != nil {
			i.serveDiscovery(w, r)
			return
		}
		_, _ = w.Write(encode(i.discovery))
	case r.URL.Path == "/keys":
		if i.serveKeys != nil {
			i.serveKeys(w, r)
			return
		}
		_, _ = w.Write(encode(map[string]any{"keys": i.keys}))
	default:
		http.NotFound(w, r)
	}
}

func (i *testIssuer) fetches(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetched[path]
}

// sign makes a compact JWS of any header and claims, by RS256.
func sign(header, claims []byte, key *rsa.PrivateKey) string {
	signed := b64(header) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + b64(sig)
}

// fixture is a running emulator with one app that trusts one issuer.
type fixture struct {
	entra  *entratest.Server
	issuer *testIssuer
	client *http.Client
}

func newFixture(t testing.TB, change func(*entratest.Config)) *fixture {
	t.Helper()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{issuer: newIssuer(t, ca)}
	cfg := entratest.Config{
		CA: ca, Key: entraKey(), Resources: []string{vault},
		Apps: []entratest.App{
			{ClientID: clientID, TenantID: tenantID, ObjectID: objectID, Name: "shop", Credentials: []entratest.FederatedCredential{
				{Issuer: f.issuer.url, Subject: subject, Audience: cloud},
			}},
			{ClientID: otherClientID, TenantID: otherTenantID},
		},
	}
	if change != nil {
		change(&cfg)
	}
	f.entra, err = entratest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.entra.Start(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	f.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := f.entra.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return f
}

// attempt is a token request that succeeds unless it is changed.
type attempt struct {
	method, tenant, contentType string
	form                        url.Values
	body                        string // replaces form if not empty
	header, claims              map[string]any
	rawHeader, rawClaims        string // replace header and claims if not empty
	key                         *rsa.PrivateKey
	assertion                   func(signed string) string // changes the signed assertion
	noAssertion                 bool
}

func newAttempt(f *fixture) *attempt {
	now := time.Now()
	return &attempt{
		method: http.MethodPost, tenant: tenantID, contentType: "application/x-www-form-urlencoded",
		form: url.Values{
			"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {vaultScope},
			"client_assertion_type": {jwtBearer},
		},
		header: map[string]any{"alg": "RS256", "kid": "k1", "typ": "JWT"},
		claims: map[string]any{
			"iss": f.issuer.url, "sub": subject, "aud": cloud,
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		},
		key: f.issuer.key,
	}
}

func (a *attempt) sign() string {
	header, claims := []byte(a.rawHeader), []byte(a.rawClaims)
	if len(header) == 0 {
		header = encode(a.header)
	}
	if len(claims) == 0 {
		claims = encode(a.claims)
	}
	signed := sign(header, claims, a.key)
	if a.assertion != nil {
		signed = a.assertion(signed)
	}
	return signed
}

func (a *attempt) request(base string) *http.Request {
	body := a.body
	if body == "" {
		form := maps.Clone(a.form)
		if !a.noAssertion {
			form.Set("client_assertion", a.sign())
		}
		body = form.Encode()
	}
	req, err := http.NewRequest(a.method, base+"/"+a.tenant+"/oauth2/v2.0/token", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", a.contentType)
	req.Header.Set("client-request-id", requestID)
	return req
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (f *fixture) do(t testing.TB, req *http.Request) reply {
	t.Helper()
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, body}
}

func (f *fixture) try(t testing.TB, change func(*attempt)) reply {
	t.Helper()
	a := newAttempt(f)
	if change != nil {
		change(a)
	}
	return f.do(t, a.request(f.entra.URL()))
}

type grant struct {
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	ExtExpiresIn int    `json:"ext_expires_in"`
	RefreshIn    int    `json:"refresh_in"`
	AccessToken  string `json:"access_token"`
}

func granted(t testing.TB, r reply) grant {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("status = %d, want 200; body %s", r.status, r.body)
	}
	var g grant
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&g); err != nil {
		t.Fatalf("decoding %s: %v", r.body, err)
	}
	return g
}

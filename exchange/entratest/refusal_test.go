package entratest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange/entratest"
)

type refusalBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// checkRefusal checks every part of a refusal's form.
func checkRefusal(t *testing.T, r reply, code int) refusalBody {
	t.Helper()
	i := slices.Index(entratest.Codes(), code)
	if i < 0 {
		t.Fatalf("the emulator does not know the code %d", code)
	}
	want := entratest.Refusals()[i]
	var b refusalBody
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		t.Fatalf("status %d, decoding %s: %v", r.status, r.body, err)
	}
	if !cmp.Equal(b.Codes, []int{code}) {
		t.Fatalf("error_codes = %v, want [%d]; %s", b.Codes, code, b.Description)
	}
	if r.status != want.Status || b.Error != want.Error {
		t.Errorf("status and error = %d %q, want %d %q", r.status, b.Error, want.Status, want.Error)
	}
	form := fmt.Sprintf("AADSTS%d: %%s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s", code, b.TraceID, b.CorrelationID, b.Timestamp)
	head, tail, _ := strings.Cut(form, "%s")
	if !strings.HasPrefix(b.Description, head) || !strings.HasSuffix(b.Description, tail) || strings.ContainsAny(b.Description, "{}") {
		t.Errorf("error_description = %q, want %q", b.Description, form)
	}
	if !guid.MatchString(b.TraceID) || r.header.Get("X-Ms-Request-Id") != b.TraceID {
		t.Errorf("trace_id = %q, x-ms-request-id = %q, want one GUID", b.TraceID, r.header.Get("X-Ms-Request-Id"))
	}
	if b.CorrelationID != requestID {
		t.Errorf("correlation_id = %q, want the client-request-id %q", b.CorrelationID, requestID)
	}
	if at, err := time.Parse("2006-01-02 15:04:05Z", b.Timestamp); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp = %q, want now", b.Timestamp)
	}
	if want := "https://login.microsoftonline.com/error?code=" + strconv.Itoa(code); b.URI != want {
		t.Errorf("error_uri = %q, want %q", b.URI, want)
	}
	if got := r.header.Get("Cache-Control"); !strings.Contains(got, "no-store") {
		t.Errorf("Cache-Control = %q, want no-store", got)
	}
	return b
}

// byFaultOnly are the codes that no request can cause here.
var byFaultOnly = []int{50196, 53003, 70021, 90006, 90012, 90024, 90033, 90055, 700223, 700226, 700236, 700238, 900432}

type refusalCase struct {
	name   string
	code   int
	config func(*entratest.Config)
	issuer func(*testIssuer)
	change func(*attempt)
	says   string // must be in the description
}

func form(name string, values ...string) func(*attempt) {
	return func(a *attempt) {
		a.form[name] = values
		if len(values) == 0 {
			delete(a.form, name)
		}
	}
}

func header(name string, value any) func(*attempt) {
	return func(a *attempt) { set(a.header, name, value) }
}

func claim(name string, value any) func(*attempt) {
	return func(a *attempt) { set(a.claims, name, value) }
}

func set(m map[string]any, name string, value any) {
	m[name] = value
	if value == nil {
		delete(m, name)
	}
}

func discovery(name string, value any) func(*testIssuer) {
	return func(i *testIssuer) { set(i.discovery, name, value) }
}

func jwkMember(name string, value any) func(*testIssuer) {
	return func(i *testIssuer) { set(i.keys[0], name, value) }
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func requestCases() []refusalCase {
	return []refusalCase{
		{name: "GET", code: 900561, change: func(a *attempt) { a.method = http.MethodGet }, says: "GET"},
		{name: "JSON body", code: 900144, change: func(a *attempt) { a.contentType = "application/json" }, says: "'grant_type'"},
		{name: "no content type", code: 900144, change: func(a *attempt) { a.contentType = "" }},
		{name: "bad escapes", code: 90100, change: func(a *attempt) { a.body = "scope=%zz" }, says: "request body"},
		{name: "body too long", code: 90100, change: func(a *attempt) { a.body = "scope=" + strings.Repeat("a", 64<<10) }},
		{name: "repeated parameter", code: 9000411, change: form("scope", vaultScope, vaultScope), says: "'scope'"},
		{name: "unknown tenant", code: 90002, change: func(a *attempt) { a.tenant = objectID }, says: objectID},
		{name: "tenant common", code: 90002, change: func(a *attempt) { a.tenant = "common" }},
		{name: "no grant_type", code: 900144, change: form("grant_type"), says: "'grant_type'"},
		{name: "no client_id", code: 900144, change: form("client_id"), says: "'client_id'"},
		{name: "no scope", code: 900144, change: form("scope"), says: "'scope'"},
		{name: "other grant_type", code: 70003, change: form("grant_type", "password"), says: "'password'"},
		{name: "scope without /.default", code: 1002012, change: form("scope", vault+"/read"), says: vault + "/read"},
		{name: "two resources", code: 70011, change: form("scope", vaultScope+" https://graph.microsoft.com/.default")},
		{name: "only OpenID scopes", code: 70011, change: form("scope", "openid profile")},
		{name: "scope /.default", code: 70011, change: form("scope", "/.default")},
		{name: "repeated scope", code: 70011, change: form("scope", vaultScope+" openid openid")},
		{name: "two spaces", code: 70011, change: form("scope", vaultScope+"  openid")},
		{name: "unknown client", code: 700016, change: form("client_id", objectID), says: objectID},
		{name: "client of another tenant", code: 700016, change: form("client_id", otherClientID), says: tenantID},
		{name: "secret", code: 7000215, change: form("client_secret", "s3cret"), says: clientID},
		{name: "no assertion", code: 7000218, change: func(a *attempt) { a.noAssertion = true }},
		{name: "no assertion type", code: 900144, change: form("client_assertion_type"), says: "'client_assertion_type'"},
		{name: "SAML assertion type", code: 90100, change: form("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer")},
		{name: "unknown resource", code: 500011, change: form("scope", "https://graph.microsoft.com/.default"), says: "https://graph.microsoft.com"},
	}
}

func formCases() []refusalCase {
	rewrite := func(f func(parts []string) string) func(*attempt) {
		return func(a *attempt) {
			a.assertion = func(signed string) string { return f(strings.Split(signed, ".")) }
		}
	}
	return []refusalCase{
		{name: "two parts", code: 50027, change: rewrite(func(p []string) string { return p[0] + "." + p[1] })},
		{name: "four parts", code: 50027, change: rewrite(func(p []string) string { return strings.Join(p, ".") + "." })},
		{name: "empty assertion", code: 50027, change: rewrite(func([]string) string { return "" })},
		{name: "empty signature", code: 50027, change: rewrite(func(p []string) string { return p[0] + "." + p[1] + "." })},
		{name: "padded", code: 50027, change: rewrite(func(p []string) string { return strings.Join(p, ".") + "==" })},
		{name: "line break", code: 50027, change: rewrite(func(p []string) string { return p[0] + "\n." + p[1] + "." + p[2] })},
		{name: "stray bits", code: 50027, change: rewrite(func(p []string) string {
			last := p[2][len(p[2])-1] // 256 bytes leave 4 unused bits in the last character
			return p[0] + "." + p[1] + "." + p[2][:len(p[2])-1] + string(rune(last+1))
		})},
		{name: "too long", code: 50027, change: claim("x", strings.Repeat("a", 16<<10))},
		{name: "header not JSON", code: 50027, change: func(a *attempt) { a.rawHeader = "{" }},
		{name: "header null", code: 50027, change: func(a *attempt) { a.rawHeader = "null" }},
		{name: "header list", code: 50027, change: func(a *attempt) { a.rawHeader = "[]" }},
		{name: "header and more", code: 50027, change: func(a *attempt) { a.rawHeader = `{"alg":"RS256","kid":"k1"} {}` }},
		{name: "header not UTF-8", code: 50027, change: func(a *attempt) { a.rawHeader = "{\"alg\":\"RS256\",\"kid\":\"k1\",\"typ\":\"\xff\"}" }},
		{name: "repeated header", code: 50027, change: func(a *attempt) { a.rawHeader = `{"alg":"RS256","kid":"k1","alg":"RS256"}` }, says: "repeated"},
		{name: "repeated by escape", code: 50027, change: func(a *attempt) { a.rawHeader = `{"alg":"RS256","kid":"k1","\u0061lg":"none"}` }, says: "repeated"},
		{name: "repeated claim", code: 50027, change: func(a *attempt) { a.rawClaims = `{"iss":"a","iss":"b"}` }, says: "repeated"},
		{name: "repeated deep claim", code: 50027, change: func(a *attempt) { a.rawClaims = `{"a":[{"b":1,"b":2}]}` }, says: "repeated"},
		{name: "nested too deep", code: 50027, change: func(a *attempt) {
			a.rawClaims = `{"a":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`
		}},
		{name: "alg none", code: 5002738, change: header("alg", "none"), says: "'none'"},
		{name: "alg ES256", code: 5002738, change: header("alg", "ES256"), says: "'ES256'"},
		{name: "alg HS256", code: 5002738, change: header("alg", "HS256")},
		{name: "alg PS256", code: 5002738, change: header("alg", "PS256")},
		{name: "alg in lower case", code: 5002738, change: header("alg", "rs256")},
		{name: "no alg", code: 5002738, change: header("alg", nil)},
		{name: "alg not a string", code: 50027, change: header("alg", 256)},
		{name: "typ JOSE", code: 5002727, change: header("typ", "JOSE")},
		{name: "typ in lower case", code: 5002727, change: header("typ", "jwt")},
		{name: "typ not a string", code: 50027, change: header("typ", []string{"JWT"})},
		{name: "no key id", code: 5002723, change: header("kid", nil)},
		{name: "empty kid", code: 50027, change: header("kid", "")},
		{name: "crit", code: 50027, change: header("crit", []string{"b64"}), says: "crit"},
		{name: "jwk", code: 50027, change: header("jwk", map[string]any{}), says: "jwk"},
		{name: "no iss", code: 90014, change: claim("iss", nil), says: "'iss'"},
		{name: "no sub", code: 90014, change: claim("sub", nil), says: "'sub'"},
		{name: "iss not a string", code: 50027, change: claim("iss", 1)},
		{name: "no aud", code: 90014, change: claim("aud", nil), says: "'aud'"},
		{name: "aud null", code: 90014, change: func(a *attempt) { a.claims["aud"] = (*string)(nil) }},
		{name: "aud empty list", code: 90014, change: claim("aud", []string{})},
		{name: "aud list of null", code: 90014, change: claim("aud", []any{nil})},
		{name: "aud not a string", code: 90014, change: claim("aud", 1)},
		{name: "two audiences", code: 50027, change: claim("aud", []string{cloud, "other"})},
		{name: "no exp", code: 90014, change: claim("exp", nil), says: "'exp'"},
		{name: "exp a string", code: 50027, change: claim("exp", "1")},
		{name: "exp a fraction", code: 50027, change: claim("exp", 1.5)},
		{name: "exp negative", code: 50027, change: claim("exp", -1)},
	}
}

func credentialCases() []refusalCase {
	return []refusalCase{
		{name: "unknown issuer", code: 700211, change: claim("iss", "https://elsewhere.example"), says: "https://elsewhere.example"},
		{name: "trailing slash", code: 700211, change: func(a *attempt) { a.claims["iss"] = a.claims["iss"].(string) + "/" }},
		{name: "issuer in upper case", code: 7002138, change: func(a *attempt) { a.claims["iss"] = strings.ToUpper(a.claims["iss"].(string)) }},
		{name: "unknown subject", code: 700213, change: claim("sub", "spiffe://example.org/other"), says: "spiffe://example.org/other"},
		{name: "subject in upper case", code: 7002138, change: claim("sub", strings.ToUpper(subject))},
		{name: "unknown audience", code: 700212, change: claim("aud", "other"), says: "'other'"},
		{name: "audience in lower case", code: 7002138, change: claim("aud", strings.ToLower(cloud))},
		{name: "audience of another cloud", code: 700212, change: claim("aud", cloud+"USGov")},
		{name: "credential of another cloud", code: 900382, change: claim("aud", cloud+"China"), config: func(c *entratest.Config) {
			c.Apps[0].Credentials[0].Audience = cloud + "China"
		}},
		{name: "no credentials", code: 70025, config: func(c *entratest.Config) { c.Apps[0].Credentials = nil }, says: clientID},
		{name: "issued by Entra", code: 700222, change: claim("iss", "https://sts.windows.net/"+tenantID+"/")},
		{name: "issued by an Entra host", code: 700222, change: claim("iss", "https://eu.login.microsoftonline.com/x/v2.0")},
		{name: "25 h and 1 s", code: 70023, change: func(a *attempt) { a.claims["exp"] = a.claims["iat"].(int64) + 25*3600 + 1 }, says: "1.01:00:00"},
		{name: "no iat", code: 70023, change: claim("iat", nil), says: "issued at 0."},
		{name: "expired", code: 700024, change: claim("exp", time.Now().Unix()-1)},
		{name: "expires now", code: 700024, change: claim("exp", time.Now().Unix())},
		{name: "not yet valid", code: 700024, change: claim("nbf", time.Now().Unix()+60)},
		{name: "issued later", code: 700024, change: claim("iat", time.Now().Unix()+60)},
	}
}

func issuerCases() []refusalCase {
	big := `{"x":"` + strings.Repeat("a", 256<<10) + `"}`
	return []refusalCase{
		{name: "issuer down", code: 50166, config: func(c *entratest.Config) { c.IssuerClient = &http.Client{Transport: broken{}} }},
		{name: "issuer not trusted", code: 50166, config: func(c *entratest.Config) {
			c.IssuerClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		}},
		{name: "issuer hangs", code: 50166,
			config: func(c *entratest.Config) { c.IssuerTimeout = 50 * time.Millisecond },
			issuer: func(i *testIssuer) {
				i.serveDiscovery = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
			}},
		{name: "discovery 404", code: 50166, issuer: func(i *testIssuer) { i.serveDiscovery = answer(404, "") }},
		{name: "discovery redirects", code: 50166, issuer: func(i *testIssuer) {
			i.serveDiscovery = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }
		}},
		{name: "discovery not JSON", code: 501661, issuer: func(i *testIssuer) { i.serveDiscovery = answer(200, "<html>") }},
		{name: "discovery too long", code: 501661, issuer: func(i *testIssuer) { i.serveDiscovery = answer(200, big) }},
		{name: "other issuer", code: 501661, issuer: discovery("issuer", "https://elsewhere.example")},
		{name: "issuer with a slash", code: 501661, issuer: func(i *testIssuer) { i.discovery["issuer"] = i.url + "/" }},
		{name: "no issuer", code: 501661, issuer: discovery("issuer", nil)},
		{name: "no jwks_uri", code: 501661, issuer: discovery("jwks_uri", nil)},
		{name: "jwks_uri http", code: 501661, issuer: discovery("jwks_uri", "http://127.0.0.1/keys")},
		{name: "no response types", code: 501661, issuer: discovery("response_types_supported", nil)},
		{name: "no algorithms", code: 501661, issuer: discovery("id_token_signing_alg_values_supported", nil)},
		{name: "other algorithms", code: 501661, issuer: discovery("id_token_signing_alg_values_supported", []string{"ES256"})},
		{name: "empty authorization_endpoint", code: 90061, issuer: discovery("authorization_endpoint", "")},
		{name: "keys 500", code: 50166, issuer: func(i *testIssuer) { i.serveKeys = answer(500, "") }},
		{name: "keys not JSON", code: 501661, issuer: func(i *testIssuer) { i.serveKeys = answer(200, "no") }},
		{name: "keys missing", code: 501661, issuer: func(i *testIssuer) { i.serveKeys = answer(200, "{}") }},
		{name: "keys not objects", code: 501661, issuer: func(i *testIssuer) { i.serveKeys = answer(200, `{"keys":[1]}`) }},
		{name: "keys too long", code: 501661, issuer: func(i *testIssuer) { i.serveKeys = answer(200, big) }},
		{name: "private key published", code: 501661, issuer: jwkMember("d", "AQAB")},
		{name: "no keys", code: 7000272, issuer: func(i *testIssuer) { i.keys = []map[string]any{} }},
		{name: "other kid", code: 7000272, change: header("kid", "k2"), says: "k2"},
		{name: "kid in upper case", code: 7000272, change: header("kid", "K1")},
		{name: "KID in the key set", code: 7000272, issuer: func(i *testIssuer) { set(i.keys[0], "kid", nil); set(i.keys[0], "KID", "k1") }},
		{name: "key past 100", code: 7000272, issuer: manyKeys(100)},
		{name: "x5t of another key", code: 7000272, change: header("x5t", "other")},
		{name: "use missing", code: 700027, issuer: jwkMember("use", nil), says: "use"},
		{name: "use jwt-svid", code: 700027, issuer: jwkMember("use", "jwt-svid"), says: "jwt-svid"},
		{name: "kty EC", code: 700027, issuer: jwkMember("kty", "EC")},
		{name: "alg of the key", code: 700027, issuer: jwkMember("alg", "RS512")},
		{name: "malformed n", code: 700027, issuer: jwkMember("n", "=")},
		{name: "even e", code: 700027, issuer: jwkMember("e", "BA")},
		{name: "1,024 bits", code: 700027, says: "1024",
			issuer: func(i *testIssuer) { i.keys[0] = publicJWK("k1", &weakKey().PublicKey) },
			change: func(a *attempt) { a.key = weakKey() }},
		{name: "kid twice", code: 700027, issuer: func(i *testIssuer) { i.keys = append(i.keys, i.keys[0]) }},
		{name: "other key", code: 50012, change: func(a *attempt) { a.key = foreignKey() }},
		{name: "other claims", code: 50012, change: func(a *attempt) {
			now := a.claims["iat"].(int64)
			a.assertion = func(signed string) string {
				p := strings.Split(signed, ".")
				a.claims["exp"] = now + 600
				return p[0] + "." + b64(encode(a.claims)) + "." + p[2]
			}
		}},
	}
}

// manyKeys puts n others before the issuer's key.
func manyKeys(n int) func(*testIssuer) {
	return func(i *testIssuer) {
		own := i.keys[0]
		i.keys = nil
		for k := range n {
			i.keys = append(i.keys, publicJWK(fmt.Sprintf("other%d", k), &foreignKey().PublicKey))
		}
		i.keys = append(i.keys, own)
	}
}

type broken struct{}

func (broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed }

func TestRefusals(t *testing.T) {
	caused := map[int]bool{50049: true} // instance discovery: TestInstanceDiscovery
	for _, code := range byFaultOnly {
		caused[code] = true
	}
	for _, group := range [][]refusalCase{requestCases(), formCases(), credentialCases(), issuerCases()} {
		for _, tt := range group {
			caused[tt.code] = true
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, tt.config)
				if tt.issuer != nil {
					tt.issuer(f.issuer)
				}
				body := checkRefusal(t, f.try(t, tt.change), tt.code)
				if !strings.Contains(body.Description, tt.says) {
					t.Errorf("error_description = %q, want it to say %q", body.Description, tt.says)
				}
				calls := f.entra.Calls()
				if !cmp.Equal(calls.Refusals, map[int]int{tt.code: 1}) || calls.Successes != 0 || len(f.entra.Assertions()) != 0 {
					t.Errorf("Calls() = %+v, want one refusal %d", calls, tt.code)
				}
			})
		}
	}
	for _, code := range entratest.Codes() {
		if !caused[code] {
			t.Errorf("no case causes AADSTS%d", code)
		}
	}
}

// A fault must be able to cause each code, and look the same.
func TestRefusalsByFault(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, code := range entratest.Codes() {
		if err := f.entra.SetFault("", entratest.Fault{AADSTS: code, Times: 1}); err != nil {
			t.Fatal(err)
		}
		checkRefusal(t, f.try(t, nil), code)
	}
	granted(t, f.try(t, nil))
}

// An access token of the emulator is an Entra token, and no assertion.
func TestOwnTokenIsNoAssertion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	token := granted(t, f.try(t, nil)).AccessToken
	checkRefusal(t, f.try(t, func(a *attempt) { a.assertion = func(string) string { return token } }), 700222)
	own := f.entra.URL() + "/" + tenantID + "/v2.0"
	checkRefusal(t, f.try(t, claim("iss", own)), 700222)
}

func TestRefusalWithoutRequestID(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	a := newAttempt(f)
	a.tenant = "x"
	req := a.request(f.entra.URL())
	req.Header.Set("client-request-id", "not-a-guid")
	var body refusalBody
	if err := json.Unmarshal(f.do(t, req).body, &body); err != nil {
		t.Fatal(err)
	}
	if !guid.MatchString(body.CorrelationID) {
		t.Errorf("correlation_id = %q, want a new GUID", body.CorrelationID)
	}
}

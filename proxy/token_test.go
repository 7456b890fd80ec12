package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

// TestReplyBytes: docs/protocol.md, "The reply".
func TestReplyBytes(t *testing.T) {
	r := start(t, nil)
	form := `^\{"access_token":"` + regexp.QuoteMeta(bearer) + `","client_id":"%s","expires_in":"359\d","expires_on":"\d{10}","ext_expires_in":"359\d","not_before":"\d{10}",%s"resource":"https://vault.azure.net","token_type":"Bearer"\}$`
	for _, tt := range []struct{ name, selector, clientID, echo, asked string }{
		{"none", "", first, "", first},
		{"client_id", "&client_id=" + strings.ToUpper(second), strings.ToUpper(second), "", second},
		{"clientid", "&clientid=" + second, second, "", second},
		{"object_id", "&object_id=" + objectID, second, `"object_id":"` + objectID + `",`, second},
		{"principal_id", "&principal_id=" + objectID, second, `"object_id":"` + objectID + `",`, second},
		{"principalId", "&principalId=" + objectID, second, `"object_id":"` + objectID + `",`, second},
		{"msi_res_id", "&msi_res_id=" + url.QueryEscape(resourceID), second, `"msi_res_id":"` + resourceID + `",`, second},
		{"mi_res_id", "&mi_res_id=" + strings.ToLower(resourceID), second, `"mi_res_id":"` + strings.ToLower(resourceID) + `",`, second},
	} {
		for _, p := range []struct{ target, headers string }{{imdsTarget, metadata}, {msiTarget, identity}} {
			// "not_before" stands before "object_id" and after "msi_res_id"
			// only by the alphabet; clients do not mind the order.
			got := get(t, r, p.target+tt.selector, p.headers)
			want := fmt.Sprintf(form, tt.clientID, regexp.QuoteMeta(tt.echo))
			if ok, _ := regexp.MatchString(want, got.body); !ok || got.StatusCode != 200 {
				t.Errorf("%s: %d %s\nwant %s", tt.name, got.StatusCode, got.body, want)
			}
			asked := r.tokens.asked()
			if key := asked[len(asked)-1]; key.ClientID != tt.asked || key.Tenant != tenant || key.Scope != "https://vault.azure.net/.default" {
				t.Errorf("%s: asked for %+v, want client id %s", tt.name, key, tt.asked)
			}
		}
	}
}

func TestResourceIsEchoedAsAsked(t *testing.T) {
	r := start(t, nil)
	for asked, want := range map[string]struct{ echo, scope string }{
		"https://vault.azure.net/":                       {"https://vault.azure.net/", "https://vault.azure.net//.default"},
		"https%3A%2F%2Fvault.azure.net%2F.default":       {"https://vault.azure.net/.default", "https://vault.azure.net/.default"},
		"00000003-0000-0000-c000-000000000000":           {"00000003-0000-0000-c000-000000000000", "00000003-0000-0000-c000-000000000000/.default"},
		"api://11111111-2222-4333-8444-555555555555/App": {"api://11111111-2222-4333-8444-555555555555/App", "api://11111111-2222-4333-8444-555555555555/App/.default"},
	} {
		got := get(t, r, "/metadata/identity/oauth2/token?resource="+asked, metadata)
		keys := r.tokens.asked()
		if got.field(t, "resource") != want.echo || keys[len(keys)-1].Scope != want.scope {
			t.Errorf("resource=%s: echoed %q, scope %q; want %q, %q", asked, got.field(t, "resource"), keys[len(keys)-1].Scope, want.echo, want.scope)
		}
	}
}

// TestErrorTable: docs/protocol.md, "Errors": how what the exchange and the
// policy say looks on the wire and in the log.
func TestErrorTable(t *testing.T) {
	entra := func(kind exchange.Kind, after time.Duration) error {
		return &exchange.Error{Kind: kind, Code: "AADSTS123", Cause: "the cause", Fix: "the fix", RetryAfter: after}
	}
	for _, tt := range []struct {
		name, target, headers string
		err                   error
		status                int
		code, says, after     string
		level                 string
	}{
		{"Metadata missing", imdsTarget, "", nil, 400, "invalid_request", "Required metadata", "", "INFO"},
		{"secret missing", msiTarget, "", nil, 401, "unauthorized_client", "missing or wrong", "", "INFO"},
		{"secret wrong", msiTarget, "Secret: x\r\n", nil, 401, "unauthorized_client", "missing or wrong", "", "INFO"},
		{"forwarded", imdsTarget, metadata + "Via: x\r\n", nil, 400, "invalid_request", "Via", "", "INFO"},
		{"browser", imdsTarget, metadata + "Origin: x\r\n", nil, 400, "invalid_request", "Origin", "", "INFO"},
		{"bad path", "/metadata/../x", metadata, nil, 400, "invalid_request", "dot segment", "", "INFO"},
		{"repeated parameter", imdsTarget + "&resource=x", metadata, nil, 400, "invalid_request", "repeated", "", "INFO"},
		{"resource missing", "/metadata/identity/oauth2/token", metadata, nil, 400, "invalid_request", "'resource' is missing", "", "INFO"},
		{"unknown selector", imdsTarget + "&client_id=x", metadata, nil, 400, "invalid_request", "Identity not found", "", "INFO"},
		{"resource not allowed", "/metadata/identity/oauth2/token?resource=x&client_id=" + second, metadata, nil, 403, "access_denied", "allowed-resources", "", "INFO"},
		{"refused", imdsTarget, metadata, entra(exchange.Refused, 0), 400, "unauthorized_client", "AADSTS123: the cause. To fix: the fix", "", "ERROR"},
		{"bad resource", imdsTarget, metadata, entra(exchange.BadResource, 0), 400, "invalid_resource", "AADSTS123", "", "ERROR"},
		{"bad request", imdsTarget, metadata, entra(exchange.BadRequest, 0), 400, "invalid_request", "AADSTS123", "", "ERROR"},
		{"no assertion", imdsTarget, metadata, entra(exchange.NoAssertion, 0), 400, "invalid_request", "the cause", "", "ERROR"},
		{"unavailable", imdsTarget, metadata, entra(exchange.Unavailable, 0), 503, "service_unavailable", "the cause", "1", "WARN"},
		{"unavailable, later", imdsTarget, metadata, entra(exchange.Unavailable, 4*time.Second), 503, "service_unavailable", "the cause", "4", "WARN"},
		{"throttled", imdsTarget, metadata, entra(exchange.Throttled, 7*time.Second), 429, "too_many_requests", "the cause", "7", "WARN"},
		{"throttled for long", imdsTarget, metadata, entra(exchange.Throttled, time.Minute), 429, "too_many_requests", "the cause", "20", "WARN"},
		{"wrong method", "", "", nil, 405, "method_not_allowed", "use GET", "", "INFO"},
		{"other path", "/x", metadata, nil, 404, "not_found", "serves", "", "INFO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil)
			r.tokens.err = tt.err
			method := "GET"
			if tt.target == "" {
				method, tt.target = "PUT", imdsTarget
			}
			got := raw(t, r.addr, method+" "+tt.target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+tt.headers+"\r\n")
			if got.StatusCode != tt.status || got.field(t, "error") != tt.code || !strings.Contains(got.field(t, "error_description"), tt.says) {
				t.Errorf("got %d %s, want %d %s that says %q", got.StatusCode, got.body, tt.status, tt.code, tt.says)
			}
			if after := got.Header.Get("Retry-After"); after != tt.after {
				t.Errorf("Retry-After = %q, want %q", after, tt.after)
			}
			r.stop()
			<-r.ended // the line is written after the reply
			r.ended <- nil
			lines := r.log.lines(t)
			if len(lines) != 1 {
				t.Fatalf("%d log lines, want 1:\n%s", len(lines), r.log)
			}
			line := lines[0]
			if line["level"] != tt.level || line["status"] != float64(tt.status) {
				t.Errorf("log line %v, want level %s, status %d", line, tt.level, tt.status)
			}
			if id := got.field(t, "correlationId"); tt.name != "Metadata missing" && (line["correlation_id"] != id || len(id) != 36) {
				t.Errorf("correlation id %q in the reply, %v in the log", id, line["correlation_id"])
			}
			if tt.err != nil && (line["client_id"] != first || line["scope"] != "https://vault.azure.net/.default" || line["code"] != "AADSTS123") {
				t.Errorf("log line %v lacks client id, scope or code", line)
			}
		})
	}
}

func TestTokenRequestsAreLoggedAtDebugOnly(t *testing.T) {
	r := start(t, nil)
	get(t, r, imdsTarget, metadata)
	r.stop()
	<-r.ended
	r.ended <- nil
	lines := r.log.lines(t)
	if len(lines) != 1 || lines[0]["level"] != "DEBUG" || lines[0]["outcome"] != "ok" {
		t.Errorf("log lines %v, want one at DEBUG", lines)
	}
	if strings.Contains(r.log.String(), bearer) {
		t.Errorf("the log leaks the token: %s", r.log)
	}
}

// TestNothingSecretIsLogged sends the secrets where they do not belong, at
// debug level, and looks for them in log and metrics.
func TestNothingSecretIsLogged(t *testing.T) {
	r := start(t, nil)
	for _, headers := range []string{metadata, identity, "Secret: " + bearer + "\r\n", metadata + "Authorization: Bearer " + bearer + "\r\n"} {
		for _, target := range []string{imdsTarget, msiTarget, imdsTarget + "&client_id=" + bearer, imdsTarget + "&token_sha256_to_refresh=" + bearer, imdsTarget + "&claims=" + bearer, "/metadata/identity/oauth2/token?resource=" + bearer + "&" + bearer + "=%zz",
			"/metadata/identity/oauth2/token?resource=" + bearer, "/" + bearer, imdsTarget + "&object_id=" + bearer, imdsTarget + "&msi_res_id=/" + bearer} {
			got := get(t, r, target, headers)
			if got.StatusCode != 200 && strings.Contains(got.body, bearer) {
				t.Errorf("%s %q: the refusal leaks the token: %s", target, headers, got.body)
			}
		}
	}
	metrics := raw(t, r.ops, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	r.stop()
	<-r.ended
	r.ended <- nil
	for name, text := range map[string]string{"log": r.log.String(), "metrics": metrics.body} {
		for _, needle := range []string{bearer, header, "c2lnbmF0dXJl"} {
			if strings.Contains(text, needle) {
				t.Errorf("the %s leaks %q:\n%s", name, needle, text)
			}
		}
	}
}

func TestPanicIsContained(t *testing.T) {
	r := start(t, nil)
	r.tokens.boom = true
	if got := get(t, r, imdsTarget, metadata); got.StatusCode != 500 || got.field(t, "error") != "server_error" || strings.Contains(got.body, "boom") {
		t.Errorf("got %d %s, want 500 server_error", got.StatusCode, got.body)
	}
	r.tokens.mu.Lock()
	r.tokens.boom = false
	r.tokens.mu.Unlock()
	if got := get(t, r, imdsTarget, metadata); got.StatusCode != 200 {
		t.Errorf("after a panic: %d %s", got.StatusCode, got.body)
	}
}

func TestClientThatLeavesIsCounted(t *testing.T) {
	r := start(t, nil)
	r.tokens.hold = make(chan struct{})
	req, err := http.NewRequest(http.MethodGet, "http://"+r.addr+imdsTarget, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	client := http.Client{Timeout: 50 * time.Millisecond}
	if resp, err := client.Do(req); err == nil {
		t.Fatalf("a held request got %d", resp.StatusCode)
	}
	r.stop()
	<-r.ended // all handlers have ended
	r.ended <- nil
	if lines := r.log.lines(t); len(lines) != 1 || lines[0]["outcome"] != "client_gone" {
		t.Errorf("log lines %v, want one client_gone", lines)
	}
}

func TestKeepAlive(t *testing.T) {
	r := start(t, nil)
	conn := dial(t, r.addr)
	reader := bufio.NewReader(conn)
	for range 3 {
		if _, err := io.WriteString(conn, "GET "+imdsTarget+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+metadata+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 || resp.Close {
			t.Errorf("status %d, close %v, %v", resp.StatusCode, resp.Close, err)
		}
	}
}

func TestSilentConnectionIsNoError(t *testing.T) {
	r := start(t, nil)
	conn := dial(t, r.addr)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	get(t, r, imdsTarget, metadata)
	r.stop()
	<-r.ended
	r.ended <- nil
	if lines := r.log.lines(t); len(lines) != 1 {
		t.Errorf("a connection that sent nothing was logged: %v", lines)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	r := start(t, nil)
	ask := func(path string) reply {
		return raw(t, r.ops, "GET "+path+" HTTP/1.1\r\nHost: 10.0.0.1:8001\r\nConnection: close\r\n\r\n")
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if got := ask(path); got.StatusCode != 200 || got.body != "ok\n" {
			t.Errorf("%s: %d %q, want 200 ok", path, got.StatusCode, got.body)
		}
	}
	if got := ask(imdsTarget); got.StatusCode != 404 {
		t.Errorf("a token request on the second listener: %d, want 404", got.StatusCode)
	}
	get(t, r, imdsTarget, metadata)
	get(t, r, imdsTarget, "")
	want := []string{
		`svidecar_requests_total{outcome="ok",protocol="imds"} 1`,
		`svidecar_requests_total{outcome="metadata_missing",protocol="imds"} 1`,
		`svidecar_request_duration_seconds_count{protocol="imds"} 2`,
		`svidecar_cache_hits_total 42`,
	}
	var missing []string
	for range 100 { // the count follows the reply
		got, left := ask("/metrics"), []string(nil)
		for _, line := range want {
			if !strings.Contains(got.body, line+"\n") {
				left = append(left, line)
			}
		}
		if missing = left; len(missing) == 0 {
			break
		}
	}
	if len(missing) > 0 {
		t.Errorf("/metrics lacks %q", missing)
	}
}

// TestIdentityMetrics: autonomy is of tokens in use, so an identity without any
// has none; and one that never worked, which may be made up, has nothing at all.
func TestIdentityMetrics(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.ClockSkew = func() time.Duration { return -3 * time.Second } })
	got := raw(t, r.ops, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	var lines []string
	for line := range strings.Lines(got.body) {
		if strings.HasPrefix(line, "svidecar_autonomy") || strings.HasPrefix(line, "svidecar_last_success") || strings.HasPrefix(line, "svidecar_clock") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	want := []string{
		`svidecar_autonomy_seconds{client_id="` + first + `",tenant_id="` + tenant + `"} 90`,
		`svidecar_clock_skew_seconds -3`,
		`svidecar_last_success_timestamp_seconds{client_id="` + first + `",tenant_id="` + tenant + `"} 1.795399508e+09`,
		`svidecar_last_success_timestamp_seconds{client_id="` + second + `",tenant_id="` + tenant + `"} 1.795399508e+09`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	good := proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: slog.New(slog.DiscardHandler)}
	for name, change := range map[string]func(*proxy.Config){
		"no tokens":      func(c *proxy.Config) { c.Tokens = nil },
		"no policy":      func(c *proxy.Config) { c.Policy = nil },
		"no logger":      func(c *proxy.Config) { c.Logger = nil },
		"negative delay": func(c *proxy.Config) { c.ShutdownDelay = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := proxy.New(cfg); err == nil {
			t.Errorf("%s: New accepts it", name)
		}
	}
}

func TestRunFailsWithItsListener(t *testing.T) {
	s, err := proxy.New(proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	tokens, ops := listen(t), listen(t)
	if err := tokens.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), tokens, ops); err == nil {
		t.Error("Run with a closed listener returned nil")
	}
	if _, err := ops.Accept(); err == nil {
		t.Error("Run left the other listener open")
	}
}

// FuzzServe holds the whole handler, with every protocol and a pass-through on,
// to its promises: no redirect, a type always, a token only for exactly one key,
// which the standard library's reading of the request gives too, and nothing
// passed on but by its name.
func FuzzServe(f *testing.F) {
	const formed = metadata + "Content-Type: application/x-www-form-urlencoded\r\n"
	for _, seed := range []string{
		"GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET " + msiTarget + "&clientid= HTTP/1.1\r\nHost: localhost\r\n" + identity + "\r\n",
		"GET //metadata/identity/oauth2/token/?resource=a&client_id=" + second + " HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata + "\r\n",
		"GET /metadata/../metadata%5c HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"POST /msi/token HTTP/1.1\r\nHost: 127.0.0.1\r\n" + formed + "Content-Length: 10\r\n\r\nresource=a",
		"POST /msi/token?resource=b HTTP/1.1\r\nHost: 127.0.0.1\r\n" + formed + "Content-Length: 10\r\n\r\nresource=a",
		"POST /msi/token HTTP/1.1\r\nHost: 127.0.0.1\r\n" + formed + "Transfer-Encoding: chunked\r\n\r\na\r\nresource=a\r\n0\r\n\r\n",
		"GET /oauth2/token?resource=a HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET http://x" + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET /metadata//Instance/compute/vmId?format=text HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET /metadata/instance/../identity/oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET /metadata/identity/info HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
		"GET /metadata/versions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n",
	} {
		f.Add([]byte(seed))
	}
	p, err := proxy.NewPolicy(twoIdentities())
	if err != nil {
		f.Fatal(err)
	}
	var passed atomic.Pointer[string]
	machine := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { passed.Store(&r.RequestURI) }))
	defer machine.Close()
	f.Fuzz(func(t *testing.T, request []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		passed.Store(nil)
		tokens := &fakeTokens{}
		s, err := proxy.New(proxy.Config{
			Tokens: tokens, Policy: p, Logger: quiet(), IdentityHeader: secret.New(header), Protocols: imds.Protocols(), ArcTokensDir: "-",
			PassThrough: proxy.PassThrough{Host: machine.Listener.Addr().String(), Paths: []string{"instance/compute"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if target := passed.Load(); target != nil {
			if !strings.HasPrefix(strings.ToLower(*target), "/metadata/instance/compute") || r.Method != http.MethodGet || len(tokens.asked()) > 0 {
				t.Errorf("%q was passed on as %q", request, *target)
			}
			return
		}
		if w.Code >= 300 && w.Code < 400 || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%q: status %d, %v", request, w.Code, w.Header())
		}
		checkKeys(t, request, w, tokens.asked())
	})
}

// checkKeys holds a request that reached the exchange to one reading, by a parser
// that is not ours.
func checkKeys(t *testing.T, request []byte, w *httptest.ResponseRecorder, keys []exchange.Key) {
	t.Helper()
	if gaveToken := strings.Contains(w.Body.String(), bearer); len(keys) > 1 || (len(keys) == 1) != gaveToken {
		t.Errorf("%q: status %d with keys %v", request, w.Code, keys)
	}
	if len(keys) == 0 {
		return
	}
	again, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
	if err != nil {
		t.Fatal(err)
	}
	resources := valuesOf(again.URL.Query(), "resource")
	if again.Method == http.MethodPost {
		if err := again.ParseForm(); err != nil {
			t.Fatalf("%q got a token, and another parser says %v", request, err)
		}
		resources = valuesOf(again.Form, "resource") // of query and body
	}
	if len(resources) != 1 || exchange.Scope(resources[0]) != keys[0].Scope {
		t.Errorf("%q: key %v, but another parser reads resources %q", request, keys[0], resources)
	}
	if again.Header.Get("Metadata") == "" && again.Header.Get("X-Identity-Header") == "" && again.Header.Get("Secret") == "" {
		t.Errorf("%q got a token without its header", request)
	}
}

func valuesOf(q url.Values, name string) (all []string) {
	for n, values := range q {
		if strings.EqualFold(n, name) {
			all = append(all, values...)
		}
	}
	return all
}

// TestDrainLosesNothing: requests that have come in when the shutdown begins,
// and those that come while the listener stays open, are all answered.
func TestDrainLosesNothing(t *testing.T) {
	const before, during = 50, 20
	r := start(t, func(cfg *proxy.Config) { cfg.ShutdownDelay = 2 * time.Second })
	hold := make(chan struct{})
	r.tokens.hold, r.tokens.arrived = hold, make(chan struct{}, before+during)
	results := make(chan error, before+during)
	ask := func() {
		req, err := http.NewRequest(http.MethodGet, "http://"+r.addr+imdsTarget, nil)
		if err != nil {
			results <- err
			return
		}
		req.Header.Set("Metadata", "true")
		resp, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
		if err == nil {
			defer resp.Body.Close()
			if _, err = io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode != 200 {
				err = errors.New("status " + strconv.Itoa(resp.StatusCode))
			}
		}
		results <- err
	}
	for range before {
		go ask()
	}
	for range before {
		<-r.tokens.arrived
	}
	r.stop()
	for range during {
		go ask()
	}
	for range during {
		<-r.tokens.arrived
	}
	close(hold)
	for range before + during {
		if err := <-results; err != nil {
			t.Errorf("a request was lost: %v", err)
		}
	}
	if err := <-r.ended; err != nil {
		t.Errorf("Run = %v", err)
	}
	r.ended <- nil
	if diff := cmp.Diff(before+during, len(r.log.lines(t))); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
}

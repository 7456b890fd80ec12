package entratest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange/entratest"
)

func admin(f *fixture, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "127.0.0.1:9000"
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.entra.AdminHandler().ServeHTTP(w, req)
	return w
}

func TestAdminRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	good := `{"scope":"*","fault":{"status":500}}`
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		want                     int
		says                     string
	}{
		{"rebound host", "GET", "/calls", "", []string{"Host", "evil.example"}, 403, "loopback"},
		{"public address", "GET", "/", "", []string{"Host", "192.0.2.1:80"}, 403, "loopback"},
		{"no host", "GET", "/", "", []string{"Host", ""}, 403, "loopback"},
		{"origin", "PUT", "/faults", good, []string{"Origin", "http://127.0.0.1:9000"}, 403, "Origin"},
		{"null origin", "DELETE", "/calls", "", []string{"Origin", "null"}, 403, "Origin"},
		{"cross-site", "PUT", "/faults", good, []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross-site"},
		{"same-site", "DELETE", "/faults", "", []string{"Sec-Fetch-Site", "same-site"}, 403, "same-site"},
		{"form", "PUT", "/faults", good, []string{"Content-Type", "text/plain"}, 400, "Content-Type"},
		{"not JSON", "PUT", "/faults", "{", nil, 400, "not"},
		{"two values", "PUT", "/faults", good + good, nil, 400, "follows"},
		{"repeated member", "PUT", "/faults", `{"scope":"a","scope":"b","fault":{}}`, nil, 400, "scope"},
		{"unknown member", "PUT", "/faults", `{"scope":"*","fault":{},"extra":1}`, nil, 400, "extra"},
		{"unknown fault", "PUT", "/faults", `{"fault":{"explode":true}}`, nil, 400, "explode"},
		{"no fault", "PUT", "/faults", `{"scope":"*"}`, nil, 400, "fault"},
		{"bad fault", "PUT", "/faults", `{"fault":{"status":200}}`, nil, 400, "200"},
		{"too long", "PUT", "/faults", `{"scope":"` + strings.Repeat("a", 64<<10) + `"}`, nil, 400, "too large"},
		{"unknown path", "GET", "/nothing", "", nil, 404, "/nothing"},
		{"unknown method", "POST", "/faults", good, nil, 404, "POST"},
	} {
		w := admin(f, tt.method, tt.path, tt.body, tt.headers...)
		var got struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Errorf("%s: body %q is not JSON: %v", tt.name, w.Body, err)
		}
		if w.Code != tt.want || !strings.Contains(got.Error, tt.says) {
			t.Errorf("%s: %d %q, want %d and %q", tt.name, w.Code, got.Error, tt.want, tt.says)
		}
	}
	if got := f.entra.Faults(); len(got) != 0 {
		t.Errorf("Faults() = %v, want none", got)
	}
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	granted(t, f.try(t, nil))
	for _, host := range []string{"localhost", "localhost:80", "127.0.0.1", "[::1]:80"} {
		if w := admin(f, "GET", "/", "", "Host", host); w.Code != 200 || !strings.Contains(w.Body.String(), f.entra.URL()) {
			t.Errorf("GET / as %s: %d %s", host, w.Code, w.Body)
		}
	}
	w := admin(f, "PUT", "/faults", `{"scope":"`+vaultScope+`","fault":{"latency":"1ms","aadsts":90033,"retry_after":"7"}}`, "Sec-Fetch-Site", "none")
	if w.Code != http.StatusNoContent {
		t.Fatalf("PUT /faults: %d %s", w.Code, w.Body)
	}
	want := map[string]entratest.Fault{vaultScope: {Latency: time.Millisecond, AADSTS: 90033, RetryAfter: "7"}}
	if d := cmp.Diff(want, f.entra.Faults()); d != "" {
		t.Errorf("Faults() (-want +got):\n%s", d)
	}
	checkRefusal(t, f.try(t, nil), 90033)
	var faults struct{ Faults map[string]entratest.Fault }
	if err := json.Unmarshal(admin(f, "GET", "/faults", "").Body.Bytes(), &faults); err != nil || !cmp.Equal(faults.Faults, want) {
		t.Errorf("GET /faults = %+v, %v", faults, err)
	}
	var calls struct {
		entratest.Calls
		Assertions map[string]entratest.Assertion
	}
	if err := json.Unmarshal(admin(f, "GET", "/calls", "").Body.Bytes(), &calls); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f.entra.Calls(), calls.Calls); d != "" || calls.Successes != 1 || calls.Refusals[90033] != 1 || calls.Assertions[clientID].Subject != subject {
		t.Errorf("GET /calls = %+v", calls)
	}
	if w := admin(f, "GET", "/apps", ""); w.Code != 200 || !strings.Contains(w.Body.String(), f.issuer.url) {
		t.Errorf("GET /apps: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/faults", "/calls"} {
		if w := admin(f, "DELETE", path, ""); w.Code != http.StatusNoContent {
			t.Errorf("DELETE %s: %d %s", path, w.Code, w.Body)
		}
	}
	if got := admin(f, "GET", "/faults", "").Body.String(); got != `{"faults":{}}` {
		t.Errorf("GET /faults after DELETE = %s", got)
	}
	if got := f.entra.Calls(); got.Requests != 0 {
		t.Errorf("Calls() after DELETE = %+v", got)
	}
}

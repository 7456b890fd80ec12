package mint_test

import (
	"crypto"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

func newIssuer(t *testing.T, url string) *mint.Issuer {
	t.Helper()
	handler, err := mint.NewIssuer(mint.IssuerConfig{Issuer: url, Keys: []crypto.PublicKey{testKey(t).Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

func ask(handler http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const (
	discoveryAt = "/cluster/.well-known/openid-configuration"
	keySetAt    = "/cluster/openid/v1/jwks"
)

func TestIssuerRefuses(t *testing.T) {
	handler := newIssuer(t, issuer)
	for _, tt := range []struct {
		name, method, target string
		status               int
	}{
		{"root", "GET", "/", 404},
		{"the issuer itself", "GET", "/cluster", 404},
		{"without the issuer's path", "GET", "/.well-known/openid-configuration", 404},
		{"key set without the issuer's path", "GET", "/openid/v1/jwks", 404},
		{"path before well-known", "GET", "/.well-known/openid-configuration/cluster", 404},
		{"trailing slash", "GET", discoveryAt + "/", 404},
		{"two slashes", "GET", "/cluster//openid/v1/jwks", 404},
		{"dot segment", "GET", "/cluster/./openid/v1/jwks", 404},
		{"another case", "GET", "/Cluster/openid/v1/jwks", 404},
		{"escaped", "GET", "/cluster/openid/v1/%6awks", 404},
		{"escaped slash", "GET", "/cluster%2fopenid/v1/jwks", 404},
		{"another path by POST", "POST", "/", 404},
		{"POST", "POST", discoveryAt, 405},
		{"PUT", "PUT", keySetAt, 405},
		{"DELETE", "DELETE", keySetAt, 405},
		{"OPTIONS", "OPTIONS", keySetAt, 405},
		{"get", "get", keySetAt, 405},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ask(handler, tt.method, "https://issuer.example.org"+tt.target)
			var problem struct {
				Error string `json:"error"`
			}
			if err := json.Unmarshal([]byte(body(t, got)), &problem); err != nil || problem.Error == "" {
				t.Errorf("the body is no JSON error: %v", err)
			}
			if got.StatusCode != tt.status || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %v, want %d", tt.method, tt.target, got.StatusCode, got.Header, tt.status)
			}
			if allow := got.Header.Get("Allow"); (tt.status == 405) != (allow == "GET, HEAD") {
				t.Errorf("%d with Allow %q", tt.status, allow)
			}
		})
	}
}

func TestIssuerServes(t *testing.T) {
	for _, tt := range []struct{ issuer, base string }{
		{"https://issuer.example.org", ""},
		{"https://issuer.example.org/", ""},
		{"https://issuer.example.org/cluster", "/cluster"},
		{"https://issuer.example.org/a/b/", "/a/b"},
	} {
		handler := newIssuer(t, tt.issuer)
		discovery, keySet, err := mint.Documents(tt.issuer, testKey(t).Public())
		if err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string][]byte{"/.well-known/openid-configuration": discovery, "/openid/v1/jwks": keySet} {
			for _, method := range []string{"GET", "HEAD"} {
				got := ask(handler, method, "http://10.0.0.1:8080"+tt.base+path+"?cache=buster")
				wantBody := string(want)
				if method == "HEAD" {
					wantBody = ""
				}
				if text := body(t, got); got.StatusCode != 200 || text != wantBody {
					t.Errorf("%s %s of %s: %d %q, want %q", method, path, tt.issuer, got.StatusCode, text, wantBody)
				}
				checkHeader(t, got, len(want))
			}
		}
	}
}

func checkHeader(t *testing.T, got *http.Response, length int) {
	t.Helper()
	want := http.Header{
		"Content-Type":           {"application/json"},
		"Cache-Control":          {"public, max-age=300"},
		"X-Content-Type-Options": {"nosniff"},
		"Accept-Ranges":          {"bytes"},
		"Etag":                   got.Header["Etag"],
		"Content-Length":         got.Header["Content-Length"],
	}
	if diff := cmp.Diff(want, got.Header); diff != "" || len(got.Header.Get("ETag")) != 45 || got.ContentLength != int64(length) {
		t.Errorf("header (length %d, want %d) -want +got:\n%s", got.ContentLength, length, diff)
	}
}

func TestIssuerNotModified(t *testing.T) {
	handler := newIssuer(t, issuer)
	first, other := ask(handler, "GET", keySetAt).Header.Get("ETag"), ask(handler, "GET", discoveryAt).Header.Get("ETag")
	if first == other {
		t.Errorf("both documents have the ETag %s", first)
	}
	for _, tt := range []struct {
		match string
		want  int
	}{
		{other, 200}, {`"other"`, 200}, {"", 200},
		{first, 304}, {"W/" + first, 304}, {`"other", ` + first, 304}, {"*", 304},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			got := ask(handler, method, keySetAt, "If-None-Match", tt.match)
			if got.StatusCode != tt.want || got.Header.Get("ETag") != first || got.Header.Get("Cache-Control") == "" {
				t.Errorf("%s with If-None-Match %s: %d %v, want %d", method, tt.match, got.StatusCode, got.Header, tt.want)
			}
			if tt.want == 304 && body(t, got) != "" {
				t.Error("304 with a body")
			}
		}
	}
	if again := ask(newIssuer(t, issuer), "GET", keySetAt).Header.Get("ETag"); again != first {
		t.Errorf("another process gives the ETag %s to the same document, want %s", again, first)
	}
}

// TestIssuerUpdate: both documents change at once, and stay when the keys do not do.
func TestIssuerUpdate(t *testing.T) {
	handler := newIssuer(t, issuer)
	before := body(t, ask(handler, "GET", keySetAt))
	for name, keys := range map[string][]crypto.PublicKey{
		"none": {}, "nil": {nil}, "twice": {testKey(t).Public(), testKey(t).Public()}, "small": {otherKey(t).Public(), rsaOfBits(1024)},
	} {
		if err := handler.Update(keys...); err == nil {
			t.Errorf("%s: Update succeeds", name)
		}
		if got := body(t, ask(handler, "GET", keySetAt)); got != before {
			t.Errorf("%s: a refused Update changes the key set to %s", name, got)
		}
	}
	tag := ask(handler, "GET", keySetAt).Header.Get("ETag")
	if err := handler.Update(otherKey(t).Public(), testKey(t).Public()); err != nil {
		t.Fatal(err)
	}
	_, want, err := mint.Documents(issuer, otherKey(t).Public(), testKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	got := ask(handler, "GET", keySetAt, "If-None-Match", tag)
	if text := body(t, got); got.StatusCode != 200 || text != string(want) || got.Header.Get("ETag") == tag {
		t.Errorf("after Update: %d %s, want %s", got.StatusCode, text, want)
	}
	if got := ask(handler, "GET", discoveryAt); got.StatusCode != 200 {
		t.Errorf("the discovery document after Update: %d", got.StatusCode)
	}
}

func TestIssuerUpdateWhileServing(t *testing.T) {
	handler := newIssuer(t, issuer)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				if err := handler.Update(otherKey(t).Public()); err != nil {
					t.Error(err)
				}
				if got := ask(handler, "GET", keySetAt); got.StatusCode != 200 {
					t.Errorf("status %d", got.StatusCode)
				}
			}
		})
	}
	all.Wait()
}

//go:build e2e && linux

package kubernetes_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
	"github.com/svidecar/svidecar/exchange/entratest"
)

// TestTokenRequest holds the emulator against what a real API server signs: it takes the tokens that Entra takes.
func TestTokenRequest(t *testing.T) {
	shared.API(t)
	ns := shared.Namespace(t)
	shared.Do(t, "create", "serviceaccount", "orders", "--namespace", ns)
	discovery, keys := shared.Documents(t)
	published := roundTrip(func(url string) string {
		return map[string]string{
			cluster.Issuer + "/.well-known/openid-configuration": discovery,
			cluster.Issuer + "/openid/v1/jwks":                   keys,
		}[url]
	})
	entra, err := entratest.New(entratest.Config{
		Apps: []entratest.App{federated(clientID, ns, "orders")}, IssuerClient: &http.Client{Transport: published},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		account, audience string
		status            int
		want              string
	}{
		{"default", audience, http.StatusUnauthorized, "AADSTS700213"},
		{"orders", "https://example.invalid", http.StatusUnauthorized, "AADSTS700212"},
		{"orders", audience, http.StatusOK, "access_token"},
	} {
		token := strings.TrimSpace(shared.Do(t, "create", "token", tt.account, "--audience", tt.audience, "--namespace", ns))
		w := httptest.NewRecorder()
		entra.Handler().ServeHTTP(w, redemption(token))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s for %s: %d, body with %s: %v; want %d with it", tt.account, tt.audience, w.Code, tt.want, strings.Contains(w.Body.String(), tt.want), tt.status)
		}
	}
}

// redemption is the request that makes an access token of an assertion (OAuth 2.0 client credentials, RFC 7523).
func redemption(assertion string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "https://127.0.0.1/"+tenantID+"/oauth2/v2.0/token", strings.NewReader(url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// roundTrip answers a GET of a URL with its text.
type roundTrip func(url string) string

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	_, _ = w.WriteString(f(r.URL.String()))
	return w.Result(), nil
}

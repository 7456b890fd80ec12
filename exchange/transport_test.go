package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// roundTripper stands for the network. The tests in this file are inside the
// package because what they hold to the rules has no other door.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body io.Reader) (*http.Response, error) {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(body)}, nil
}

func newGuarded(t *testing.T, authority string, next roundTripper) *guarded {
	t.Helper()
	u, err := url.Parse(authority)
	if err != nil {
		t.Fatal(err)
	}
	g := newTransport(u, nil, "")
	g.next = next
	t.Cleanup(g.close)
	return g
}

func fetch(t *testing.T, g *guarded, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// endless counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestRepliesAreBounded(t *testing.T) {
	body := &endless{}
	g := newGuarded(t, "https://login.example", func(*http.Request) (*http.Response, error) { return answer(200, body) })
	if _, err := fetch(t, g, "https://login.example/token"); !errors.Is(err, errTooLong) {
		t.Errorf("an endless reply: %v, want %v", err, errTooLong)
	}
	if body.read > maxReply+64<<10 {
		t.Errorf("%d bytes of an endless reply were read", body.read)
	}
	body.read = 0
	if _, err := fetch(t, g, "https://login.example/.well-known/openid-configuration"); err == nil || body.read > 2*maxDiscovery {
		t.Errorf("an endless document: %v after %d bytes", err, body.read)
	}
}

func TestRequestsStayOnTheAuthority(t *testing.T) {
	for _, tt := range []struct {
		authority, region, url string
		want                   bool
	}{
		{"https://login.example", "", "http://login.example/token", false},
		{"https://login.example", "", "https://login.example.evil.example/token", false},
		{"https://login.example", "", "https://evil.example/token", false},
		{"https://login.example", "", "https://login.example:8443/token", false},
		{"https://login.example", "", "https://login.microsoftonline.com/token", false},
		{"https://login.microsoftonline.com", "", "https://login.example/token", false},
		{"https://login.microsoftonline.com", "", "https://westeurope.login.microsoft.com/token", false},
		{"https://login.microsoftonline.com", "westeurope", "https://eastus.login.microsoft.com/token", false},
		{"https://login.example", "", "https://login.example/token", true},
		{"https://login.example:443", "", "https://LOGIN.example/token", true},
		{"https://login.example", "", "https://login.example:443/token", true},
		{"https://login.microsoftonline.com", "", "https://login.partner.microsoftonline.cn/token", true},
		{"https://login.windows.net", "", "https://login.microsoftonline.com/token", true},
		{"https://login.microsoftonline.com", "westeurope", "https://westeurope.login.microsoft.com/token", true},
		{"https://login.microsoftonline.us", "usgovvirginia", "https://usgovvirginia.login.microsoftonline.us/token", true},
	} {
		asked := false
		g := newGuarded(t, tt.authority, func(*http.Request) (*http.Response, error) {
			asked = true
			return answer(200, strings.NewReader("{}"))
		})
		g.region = tt.region
		if _, err := fetch(t, g, tt.url); asked != tt.want || (err == nil) != tt.want {
			t.Errorf("authority %s, region %q: %s was asked: %v, %v; want %v", tt.authority, tt.region, tt.url, asked, err, tt.want)
		}
	}
}

// TestDiscoveryIsRefreshedInTheBackground: a document is asked for again once a
// day; nobody waits for that, and nothing worse takes its place.
func TestDiscoveryIsRefreshedInTheBackground(t *testing.T) {
	const where = "https://login.example/t/v2.0/.well-known/openid-configuration"
	document := func(n int, host string) io.Reader {
		return strings.NewReader(fmt.Sprintf(`{"issuer":"https://login.example/t","authorization_endpoint":"a","token_endpoint":"https://%s/token","n":%d}`, host, n))
	}
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		var next func(*http.Request) (*http.Response, error)
		g := newGuarded(t, "https://login.example", func(r *http.Request) (*http.Response, error) {
			calls++
			return next(r)
		})
		expect := func(n, wantCalls int) {
			t.Helper()
			begun := time.Now()
			body, err := fetch(t, g, where)
			if err != nil || !strings.Contains(body, fmt.Sprintf(`"n":%d}`, n)) || time.Since(begun) != 0 {
				t.Errorf("got %q, %v after %v; want document %d at once", body, err, time.Since(begun), n)
			}
			synctest.Wait()
			if calls != wantCalls {
				t.Errorf("%d requests, want %d", calls, wantCalls)
			}
		}
		next = func(*http.Request) (*http.Response, error) { return answer(200, document(1, "login.example")) }
		expect(1, 1)
		time.Sleep(discoveryTTL - 1)
		expect(1, 1)
		for i, worse := range []func(*http.Request) (*http.Response, error){
			func(*http.Request) (*http.Response, error) { return answer(500, strings.NewReader("no")) },
			func(*http.Request) (*http.Response, error) {
				return answer(200, strings.NewReader("<html>sign in</html>"))
			},
			func(*http.Request) (*http.Response, error) { return answer(200, document(9, "evil.example")) },
			func(*http.Request) (*http.Response, error) { // MSAL would refuse it
				return answer(200, strings.NewReader(`{"issuer":"https://login.example/t","token_endpoint":"https://login.example/token","n":9}`))
			},
			func(*http.Request) (*http.Response, error) {
				return answer(200, strings.NewReader(`{"issuer":"https://evil.example/t","authorization_endpoint":"a","token_endpoint":"https://login.example/token","n":9}`))
			},
			func(*http.Request) (*http.Response, error) { return answer(200, &endless{}) },
			func(*http.Request) (*http.Response, error) { return nil, errors.New("down") },
			func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
		} {
			next = worse
			time.Sleep(discoveryTTL)
			expect(1, 2+i)
			expect(1, 2+i) // and not again before the next day
		}
		next = func(*http.Request) (*http.Response, error) { return answer(200, document(2, "login.example")) }
		time.Sleep(discoveryTTL)
		expect(1, 10)
		expect(2, 10)
	})
}

func someAssertion(context.Context, Key, bool) (secret.Value, error) { return secret.New("a.b.c"), nil }

func TestForcedRegionIsIgnored(t *testing.T) {
	t.Setenv("MSAL_FORCE_REGION", "westeurope")
	var hosts []string
	e, err := NewEntra(EntraConfig{Authority: "https://login.microsoftonline.com", Assertion: someAssertion})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.transport.next = roundTripper(func(r *http.Request) (*http.Response, error) {
		hosts = append(hosts, r.URL.Host)
		if r.Method == http.MethodPost {
			return answer(200, strings.NewReader(`{"token_type":"Bearer","expires_in":3600,"access_token":"x"}`))
		}
		return answer(200, strings.NewReader(`{"issuer":"https://login.microsoftonline.com/t/v2.0","authorization_endpoint":"https://login.microsoftonline.com/a","token_endpoint":"https://login.microsoftonline.com/token"}`))
	})
	if _, err := e.Redeem(t.Context(), Key{Tenant: "t", ClientID: "c", Scope: "s/.default"}); err != nil {
		t.Fatal(err)
	}
	for _, host := range hosts {
		if host != "login.microsoftonline.com" {
			t.Errorf("%s was asked", host)
		}
	}
}

func TestWithoutTokens(t *testing.T) {
	long := strings.Repeat("aB3-", 25)
	for text, want := range map[string]string{
		"subject 'system:serviceaccount:ns:name' does not match": "subject 'system:serviceaccount:ns:name' does not match",
		"eyJhbGci.eyJz.c2ln":      secret.Redacted,
		"assertion:eyJhbGci":      "assertion:" + secret.Redacted,
		"x" + "eyJhbGci":          secret.Redacted,
		"part " + long + " of it": "part " + secret.Redacted + " of it",
		"https://issuer.example/tenant/11111111-2222-4333-8444-555555555555/": "https://issuer.example/tenant/11111111-2222-4333-8444-555555555555/",
	} {
		if got := withoutTokens(text); got != want {
			t.Errorf("withoutTokens(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestLifeIsCapped(t *testing.T) {
	if left := NewToken(secret.New("x"), time.Now(), 1000*time.Hour, 0).Left(time.Now()); left > maxLife {
		t.Errorf("a token with %v left, want at most %v", left, maxLife)
	}
}

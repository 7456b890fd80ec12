package exchange_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/internal/secret"
)

const vault = "https://vault.azure.net/.default"

var vaultKey = exchange.Key{Tenant: emulation.TenantID, ClientID: emulation.ClientID, Scope: vault}

func startCloud(t *testing.T) *emulation.Emulation {
	t.Helper()
	cloud, err := emulation.Start(emulation.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	return cloud
}

// assertionsOf adapts the cloud's source and remembers what was sent, so that
// tests can look for it where it must not be.
func assertionsOf(cloud *emulation.Emulation, sent *sync.Map) exchange.AssertionFunc {
	return func(ctx context.Context, _ exchange.Key, _ bool) (secret.Value, error) {
		a, err := cloud.Source.Assertion(ctx)
		if err == nil && sent != nil {
			sent.Store(a.Value.Reveal(), true)
		}
		return a.Value, err
	}
}

func newEntra(t *testing.T, cloud *emulation.Emulation, sent *sync.Map) *exchange.Entra {
	t.Helper()
	e, err := exchange.NewEntra(exchange.EntraConfig{Authority: cloud.Entra.URL(), Roots: cloud.CA.Pool(), Assertion: assertionsOf(cloud, sent)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func failure(t *testing.T, err error) *exchange.Error {
	t.Helper()
	var failed *exchange.Error
	if !errors.As(err, &failed) {
		t.Fatalf("error %v (%T), want an *exchange.Error", err, err)
	}
	return failed
}

func TestNewEntraRefuses(t *testing.T) {
	assertion := func(context.Context, exchange.Key, bool) (secret.Value, error) { return secret.Value{}, nil }
	for name, cfg := range map[string]exchange.EntraConfig{
		"no assertion": {},
		"http":         {Assertion: assertion, Authority: "http://login.example"},
		"no host":      {Assertion: assertion, Authority: "https://"},
		"path":         {Assertion: assertion, Authority: "https://login.example/tenant"},
		"query":        {Assertion: assertion, Authority: "https://login.example?x"},
		"user":         {Assertion: assertion, Authority: "https://u:p@login.example"},
		"no URL":       {Assertion: assertion, Authority: "://"},
	} {
		if _, err := exchange.NewEntra(cfg); err == nil {
			t.Errorf("%s: NewEntra accepts %+v", name, cfg.Authority)
		}
	}
	for _, authority := range []string{"", exchange.PublicAuthority, exchange.USGovAuthority, exchange.ChinaAuthority} {
		if _, err := exchange.NewEntra(exchange.EntraConfig{Assertion: assertion, Authority: authority}); err != nil {
			t.Errorf("NewEntra(%q): %v", authority, err)
		}
	}
}

func TestRedeem(t *testing.T) {
	cloud := startCloud(t)
	e := newEntra(t, cloud, nil)
	begun := time.Now()
	token, err := e.Redeem(t.Context(), vaultKey)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := cloud.Entra.VerifyAccessToken(token.Value.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"appid": emulation.ClientID, "tid": emulation.TenantID, "oid": emulation.ObjectID, "aud": "https://vault.azure.net"} {
		if claims[name] != want {
			t.Errorf("claim %s = %v, want %q", name, claims[name], want)
		}
	}
	if left := token.Left(begun); left < 58*time.Minute || left > time.Hour {
		t.Errorf("%v left, want about an hour", left)
	}
	if sent := cloud.Entra.Assertions()[emulation.ClientID]; sent.Issuer != cloud.Issuer || sent.Subject != emulation.Subject {
		t.Errorf("Entra saw %+v", sent)
	}
	if calls := cloud.Entra.Calls(); calls.Requests != 2 || calls.Discovery != 1 || calls.Instance != 0 {
		t.Errorf("the first exchange made %d requests, %d of discovery, %d of instance discovery; want 2, 1, 0", calls.Requests, calls.Discovery, calls.Instance)
	}
	// The discovery document is remembered; MSAL's cache is not used.
	for range 2 {
		if _, err := e.Redeem(t.Context(), vaultKey); err != nil {
			t.Fatal(err)
		}
	}
	if calls := cloud.Entra.Calls(); calls.Requests != 4 || calls.Token != 3 {
		t.Errorf("after two more: %d requests, %d of them for tokens; want 4, 3", calls.Requests, calls.Token)
	}
}

func TestRedeemKeepsRefreshIn(t *testing.T) {
	cloud := startCloud(t)
	if err := cloud.Entra.SetFault(vault, entratest.Fault{RefreshIn: 20 * time.Minute, ExpiresIn: 2 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	token, err := newEntra(t, cloud, nil).Redeem(t.Context(), vaultKey)
	if err != nil {
		t.Fatal(err)
	}
	life, refresh := token.ExpiresOn.Sub(token.NotBefore), token.RefreshOn.Sub(token.NotBefore)
	if life != 2*time.Hour || refresh != 20*time.Minute {
		t.Errorf("life %v, refresh after %v; want 2h, 20m", life, refresh)
	}
}

// TestRedeemExplainsEveryCode: each of Entra's codes that the emulator knows
// leads to an error that names code, cause and fix.
func TestRedeemExplainsEveryCode(t *testing.T) {
	cloud := startCloud(t)
	var sent sync.Map
	e := newEntra(t, cloud, &sent)
	for _, refusal := range entratest.Refusals() {
		t.Run(strconv.Itoa(refusal.Code), func(t *testing.T) {
			if err := cloud.Entra.SetFault(vault, entratest.Fault{AADSTS: refusal.Code}); err != nil {
				t.Fatal(err)
			}
			_, err := e.Redeem(t.Context(), vaultKey)
			failed := failure(t, err)
			code := fmt.Sprintf("AADSTS%d", refusal.Code)
			if failed.Code != code || failed.Cause == "" || failed.Fix == "" || failed.Detail == "" || failed.TraceID == "" {
				t.Errorf("error = %+v, want code %s, cause, fix, detail and trace id", failed, code)
			}
			for _, part := range []string{code, failed.Cause, failed.Fix, failed.TraceID} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the text %q lacks %q", err, part)
				}
			}
			if want := refusal.Status == 429 || refusal.Status >= 500; failed.Kind.Temporary() != want && refusal.Code != 50196 {
				t.Errorf("HTTP %d is %v, temporary %v", refusal.Status, failed.Kind, failed.Kind.Temporary())
			}
			leaksNothing(t, err, &sent)
		})
	}
}

func leaksNothing(t *testing.T, err error, sent *sync.Map) {
	t.Helper()
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		sent.Range(func(assertion, _ any) bool {
			for part := range strings.SplitSeq(assertion.(string), ".") {
				if strings.Contains(text, part) {
					t.Errorf("the error leaks a part of the assertion: %s", text)
				}
			}
			return true
		})
	}
}

func TestRedeemUnderFaults(t *testing.T) {
	cloud := startCloud(t)
	var sent sync.Map
	e := newEntra(t, cloud, &sent)
	for _, tt := range []struct {
		name  string
		fault entratest.Fault
		kind  exchange.Kind
		after time.Duration
	}{
		{"429 of Entra's", entratest.Fault{Status: 429, RetryAfter: "17"}, exchange.Throttled, 17 * time.Second},
		{"429 without Retry-After", entratest.Fault{Status: 429}, exchange.Throttled, 0},
		{"429 with a date", entratest.Fault{Status: 429, RetryAfter: "Wed, 21 Oct 2099 07:28:00 GMT"}, exchange.Throttled, 2 * time.Minute},
		{"429 with a date gone by", entratest.Fault{Status: 429, RetryAfter: "Wed, 21 Oct 2015 07:28:00 GMT"}, exchange.Throttled, 0},
		{"429 beyond counting", entratest.Fault{Status: 429, RetryAfter: "9223372037"}, exchange.Throttled, 2 * time.Minute},
		{"429 with a day", entratest.Fault{Status: 429, RetryAfter: "86400"}, exchange.Throttled, 2 * time.Minute},
		{"500 of a gateway", entratest.Fault{Status: 500}, exchange.Unavailable, 0},
		{"502 of a gateway", entratest.Fault{Status: 502, RetryAfter: "3"}, exchange.Unavailable, 3 * time.Second},
		{"503 of Entra's", entratest.Fault{Status: 503, RetryAfter: "5"}, exchange.Unavailable, 5 * time.Second},
		{"403 of a firewall", entratest.Fault{Status: 403}, exchange.Unavailable, 0},
		{"reset", entratest.Fault{Reset: true}, exchange.Unavailable, 0},
		{"garbage", entratest.Fault{Garbage: true}, exchange.Unavailable, 0},
		{"truncated", entratest.Fault{Truncate: true}, exchange.Unavailable, 0},
		{"endless", entratest.Fault{Huge: true}, exchange.Unavailable, 0},
		{"redirect", entratest.Fault{Redirect: "https://127.0.0.1:1/steal"}, exchange.Unavailable, 0},
		{"echo of the assertion", entratest.Fault{EchoAssertion: true}, exchange.Refused, 0},
		{"expired at birth", entratest.Fault{ExpiresIn: -time.Minute}, exchange.Unavailable, 0},
		{"no life", entratest.Fault{OmitExpiresIn: true}, exchange.Unavailable, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := cloud.Entra.SetFault(vault, tt.fault); err != nil {
				t.Fatal(err)
			}
			token, err := e.Redeem(t.Context(), vaultKey)
			if err == nil {
				t.Fatalf("Redeem = %v, want an error", token)
			}
			failed := failure(t, err)
			if failed.Kind != tt.kind || failed.RetryAfter != tt.after || failed.Cause == "" || failed.Fix == "" {
				t.Errorf("error = %+v, want kind %v, Retry-After %v, cause and fix", failed, tt.kind, tt.after)
			}
			leaksNothing(t, err, &sent)
		})
	}
}

func TestRedeemEndsWithItsContext(t *testing.T) {
	cloud := startCloud(t)
	if err := cloud.Entra.SetFault(vault, entratest.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := newEntra(t, cloud, nil).Redeem(ctx, vaultKey)
	if failed := failure(t, err); failed.Kind != exchange.Unavailable || !strings.Contains(failed.Cause, "in time") {
		t.Errorf("error = %v, want Unavailable, in time", err)
	}
}

func TestRedeemSurvivesTheLossOfDiscovery(t *testing.T) {
	cloud := startCloud(t)
	e := newEntra(t, cloud, nil)
	if _, err := e.Redeem(t.Context(), vaultKey); err != nil {
		t.Fatal(err)
	}
	if err := cloud.Entra.SetFault(entratest.DiscoveryScope, entratest.Fault{Status: 500}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Redeem(t.Context(), vaultKey); err != nil {
		t.Errorf("with discovery down: %v", err)
	}
}

// TestAssertionStaysOnTheAuthority: whoever can write the discovery document
// cannot choose where assertions go.
func TestAssertionStaysOnTheAuthority(t *testing.T) {
	cloud := startCloud(t)
	cert, err := cloud.CA.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	start := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	thief := start(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the assertion went to another host: %s %s", r.Method, r.URL.Path)
	}))
	var (
		authority *httptest.Server
		mended    atomic.Bool
	)
	authority = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			fmt.Fprint(w, `{"token_type":"Bearer","expires_in":3600,"access_token":"x"}`)
			return
		}
		endpoint := thief.URL
		if mended.Load() {
			endpoint = authority.URL
		}
		_ = json.NewEncoder(w).Encode(map[string]string{
			"issuer":                 authority.URL + "/" + emulation.TenantID + "/v2.0",
			"authorization_endpoint": authority.URL + "/authorize",
			"token_endpoint":         endpoint + "/token",
		})
	}))
	e, err := exchange.NewEntra(exchange.EntraConfig{Authority: authority.URL, Roots: cloud.CA.Pool(), Assertion: assertionsOf(cloud, nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Redeem(t.Context(), vaultKey)
	if failed := failure(t, err); failed.Kind != exchange.Unavailable || !strings.Contains(failed.Cause, "another host") {
		t.Errorf("error = %v, want one that says another host", err)
	}
	mended.Store(true) // a bad document is not remembered
	if _, err := e.Redeem(t.Context(), vaultKey); err != nil {
		t.Errorf("after the document was mended: %v", err)
	}
}

// TestRedirectIsNotFollowed, not even on the authority: the assertion goes where
// it was meant to go, or nowhere.
func TestRedirectIsNotFollowed(t *testing.T) {
	cloud := startCloud(t)
	e := newEntra(t, cloud, nil)
	if err := cloud.Entra.SetFault(vault, entratest.Fault{Redirect: cloud.Entra.URL() + "/elsewhere"}); err != nil {
		t.Fatal(err)
	}
	_, err := e.Redeem(t.Context(), vaultKey)
	if failed := failure(t, err); failed.Kind != exchange.Unavailable {
		t.Errorf("error = %v, want Unavailable", err)
	}
	if calls := cloud.Entra.Calls(); calls.Requests != 2 {
		t.Errorf("%d requests, want 2: discovery and one exchange", calls.Requests)
	}
}

func TestRedeemExplainsTheNetwork(t *testing.T) {
	cloud := startCloud(t)
	closed := httptest.NewServer(nil)
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, tt := range []struct {
		name string
		cfg  exchange.EntraConfig
		says string
	}{
		{"unknown CA", exchange.EntraConfig{Authority: cloud.Entra.URL()}, "--authority-ca-file"},
		{"nobody listens", exchange.EntraConfig{Authority: strings.Replace(closed.URL, "http:", "https:", 1)}, "refuses the connection"},
		{"no TLS", exchange.EntraConfig{Authority: strings.Replace(plain.URL, "http:", "https:", 1)}, "does not speak TLS"},
		{"no such name", exchange.EntraConfig{Authority: "https://login.invalid"}, "cannot be resolved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Assertion = assertionsOf(cloud, nil)
			e, err := exchange.NewEntra(tt.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Redeem(t.Context(), vaultKey)
			if failed := failure(t, err); failed.Kind != exchange.Unavailable || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v, want Unavailable that says %q", err, tt.says)
			}
		})
	}
}

type sourceError struct{ temporary bool }

func (e sourceError) Error() string   { return "the file is missing: put it there" }
func (e sourceError) Temporary() bool { return e.temporary }

func TestRedeemKeepsTheSourcesWords(t *testing.T) {
	cloud := startCloud(t)
	for _, tt := range []struct {
		name string
		err  error
		kind exchange.Kind
		says string
	}{
		{"permanent", sourceError{false}, exchange.NoAssertion, "put it there"},
		{"temporary", sourceError{true}, exchange.Unavailable, "put it there"},
		{"plain", errors.New("put it there"), exchange.NoAssertion, "put it there"},
		{"slow", fmt.Errorf("x: %w", context.DeadlineExceeded), exchange.Unavailable, "did not answer in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := exchange.NewEntra(exchange.EntraConfig{Authority: cloud.Entra.URL(), Roots: cloud.CA.Pool(),
				Assertion: func(context.Context, exchange.Key, bool) (secret.Value, error) { return secret.Value{}, tt.err }})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Redeem(t.Context(), vaultKey)
			if failed := failure(t, err); failed.Kind != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v of kind %v, want %v that says %q", err, failed.Kind, tt.kind, tt.says)
			}
		})
	}
}

// TestFreshAssertion: an assertion that Entra finds outside its validity is
// replaced once.
func TestFreshAssertion(t *testing.T) {
	cloud := startCloud(t)
	for _, tt := range []struct {
		name   string
		times  int
		kind   exchange.Kind
		tokens int
		fresh  int
	}{{"once", 1, 0, 2, 1}, {"again", 0, exchange.Refused, 2, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			var fresh atomic.Int32
			e, err := exchange.NewEntra(exchange.EntraConfig{Authority: cloud.Entra.URL(), Roots: cloud.CA.Pool(),
				Assertion: func(ctx context.Context, _ exchange.Key, another bool) (secret.Value, error) {
					if another {
						fresh.Add(1)
					}
					a, err := cloud.Source.Assertion(ctx)
					return a.Value, err
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			cloud.Entra.ResetCalls()
			if err := cloud.Entra.SetFault(vault, entratest.Fault{AADSTS: 700024, Times: tt.times}); err != nil {
				t.Fatal(err)
			}
			_, err = e.Redeem(t.Context(), vaultKey)
			if kindOf(err) != tt.kind || cloud.Entra.Calls().Token != tt.tokens || int(fresh.Load()) != tt.fresh {
				t.Errorf("Redeem = %v after %d exchanges with %d fresh assertions; want kind %v, %d, %d", err, cloud.Entra.Calls().Token, fresh.Load(), tt.kind, tt.tokens, tt.fresh)
			}
		})
	}
}

// TestSkewIsExplained: where the clocks differ, an error that has to do with
// time says by how much.
func TestSkewIsExplained(t *testing.T) {
	cloud := startCloud(t)
	cert, err := cloud.CA.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		ahead time.Duration
		says  string
	}{{10 * time.Minute, "clock is 10m0s behind Entra's"}, {-10 * time.Minute, "clock is 10m0s ahead of Entra's"}, {0, ""}} {
		t.Run(tt.ahead.String(), func(t *testing.T) {
			var authority *httptest.Server
			authority = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(tt.ahead).UTC().Format(http.TimeFormat))
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusUnauthorized)
					fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS700024: x","error_codes":[700024]}`)
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]string{
					"issuer": authority.URL + "/t/v2.0", "authorization_endpoint": authority.URL + "/a", "token_endpoint": authority.URL + "/token",
				})
			}))
			authority.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			authority.StartTLS()
			defer authority.Close()
			e, err := exchange.NewEntra(exchange.EntraConfig{Authority: authority.URL, Roots: cloud.CA.Pool(), Assertion: assertionsOf(cloud, nil)})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			_, err = e.Redeem(t.Context(), vaultKey)
			text := regexp.MustCompile(`(9m59s|10m1s)`).ReplaceAllString(err.Error(), "10m0s")
			if !strings.Contains(text, "AADSTS700024") || strings.Contains(text, "clock is") != (tt.says != "") || !strings.Contains(text, tt.says) {
				t.Errorf("error = %v, want %q in it", err, tt.says)
			}
			if off := e.Skew() - tt.ahead; off.Abs() > 2*time.Second {
				t.Errorf("Skew() = %v, want about %v", e.Skew(), tt.ahead)
			}
		})
	}
}

// TestErrorsShowNoTokens, of whatever form, and whoever put them there.
func TestErrorsShowNoTokens(t *testing.T) {
	cloud := startCloud(t)
	cert, err := cloud.CA.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	const opaque, foreign = "opaque-assertion", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.x"
	var authority *httptest.Server
	authority = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"AADSTS1: no %s, no %s, no."}`, r.FormValue("client_assertion"), foreign)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{
			"issuer": authority.URL + "/t/v2.0", "authorization_endpoint": authority.URL + "/a", "token_endpoint": authority.URL + "/token",
		})
	}))
	authority.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	authority.StartTLS()
	defer authority.Close()
	e, err := exchange.NewEntra(exchange.EntraConfig{Authority: authority.URL, Roots: cloud.CA.Pool(),
		Assertion: func(context.Context, exchange.Key, bool) (secret.Value, error) { return secret.New(opaque), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, err = e.Redeem(t.Context(), vaultKey)
	failed := failure(t, err)
	if want := "AADSTS1: no [redacted], no [redacted], no."; failed.Detail != want || failed.Kind != exchange.Refused {
		t.Errorf("Detail = %q of %v, want %q", failed.Detail, failed.Kind, want)
	}
}

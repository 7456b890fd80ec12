package mint_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// What GitHub's and Google's tokens say, and what a job proves itself with.
const (
	githubIssuer  = "https://token.actions.githubusercontent.com"
	githubSubject = "repo:octo/shop:ref:refs/heads/main"
	jobToken      = "job-token-that-nobody-may-see-0123456789"
)

// platformToken is good for an hour from issued.
func platformToken(t testing.TB, issued time.Time, life time.Duration) string {
	t.Helper()
	return forge(t, goodHeader, fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":%q,"iat":%d,"nbf":%d,"exp":%d}`,
		githubIssuer, githubSubject, audience, issued.Unix(), issued.Add(-10*time.Minute).Unix(), issued.Add(life).Unix()))
}

// service is a token service on a real listener. It is stricter than real ones:
// whatever it was not told to expect is refused with 418.
type service struct {
	*httptest.Server
	t testing.TB

	mu      sync.Mutex
	expect  func(*http.Request) bool
	answer  http.HandlerFunc // nil answers with token
	token   string
	asked   int
	arrived chan struct{} // gets a value for each request, if there is room
}

// startService serves with TLS, or without.
func startService(t testing.TB, withTLS bool) *service {
	t.Helper()
	s := &service{t: t, token: platformToken(t, time.Now(), time.Hour), arrived: make(chan struct{}, 1000)}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if withTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.stop)
	return s
}

// stop does not wait for requests that hang.
func (s *service) stop() {
	s.CloseClientConnections()
	s.Close()
}

func (s *service) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}

// want changes what is expected.
func (s *service) want(expect func(*http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expect = expect
}

// play changes what is answered; nil answers with the token.
func (s *service) play(token string, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.answer = token, answer
}

func (s *service) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked++
	answer, token, expect := s.answer, s.token, s.expect
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil || len(body) > 0 || r.Method != http.MethodGet || r.UserAgent() != "svidecar" || r.Header.Get("Cookie") != "" || !expect(r):
		s.t.Errorf("unexpected request: %s %s, header %v, %d bytes (%v)", r.Method, r.RequestURI, r.Header, len(body), err)
		w.WriteHeader(http.StatusTeapot)
	case answer != nil:
		answer(w, r)
	default:
		s.give(w, token)
	}
}

// give answers as the kind of service does.
func (s *service) give(w http.ResponseWriter, token string) {
	if s.TLS == nil {
		w.Header().Set("Metadata-Flavor", "Google")
		_, _ = io.WriteString(w, token)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"count": len(token), "value": token})
}

// replyWith answers with a status and a body.
func replyWith(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// hang answers when the client has gone.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// platform makes a source of one kind, with a service to ask.
type platform struct {
	name  string
	start func(t *testing.T, timeout time.Duration) (*mint.Fetcher, *service)
}

// platforms are the kinds that ask by HTTP.
var platforms = []platform{{"github", startGitHub}, {"google", startGoogle}, {"url", startURL}}

func startGitHub(t *testing.T, timeout time.Duration) (*mint.Fetcher, *service) {
	t.Helper()
	s := startService(t, true)
	s.expect = func(r *http.Request) bool {
		return r.RequestURI == "/oidc/token?api-version=2.0&x=a%2Fb&audience=api%3A%2F%2FAzureADTokenExchange" &&
			r.Header.Get("Authorization") == "bearer "+jobToken
	}
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", s.URL+"/oidc/token?api-version=2.0&x=a%2Fb")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", jobToken)
	f, err := mint.NewGitHub(mint.GitHubConfig{Audience: audience, Roots: s.roots(), Timeout: timeout})
	return closing(t, f, err), s
}

func startGoogle(t *testing.T, timeout time.Duration) (*mint.Fetcher, *service) {
	t.Helper()
	s := startService(t, false)
	s.expect = func(r *http.Request) bool {
		return r.RequestURI == "/computeMetadata/v1/instance/service-accounts/default/identity?audience=api%3A%2F%2FAzureADTokenExchange&format=full" &&
			r.Header.Get("Metadata-Flavor") == "Google" && r.Header.Get("Authorization") == ""
	}
	f, err := mint.NewGoogle(mint.GoogleConfig{Audience: audience, Host: s.Listener.Addr().String(), Timeout: timeout})
	return closing(t, f, err), s
}

func startURL(t *testing.T, timeout time.Duration) (*mint.Fetcher, *service) {
	t.Helper()
	s := startService(t, true)
	s.expect = func(r *http.Request) bool {
		return r.RequestURI == "/for/api%3A%2F%2FAzureADTokenExchange/token?aud=api%3A%2F%2FAzureADTokenExchange&key=k" &&
			r.Header.Get("Authorization") == "Bearer "+jobToken
	}
	bearer := filepath.Join(t.TempDir(), "bearer")
	write(t, bearer, " "+jobToken+"\r\n")
	f, err := mint.NewURL(mint.URLConfig{
		URL: s.URL + "/for/{{audience}}/token?aud={{audience}}&key=k", BearerFile: bearer, Field: "value",
		Audience: audience, Roots: s.roots(), Timeout: timeout,
	})
	return closing(t, f, err), s
}

func closing(t testing.TB, f *mint.Fetcher, err error) *mint.Fetcher {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return f
}

func mustFetch(t testing.TB, f *mint.Fetcher) mint.Assertion {
	t.Helper()
	got, err := f.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// checkTrouble checks all that a caller may use of an error of Fetcher, and that
// nothing secret is in it.
func checkTrouble(t *testing.T, err error, temporary bool, secrets []string, says ...string) {
	t.Helper()
	detail, ok := err.(*mint.Error)
	if !ok {
		t.Fatalf("error %v is a %T, want *mint.Error", err, err)
	}
	if detail.Temporary() != temporary || detail.Path != "" {
		t.Errorf("error %v: temporary %v, path %q; want %v and no path", err, detail.Temporary(), detail.Path, temporary)
	}
	for _, want := range append(says, "mint: ", "; ") {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	checkOneLine(t, err)
	for _, secret := range append(secrets, jobToken) {
		checkNoLeak(t, err, secret)
	}
}

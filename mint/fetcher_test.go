package mint_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint"
)

// onEach runs a test with each kind of source that asks by HTTP.
func onEach(t *testing.T, timeout time.Duration, test func(*testing.T, *mint.Fetcher, *service)) {
	t.Helper()
	for _, p := range platforms {
		t.Run(p.name, func(t *testing.T) {
			f, s := p.start(t, timeout)
			test(t, f, s)
		})
	}
}

func TestFetcherFetches(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		got := mustFetch(t, f)
		want, err := mint.Parse(s.token)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Claims); diff != "" || !got.Value.Equal(s.token) {
			t.Errorf("another token, or claims -want +got:\n%s", diff)
		}
	})
}

func TestFetcherReusesToHalfLife(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		for range 10 {
			mustFetch(t, f)
		}
		if n := s.requests(); n != 1 {
			t.Errorf("%d requests in the first half of the life, want 1", n)
		}
		s.play(platformToken(t, time.Now().Add(-31*time.Minute), time.Hour), nil)
		if _, err := f.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustFetch(t, f)
		if n := s.requests(); n != 3 {
			t.Errorf("%d requests, want 3: Fresh asks, and so does each call in the second half", n)
		}
	})
}

func TestFetcherServesTheOldOneWhileTheIssuerFails(t *testing.T) {
	f, s := startURL(t, 0)
	s.play(platformToken(t, time.Now().Add(-31*time.Minute), time.Hour), nil)
	first := mustFetch(t, f)
	for _, answer := range []http.HandlerFunc{replyWith(500, ""), replyWith(403, ""), hang} {
		s.play("", answer)
		start := time.Now()
		if got := mustFetch(t, f); !same(got, first) || time.Since(start) > 4*time.Second {
			t.Errorf("another assertion, or after %v; want the old one within a second", time.Since(start))
		}
	}
}

func TestFetcherConcurrentCallersShare(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		proceed, raw := make(chan struct{}), s.token
		s.play("", func(w http.ResponseWriter, _ *http.Request) {
			<-proceed
			s.give(w, raw)
		})
		var callers sync.WaitGroup
		for range 50 {
			callers.Go(func() {
				if _, err := f.Assertion(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		<-s.arrived
		close(proceed)
		callers.Wait()
		if n := s.requests(); n != 1 {
			t.Errorf("50 callers: %d requests, want 1", n)
		}
	})
}

// TestFetcherRefusesForEntra holds the rules that Entra would hold with a worse
// message, and what only a source that does not write the token has to check.
func TestFetcherRefusesForEntra(t *testing.T) {
	now := time.Now()
	times := fmt.Sprintf(`"iat":%d,"exp":%d`, now.Unix(), now.Add(time.Hour).Unix())
	names := fmt.Sprintf(`"iss":%q,"sub":%q`, githubIssuer, githubSubject)
	aud := fmt.Sprintf(`"aud":%q`, audience)
	object := func(parts ...string) string { return "{" + strings.Join(parts, ",") + "}" }
	good := object(names, aud, times)
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		for _, tt := range []struct {
			name, raw string
			cause     error
			temporary bool
			says      string
		}{
			{"ES256", forge(t, `{"alg":"ES256","kid":"k1","typ":"JWT"}`, good), nil, false, "RS256 only"},
			{"no kid", forge(t, `{"alg":"RS256","typ":"JWT"}`, good), nil, false, "no kid"},
			{"typ at+jwt", forge(t, `{"alg":"RS256","kid":"k1","typ":"at+jwt"}`, good), nil, false, `typ is "at+jwt"`},
			{"no iss", forge(t, goodHeader, object(`"sub":"s"`, aud, times)), nil, false, "no iss"},
			{"no sub", forge(t, goodHeader, object(`"iss":"i"`, aud, times)), nil, false, "no sub"},
			{"no iat", forge(t, goodHeader, object(names, aud, `"exp":4000000000`)), nil, false, "no iat"},
			{"no exp", forge(t, goodHeader, object(names, aud, `"iat":1`)), mint.ErrMalformed, false, "no exp"},
			{"expired", platformToken(t, now.Add(-2*time.Hour), time.Hour), mint.ErrExpired, true, "expired 1h0m"},
			{"about to expire", platformToken(t, now.Add(-time.Hour), time.Hour+9*time.Second), mint.ErrExpired, true, "too soon to reach Entra"},
			{"from the future", platformToken(t, now.Add(2*time.Minute), time.Hour), mint.ErrNotYetValid, true, "clock"},
			{"too long", platformToken(t, now, 25*time.Hour+time.Second), nil, false, "at most 25h"},
			{"no aud", forge(t, goodHeader, object(names, times)), nil, false, `its audience is [], want "api://AzureADTokenExchange"`},
			{"another aud", forge(t, goodHeader, object(names, times, `"aud":"https://github.com/octo"`)), nil, false, `its audience is ["https://github.com/octo"], want "api://AzureADTokenExchange"`},
			{"aud of another case", forge(t, goodHeader, object(names, times, strings.ToLower(aud))), nil, false, "its audience is"},
			{"no JWT", "hello", mint.ErrMalformed, false, "no assertion"},
			{"alg none", forge(t, `{"alg":"none"}`, good), mint.ErrMalformed, false, "no assertion"},
			{"two", platformToken(t, now, time.Hour) + "\n" + platformToken(t, now, time.Hour), mint.ErrMalformed, false, "no assertion"},
			{"damaged", platformToken(t, now, time.Hour)[1:], mint.ErrMalformed, false, "no assertion"},
		} {
			s.play(tt.raw, nil)
			_, err := f.Fresh(t.Context())
			if err == nil {
				t.Errorf("%s: no error", tt.name)
				continue
			}
			checkTrouble(t, err, tt.temporary, []string{tt.raw}, tt.says)
			if tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("%s: error %v, want one that is %v", tt.name, err, tt.cause)
			}
		}
		two := forge(t, goodHeader, object(names, times, fmt.Sprintf(`"aud":["other",%q]`, audience)))
		s.play(two, nil)
		if got, err := f.Fresh(t.Context()); err != nil || !got.Value.Equal(two) {
			t.Errorf("a wanted audience beside another: %v", err)
		}
	})
}

// TestFetcherStatus goes through what a service may answer instead.
func TestFetcherStatus(t *testing.T) {
	for _, tt := range []struct {
		status    int
		temporary bool
		says      string
	}{
		{201, false, "HTTP 201"},
		{204, false, "HTTP 204"},
		{304, false, "redirect"},
		{400, false, "HTTP 400"},
		{401, false, "HTTP 401"},
		{403, false, "HTTP 403"},
		{404, false, "HTTP 404"},
		{408, true, "HTTP 408"},
		{429, true, "HTTP 429"},
		{500, true, "HTTP 500"},
		{503, true, "HTTP 503"},
	} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
				raw := s.token
				body := "echo of " + jobToken + " and " + raw
				if tt.status == 204 || tt.status == 304 {
					body = ""
				}
				s.play("", replyWith(tt.status, body))
				_, err := f.Assertion(t.Context())
				checkTrouble(t, err, tt.temporary, []string{raw}, tt.says)
				s.play(raw, nil)
				mustFetch(t, f)
				s.play("", replyWith(tt.status, body))
				_, err = f.Fresh(t.Context()) // one that has worked may be being mended
				checkTrouble(t, err, true, []string{raw}, tt.says)
			})
		})
	}
}

func TestFetcherFollowsNoRedirect(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		for _, code := range []int{301, 302, 303, 307, 308} {
			s.play("", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Metadata-Flavor", "Google")
				w.Header().Set("Location", s.URL+"/elsewhere") // which would be an unexpected request
				w.WriteHeader(code)
			})
			_, err := f.Assertion(t.Context())
			checkTrouble(t, err, false, nil, "a redirect, which is not followed")
		}
	})
}

func TestFetcherBoundsTheReply(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		raw := s.token
		s.play("", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Metadata-Flavor", "Google")
			_, _ = io.WriteString(w, raw+strings.Repeat(" ", 64<<10))
		})
		_, err := f.Assertion(t.Context())
		checkTrouble(t, err, false, []string{raw}, "larger than 64 KiB")
		s.play("", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 128<<10))
			s.give(w, raw)
		})
		_, err = f.Assertion(t.Context())
		checkTrouble(t, err, true, []string{raw}, "the connection broke")
		s.play(strings.Repeat("a", 16<<10+1), nil)
		_, err = f.Assertion(t.Context())
		checkTrouble(t, err, false, nil, "longer than 16 KiB")
	})
}

// TestFetcherIsBoundedInTime waits once, for all that hangs.
func TestFetcherIsBoundedInTime(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) { // begins, and does not end
		w.Header().Set("Metadata-Flavor", "Google")
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		hang(w, r)
	}
	start := time.Now()
	errs := make(chan error)
	for _, answer := range []http.HandlerFunc{hang, slow} {
		for _, p := range platforms {
			f, s := p.start(t, time.Second)
			s.play("", answer)
			go func() {
				_, err := f.Assertion(context.Background())
				errs <- err
			}()
		}
	}
	for range 2 * len(platforms) {
		err := <-errs
		checkTrouble(t, err, true, nil, "no answer within 1s")
		if errors.Is(err, context.DeadlineExceeded) {
			t.Error("the error looks like the end of the caller's own time")
		}
	}
	if waited := time.Since(start); waited < time.Second || waited > 6*time.Second {
		t.Errorf("waited %v, want 1 s", waited)
	}
}

func TestFetcherIssuerIsNotThere(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		s.stop()
		_, err := f.Assertion(t.Context())
		checkTrouble(t, err, true, nil, "unreachable (dial tcp "+s.Listener.Addr().String(), "refused")
	})
}

// TestFetcherForeignServer has what answers speak no HTTP: net/http quotes it.
func TestFetcherForeignServer(t *testing.T) {
	raw := platformToken(t, time.Now(), time.Hour)
	for name, says := range map[string]string{
		raw + "\r\n":                                                           "no HTTP",
		"HTTP/1.1 " + raw + "\r\n\r\n":                                         "no HTTP",
		"HTTP/1.1 200 OK\r\n" + raw + "\r\n\r\n":                               "no HTTP",
		"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + raw:                "no HTTP",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw + "\r\n": "no HTTP",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4<<10))
			_, _ = io.WriteString(conn, name)
			_ = conn.Close()
		}()
		f, err := mint.NewGoogle(mint.GoogleConfig{Audience: audience, Host: l.Addr().String()})
		_, err = closing(t, f, err).Assertion(t.Context())
		checkTrouble(t, err, true, []string{raw}, says)
		_ = l.Close()
		<-served
	}
}

func TestFetcherChecksTheServer(t *testing.T) {
	onTLS := func(t *testing.T, change func(*service)) (*mint.Fetcher, *mint.Fetcher) {
		s := startService(t, true)
		s.expect = func(*http.Request) bool { return false }
		change(s)
		t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", s.URL+"/")
		t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", jobToken)
		github, err := mint.NewGitHub(mint.GitHubConfig{Audience: audience})
		github = closing(t, github, err)
		byURL, err := mint.NewURL(mint.URLConfig{URL: s.URL, Audience: audience})
		return github, closing(t, byURL, err)
	}
	t.Run("unknown authority", func(t *testing.T) {
		github, byURL := onTLS(t, func(*service) {})
		for _, f := range []*mint.Fetcher{github, byURL} {
			_, err := f.Assertion(t.Context())
			checkTrouble(t, err, false, nil, "its certificate is not trusted", "certificate authority")
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		plain := startService(t, false)
		github, byURL := onTLS(t, func(s *service) { s.URL = "https://" + plain.Listener.Addr().String() })
		for _, f := range []*mint.Fetcher{github, byURL} {
			_, err := f.Assertion(t.Context())
			checkTrouble(t, err, false, nil, "it does not speak TLS")
		}
	})
}

func TestFetcherWantsModernTLS(t *testing.T) {
	s := &service{t: t, expect: func(*http.Request) bool { return false }}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	f, err := mint.NewURL(mint.URLConfig{URL: s.URL, Audience: audience, Roots: s.roots()})
	_, err = closing(t, f, err).Assertion(t.Context())
	checkTrouble(t, err, true, nil, "unreachable (remote error: tls: protocol version not supported)")
}

func TestFetcherClose(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		s.play("", hang)
		failed := make(chan error, 1)
		go func() {
			_, err := f.Assertion(context.Background())
			failed <- err
		}()
		<-s.arrived
		start := time.Now()
		for range 2 {
			if err := f.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}
		if waited := time.Since(start); waited > 5*time.Second {
			t.Errorf("Close took %v: the fetch was not ended", waited)
		}
		checkTrouble(t, <-failed, false, nil, "closed")
		_, err := f.Assertion(t.Context())
		checkTrouble(t, err, false, nil, "closed")
		soon(t, 2*time.Second, "no goroutine of the source is left", func() bool {
			return !strings.Contains(stacks(), "net/http.(*persistConn)") && !strings.Contains(stacks(), "mint.(*Fetcher)")
		})
	})
}

func TestFetcherContextDone(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		cause := errors.New("the caller left")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := f.Assertion(ctx); !errors.Is(err, cause) || s.requests() != 0 {
			t.Errorf("Assertion with a done context: %v after %d requests, want %v", err, s.requests(), cause)
		}
	})
}

func TestFetcherIsNotPrinted(t *testing.T) {
	onEach(t, 0, func(t *testing.T, f *mint.Fetcher, s *service) {
		got := mustFetch(t, f)
		if err := f.Close(); err != nil { // nothing writes what is read here
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			text := fmt.Sprintf(verb, f) + fmt.Sprintf(verb, got)
			if strings.Contains(text, jobToken) || strings.Contains(text, s.token[:40]) || strings.Contains(text, "key=k") {
				t.Errorf("%s shows a secret: %s", verb, text)
			}
		}
	})
}

// TestFetcherDamagedTokensDoNotLeak looks for parts of a token in whatever is
// said about its damage.
func TestFetcherDamagedTokensDoNotLeak(t *testing.T) {
	f, s := startGoogle(t, 0)
	good := s.token
	refused := 0
	for raw := range corrupted(good) {
		s.play(raw, nil)
		if _, err := f.Fresh(t.Context()); err != nil {
			refused++
			checkNoLeak(t, err, good)
			checkOneLine(t, err)
		}
	}
	if refused < 200 {
		t.Errorf("only %d refusals: the test has lost its teeth", refused)
	}
}

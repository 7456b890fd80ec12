package mint_test

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

func TestNewURLRefuses(t *testing.T) {
	const password = "hunter2-xyzzy-plugh"
	for _, tt := range []struct{ name, url, says string }{
		{"none", "", "not a URL"},
		{"no host", "https:///" + password, "not a URL with a host"},
		{"port alone", "https://:443/" + password, "not a URL with a host"},
		{"path", "/run/" + password, "not a URL with a host"},
		{"no URL", "https://a b/" + password, "not a URL"},
		{"http to elsewhere", "http://10.0.0.1/" + password, "neither https nor http to a loopback"},
		{"http to localhost", "http://localhost/" + password, "neither https nor http to a loopback"},
		{"http to a name", "http://localhost.example.com/" + password, "neither https nor http to a loopback"},
		{"another scheme", "file://127.0.0.1/" + password, "neither https nor http to a loopback"},
		{"user", "https://u:" + password + "@a.example/", "holds a user or a password"},
		{"fragment", "https://a.example/#" + password, "fragment"},
		{"another placeholder", "https://a.example/?x={{subject}}", "only placeholder"},
		{"placeholder with spaces", "https://a.example/?x={{ audience }}", "only placeholder"},
		{"placeholder of another case", "https://a.example/?x={{Audience}}", "only placeholder"},
		{"half a placeholder", "https://a.example/?x={{audience", "only placeholder"},
		{"the other half", "https://a.example/?x=audience}}", "only placeholder"},
		{"placeholder in the host", "https://{{audience}}/x", "not a URL"},
		{"placeholder in the scheme", "{{audience}}://a.example/x", "not a URL"},
		{"placeholder in the port", "https://a.example:{{audience}}/x", "not a URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mint.NewURL(mint.URLConfig{URL: tt.url, Audience: audience})
			if err == nil || !strings.HasPrefix(err.Error(), "mint: URLConfig.URL: ") || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("NewURL(%q): %v, want a refusal that says %q", tt.url, err, tt.says)
			}
			checkOneLine(t, err)
			checkNoLeak(t, err, password)
		})
	}
	// An audience that could be a host chooses none.
	for _, raw := range []string{"https://{{audience}}/x", "https://{{audience}}.example/x", "{{audience}}://a.example/x"} {
		if _, err := mint.NewURL(mint.URLConfig{URL: raw, Audience: "https"}); err == nil {
			t.Errorf("NewURL takes %q", raw)
		}
	}
	for _, cfg := range []mint.URLConfig{{URL: "https://a.example/"}, {URL: "https://a.example/", Audience: audience, Timeout: 1}} {
		if _, err := mint.NewURL(cfg); err == nil || !strings.HasPrefix(err.Error(), "mint: URLConfig.") {
			t.Errorf("NewURL(%+v): %v, want a refusal", cfg, err)
		}
	}
}

// plainService serves without TLS, and answers with body.
func plainService(t *testing.T, body string) *service {
	t.Helper()
	s := startService(t, false)
	s.expect = func(*http.Request) bool { return true }
	s.play("", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	return s
}

func TestURLFindsTheToken(t *testing.T) {
	raw := current(t)
	for _, tt := range []struct {
		name, field, body, says string // no says: found
	}{
		{"whole body", "", raw, ""},
		{"whole body with white space", "", "\n" + raw + "\r\n", ""},
		{"member", "access_token", `{"access_token":"` + raw + `","n":1}`, ""},
		{"inside", "data.token", `{"data":{"token":"` + raw + `"}}`, ""},
		{"body is JSON", "", `{"token":"` + raw + `"}`, "no assertion"},
		{"no JSON", "token", raw, `at "token"`},
		{"cut short", "token", `{"token":"` + raw, `at "token"`},
		{"two objects", "token", `{"token":"` + raw + `"}{}`, `at "token"`},
		{"list", "token", `["` + raw + `"]`, `at "token"`},
		{"no such member", "data.token", `{"data":{"Token":"` + raw + `"}}`, `at "data.token"`},
		{"text on the way", "data.token", `{"data":"` + raw + `"}`, `at "data.token"`},
		{"number", "token", `{"token":1}`, `at "token"`},
		{"null", "token", `{"token":null}`, "no assertion"},
		{"empty", "token", `{"token":""}`, "no assertion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := plainService(t, tt.body)
			f, err := mint.NewURL(mint.URLConfig{URL: s.URL, Field: tt.field, Audience: audience})
			got, err := closing(t, f, err).Assertion(t.Context())
			if tt.says != "" {
				checkTrouble(t, err, false, []string{raw}, "token URL", tt.says)
			} else if err != nil || !got.Value.Equal(raw) {
				t.Errorf("another token, or error %v", err)
			}
		})
	}
}

func TestURLWithoutBearer(t *testing.T) {
	s := plainService(t, current(t))
	s.want(func(r *http.Request) bool { return r.Header.Get("Authorization") == "" && r.RequestURI == "/?q" })
	f, err := mint.NewURL(mint.URLConfig{URL: s.URL + "?q", Audience: audience})
	mustFetch(t, closing(t, f, err))
}

// TestURLReadsTheBearerAnew: something else renews it.
func TestURLReadsTheBearerAnew(t *testing.T) {
	s := plainService(t, current(t))
	path := filepath.Join(t.TempDir(), "bearer")
	f, err := mint.NewURL(mint.URLConfig{URL: s.URL, BearerFile: path, Audience: audience})
	closing(t, f, err)
	_, err = f.Assertion(t.Context())
	checkTrouble(t, err, false, nil, "bearer file", path, "no such file")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want one that is %v", err, fs.ErrNotExist)
	}
	for _, bearer := range []string{"first-bearer-of-two", "second-bearer-of-two"} {
		s.want(func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+bearer })
		write(t, path, bearer+"\n")
		if _, err := f.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"empty": " \n", "two words": "Bearer " + jobToken, "two lines": jobToken + "\nX: y", "not ASCII": jobToken + "ü", "large": strings.Repeat("a", 64<<10+1),
	} {
		write(t, path, content)
		_, err := f.Fresh(t.Context())
		checkTrouble(t, err, true, nil, "bearer file", path) // it has worked
		if s.requests() != 2 {
			t.Fatalf("%s: the request was sent all the same", name)
		}
	}
}

func TestURLRefusedByItsService(t *testing.T) {
	f, s := startURL(t, 0)
	s.play("", replyWith(401, jobToken))
	_, err := f.Assertion(t.Context())
	checkTrouble(t, err, false, nil, "token URL", s.URL, "HTTP 401", "bearer")
	if strings.Contains(err.Error(), "key=k") || strings.Contains(err.Error(), "/for/") {
		t.Errorf("the error shows the URL's path or query: %v", err)
	}
	other := current(t)
	s.play(strings.Replace(other, ".", "..", 1), nil)
	_, err = f.Assertion(t.Context())
	checkTrouble(t, err, false, []string{other}, "no assertion")
}

// FuzzNewURL holds that what is taken asks the host that stands written, by a way
// that nobody can read, and that what is refused is not shown.
func FuzzNewURL(f *testing.F) {
	for _, seed := range []string{
		"https://a.example/?aud={{audience}}", "http://127.0.0.1:1/", "http://[::1]/{{audience}}", "https://{{audience}}/", "https://u:p@a/", "//a", "https://a#b",
		"http://[::ffff:127.0.0.1]/", "http://127.0.0.1.example/", "https://a/{{{{audience}}}}", "https://a/%zz", "HTTPS://A", "https://a:99999/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		fetcher, err := mint.NewURL(mint.URLConfig{URL: raw, Audience: audience})
		if err != nil {
			checkOneLine(t, err)
			return
		}
		if err := fetcher.Close(); err != nil {
			t.Error(err)
		}
		u, err := url.Parse(strings.ReplaceAll(raw, "{{audience}}", "x"))
		if err != nil || u.User != nil || u.Hostname() == "" || strings.Contains(u.Host, "{") || strings.ContainsAny(u.String(), "#\r\n") {
			t.Fatalf("NewURL takes %q (%v)", raw, err)
		}
		addr, _ := netip.ParseAddr(u.Hostname())
		if u.Scheme != "https" && (u.Scheme != "http" || !addr.Unmap().IsLoopback()) {
			t.Errorf("NewURL takes %q", raw)
		}
	})
}

// FuzzURLReply holds that no reply makes a source panic, and that what it takes
// is a token for the audience.
func FuzzURLReply(f *testing.F) {
	good := platformToken(f, time.Now(), time.Hour)
	f.Add([]byte(good), "")
	f.Add([]byte(`{"a":{"b":"`+good+`"}}`), "a.b")
	f.Add([]byte(`{"a":null}`), "a")
	f.Add([]byte(`[[[`), ".")
	body := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(<-body) }))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, reply []byte, field string) {
		fetcher, err := mint.NewURL(mint.URLConfig{URL: server.URL, Field: field, Audience: audience})
		if err != nil {
			t.Fatal(err)
		}
		body <- reply
		got, err := fetcher.Assertion(t.Context())
		switch {
		case err != nil:
			checkOneLine(t, err)
		case len(reply) > 64<<10 || !slices.Contains(got.Claims.Audience, audience) || got.Claims.Algorithm != "RS256":
			t.Errorf("taken: %v", got.Claims)
		}
		if err := fetcher.Close(); err != nil {
			t.Error(err)
		}
	})
}

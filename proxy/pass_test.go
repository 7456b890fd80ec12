package proxy_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/proxy"
)

// machine stands for the metadata service of the machine; it is stricter than
// that: whatever is not a plain GET by us is answered with 500.
type machine struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string // targets
	left  chan struct{}
	reply http.HandlerFunc
}

func startMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{left: make(chan struct{}, 8)}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.RequestURI)
		reply := m.reply
		m.mu.Unlock()
		want := http.Header{"Metadata": {"true"}, "User-Agent": {"svidecar"}, "X-Svidecar-Pass-Through": {"1"}}
		if diff := cmp.Diff(want, r.Header); diff != "" || r.Method != http.MethodGet || r.ContentLength != 0 {
			http.Error(w, r.Method+" "+diff, http.StatusInternalServerError)
			return
		}
		reply(w, r)
	}))
	t.Cleanup(m.Close)
	m.reply = func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json; charset=utf-8")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Set-Cookie", "a=b")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("Server", "IMDS")
		_, _ = io.WriteString(w, `{"location":"westeurope"}`)
	}
	return m
}

func (m *machine) answer(reply http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reply = reply
}

func (m *machine) targets() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func passing(t *testing.T, m *machine, paths ...string) *running {
	t.Helper()
	return start(t, func(cfg *proxy.Config) {
		// This machine, by an address to which net/http would go by a proxy:
		// see TestMain.
		_, port, _ := net.SplitHostPort(m.Listener.Addr().String())
		cfg.PassThrough = proxy.PassThrough{Host: "0.0.0.0:" + port, Paths: paths}
	})
}

// TestPassThroughRefuses: nothing but what a rule names gets out, and the
// machine's own tokens never, however they are asked for.
func TestPassThroughRefuses(t *testing.T) {
	m := startMachine(t)
	r := passing(t, m, "instance/compute", "scheduledevents")
	for _, tt := range []struct {
		name, target, headers string
		status                int
	}{
		{"not named", "/metadata/instance", metadata, 403},
		{"not named, beside", "/metadata/instance/network", metadata, 403},
		{"begins like a named one", "/metadata/instance/computex", metadata, 403},
		{"another top", "/metadata/attested/document", metadata, 404},
		{"root", "/scheduledevents", metadata, 404},
		{"token, no resource", "/metadata/identity/oauth2/token?api-version=2018-02-01", metadata, 400},
		{"token through a named path", "/metadata/instance/compute/../../identity/oauth2/token", metadata, 400},
		{"token, encoded dots", "/metadata/instance/compute/%2e%2e/%2e%2e/identity/oauth2/token", metadata, 400},
		{"token, encoded slash", "/metadata/instance/compute/..%2f..%2fidentity", metadata, 400},
		{"token, backslash", `/metadata/instance/compute\..\..\identity`, metadata, 400},
		{"other paths of identity", "/metadata/identity/oauth2/token/x", metadata, 404},
		{"identity", "/metadata/identity", metadata, 404},
		{"a target of its own", "http://10.0.0.1/metadata/instance/compute", metadata, 400},
		{"no Metadata", "/metadata/instance/compute", "", 400},
		{"a browser", "/metadata/instance/compute", metadata + "Origin: http://x\r\n", 400},
		{"a body", "/metadata/instance/compute", metadata + "Content-Length: 1\r\n\r\nx", 400},
		{"two readings of the query", "/metadata/instance/compute?a;b", metadata, 400},
		{"came back", "/metadata/instance/compute", metadata + "X-Svidecar-Pass-Through: 1\r\n", 400},
		{"came back, for a token", imdsTarget, metadata + "x-svidecar-pass-through:\r\n", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := get(t, r, tt.target, tt.headers); got.StatusCode != tt.status {
				t.Errorf("got %d %s, want %d", got.StatusCode, got.body, tt.status)
			}
		})
	}
	if asked := m.targets(); len(asked) > 0 {
		t.Errorf("refused requests got out: %q", asked)
	}
}

func TestPassThrough(t *testing.T) {
	m := startMachine(t)
	r := passing(t, m, "instance/compute", "scheduledevents")
	for target, want := range map[string]string{
		"/metadata/instance/compute?api-version=2021-02-01":                    "/metadata/instance/compute?api-version=2021-02-01",
		"//metadata/Instance/compute/vmId/?format=text&api-version=2021-02-01": "/metadata/Instance/compute/vmId?format=text&api-version=2021-02-01",
		"/metadata/scheduledevents?api-version=2020-07-01":                     "/metadata/scheduledevents?api-version=2020-07-01",
	} {
		got := get(t, r, target, metadata+identity+"Cookie: a=b\r\nConnection: x-hop\r\nX-Hop: 1\r\nAuthorization: Bearer x\r\nTE: trailers\r\n")
		if got.StatusCode != 200 || got.body != `{"location":"westeurope"}` {
			t.Fatalf("%s: %d %s", target, got.StatusCode, got.body)
		}
		if asked := m.targets(); asked[len(asked)-1] != want {
			t.Errorf("%s was passed on as %q, want %q", target, asked[len(asked)-1], want)
		}
		for _, name := range []string{"Keep-Alive", "Set-Cookie", "Proxy-Authenticate", "Server"} {
			if got.Header.Get(name) != "" {
				t.Errorf("%s: %s came through", target, name)
			}
		}
		if got.Header.Get("Content-Type") != "application/json; charset=utf-8" || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", target, got.Header)
		}
	}
	m.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if got := get(t, r, "/metadata/scheduledevents", metadata); got.StatusCode != 429 || got.Header.Get("Retry-After") != "3" {
		t.Errorf("a refusal of the machine's: %d %v", got.StatusCode, got.Header)
	}
	if keys := r.tokens.asked(); len(keys) > 0 {
		t.Errorf("the pass-through asked for tokens: %v", keys)
	}
}

// TestPassThroughIsBounded: a metadata service that misbehaves costs the app an
// error, not svidecar its memory or its time.
func TestPassThroughIsBounded(t *testing.T) {
	m := startMachine(t)
	r := passing(t, m, "instance")
	for name, tt := range map[string]struct {
		reply http.HandlerFunc
		says  string
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/metadata/identity/oauth2/token", http.StatusFound)
		}, "redirects"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for range 32 {
				_, _ = w.Write(make([]byte, 64<<10))
			}
		}, "larger than 1 MiB"},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") }, "compresses"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			panic(http.ErrAbortHandler)
		}, "connection failed"},
		"large headers": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 128<<10)) }, "connection failed"},
	} {
		t.Run(name, func(t *testing.T) {
			m.answer(tt.reply)
			got := get(t, r, "/metadata/instance", metadata)
			if got.StatusCode != 503 || got.Header.Get("Retry-After") == "" || !strings.Contains(got.body, tt.says) {
				t.Errorf("got %d %v %.200s, want 503 that says %q", got.StatusCode, got.Header, got.body, tt.says)
			}
		})
	}
	for _, target := range m.targets() {
		if strings.Contains(target, "identity") {
			t.Errorf("a redirect was followed to %s", target)
		}
	}
}

// TestPassThroughHangs: 5 s, and less if the client leaves.
func TestPassThroughHangs(t *testing.T) {
	m := startMachine(t)
	m.answer(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		m.left <- struct{}{}
	})
	r := passing(t, m, "instance")
	conn := dial(t, r.addr)
	if _, err := io.WriteString(conn, "GET /metadata/instance HTTP/1.1\r\nHost: 127.0.0.1\r\n"+metadata+"\r\n"); err != nil {
		t.Fatal(err)
	}
	for i := 0; len(m.targets()) == 0; i++ {
		if <-time.After(time.Millisecond); i > 5000 {
			t.Fatal("the request was not passed on")
		}
	}
	began := time.Now()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-m.left
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a client left, and the request went on for %v", took)
	}
	began = time.Now()
	got := get(t, r, "/metadata/instance", metadata)
	if took := time.Since(began); got.StatusCode != 503 || !strings.Contains(got.body, "longer than 5 s") || took < 4*time.Second || took > 9*time.Second {
		t.Errorf("after %v: %d %s, want 503 after 5 s", took, got.StatusCode, got.body)
	}
}

// TestPassThroughComesBack: where 169.254.169.254 leads to svidecar itself, a
// request goes round once.
func TestPassThroughComesBack(t *testing.T) {
	self := listen(t)
	defer self.Close()
	r := start(t, func(cfg *proxy.Config) {
		cfg.PassThrough = proxy.PassThrough{Host: self.Addr().String(), Paths: []string{"instance"}}
	})
	go relay(self, r.addr)
	if got := get(t, r, "/metadata/instance", metadata); got.StatusCode != 400 || !strings.Contains(got.body, "leads to svidecar itself") {
		t.Errorf("got %d %s, want 400 that says so", got.StatusCode, got.body)
	}
}

// relay is a redirection: it leads connections to addr.
func relay(l net.Listener, addr string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", addr)
		if err != nil {
			_ = in.Close()
			return
		}
		go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
	}
}

func TestPassThroughConfigRefuses(t *testing.T) {
	for _, path := range []string{"", "/", "instance/", "/instance", "identity", "identity/oauth2/token", "versions", "Instance", "a/../identity", "a%2fb", "*", "instance//compute", "{x}"} {
		cfg := proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet(), PassThrough: proxy.PassThrough{Paths: []string{path}}}
		if _, err := proxy.New(cfg); err == nil {
			t.Errorf("New takes the path %q", path)
		}
	}
}

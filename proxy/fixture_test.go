package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

const (
	tenant     = "5d0e7a8c-1b6f-4c3e-9a2d-7f4b8c6e1a30"
	first      = "11111111-2222-4333-8444-555555555555"
	second     = "66666666-7777-4888-9999-aaaaaaaaaaaa"
	objectID   = "bbbbbbbb-7777-4888-9999-aaaaaaaaaaaa"
	resourceID = "/subscriptions/0/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Second"
	header     = "the-shared-secret-of-app-service"
	imdsTarget = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
	msiTarget  = "/msi/token?api-version=2019-08-01&resource=https://vault.azure.net"
	metadata   = "Metadata: true\r\n"
	identity   = "X-IDENTITY-HEADER: " + header + "\r\n"
	bearer     = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eCJ9.c2lnbmF0dXJl"
)

// fakeTokens stands for the exchange and remembers which keys it was asked for.
type fakeTokens struct {
	mu   sync.Mutex
	keys []exchange.Key
	// unwanted are the digests that Refresh was asked with.
	unwanted []string
	err      error
	hold     chan struct{} // if set, Token waits for it
	boom     bool
	// arrived, if set, is told of each call; it must have room.
	arrived chan struct{}
}

func (f *fakeTokens) Token(ctx context.Context, key exchange.Key) (exchange.Token, error) {
	f.mu.Lock()
	f.keys = append(f.keys, key)
	err, hold, boom := f.err, f.hold, f.boom
	f.mu.Unlock()
	if f.arrived != nil {
		f.arrived <- struct{}{}
	}
	if boom {
		panic("boom")
	}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return exchange.Token{}, context.Cause(ctx)
		}
	}
	return exchange.NewToken(secret.New(bearer), time.Now(), time.Hour, 0), err
}

func (f *fakeTokens) Refresh(ctx context.Context, key exchange.Key, unwanted string) (exchange.Token, error) {
	f.mu.Lock()
	f.unwanted = append(f.unwanted, unwanted)
	f.mu.Unlock()
	return f.Token(ctx, key)
}

func (f *fakeTokens) Stats() exchange.Stats {
	return exchange.Stats{Hits: 42, Identities: []exchange.IdentityStats{
		{Tenant: tenant, ClientID: first, LastSuccess: time.Unix(1795399508, 0), Autonomy: 90 * time.Second, InUse: 2},
		{Tenant: tenant, ClientID: second, LastSuccess: time.Unix(1795399508, 0)},
		{Tenant: tenant, ClientID: "made-up-by-a-client"},
	}}
}

func (f *fakeTokens) asked() []exchange.Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys
}

// logBuffer is a log that a test can read while the server writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// lines are the log's records of requests.
func (l *logBuffer) lines(t *testing.T) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(l.String()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if record["msg"] == "request" {
			out = append(out, record)
		}
	}
	return out
}

func policy(t *testing.T, cfg proxy.PolicyConfig) *proxy.Policy {
	t.Helper()
	p, err := proxy.NewPolicy(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// twoIdentities is a list of two, the first the default.
func twoIdentities() proxy.PolicyConfig {
	return proxy.PolicyConfig{Identities: []proxy.Identity{
		{ClientID: first, Tenant: tenant},
		{ClientID: second, Tenant: tenant, ObjectID: objectID, ResourceID: resourceID, Resources: []string{"https://vault.azure.net", "https://storage.azure.com/"}},
	}}
}

// running is a server on real sockets.
type running struct {
	addr, ops string
	fabric    string          // HTTPS
	arc       string          // if it is switched on
	cert      tls.Certificate // of fabric
	tokens    *fakeTokens
	log       *logBuffer
	stop      func()     // begins the shutdown
	ended     chan error // what Run returned
}

func start(t *testing.T, change func(*proxy.Config)) *running {
	t.Helper()
	r := &running{tokens: &fakeTokens{}, log: &logBuffer{}, ended: make(chan error, 1)}
	cfg := proxy.Config{
		Tokens:         r.tokens,
		Policy:         policy(t, twoIdentities()),
		IdentityHeader: secret.New(header),
		AllowedHosts:   []string{"Sidecar.Example", "[fd00::1]", "[fd00::2]:81"},
		Logger:         slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tokens, ops := listen(t), listen(t)
	own := r.own(t, cfg.Protocols)
	r.addr, r.ops = tokens.Addr().String(), ops.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- s.Run(ctx, tokens, ops, own...)
	}()
	t.Cleanup(func() { stop(); <-done })
	return r
}

// own makes the listeners of protocols that have one.
func (r *running) own(t *testing.T, protocols []imds.Protocol) (own []proxy.Endpoint) {
	t.Helper()
	for _, p := range protocols {
		switch p {
		case imds.ServiceFabric:
			var err error
			if r.cert, err = proxy.NewCertificate(); err != nil {
				t.Fatal(err)
			}
			own = append(own, proxy.Endpoint{Protocol: p, Listener: listen(t), Certificate: &r.cert})
			r.fabric = own[len(own)-1].Listener.Addr().String()
		case imds.Arc:
			own = append(own, proxy.Endpoint{Protocol: p, Listener: listen(t)})
			r.arc = own[len(own)-1].Listener.Addr().String()
		}
	}
	return own
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// reply is a response as it was on the wire.
type reply struct {
	*http.Response
	body string
}

// raw sends bytes as they are and reads one response.
func raw(t *testing.T, addr, request string) reply {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, string(body)}
}

// get sends a GET for target with a good Host and the header lines given.
func get(t *testing.T, r *running, target, headers string) reply {
	t.Helper()
	return raw(t, r.addr, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+headers+"\r\n")
}

func (r reply) field(t *testing.T, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(r.body), &fields); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	value, _ := fields[name].(string)
	return value
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

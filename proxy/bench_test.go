package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

const benchRequest = "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254\r\nUser-Agent: bench\r\nAccept: */*\r\n" + metadata + "\r\n"

// benchServer is a server over a real cache, at the default log level, whose
// token is as long as Entra's.
func benchServer(b *testing.B) *proxy.Server {
	b.Helper()
	source, err := exchange.New(exchange.Config{Redeem: func(context.Context, exchange.Key) (exchange.Token, error) {
		return exchange.NewToken(secret.New(strings.Repeat("a", 1500)), time.Now(), 24*time.Hour, 0), nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(source.Close)
	policy, err := proxy.NewPolicy(twoIdentities())
	if err != nil {
		b.Fatal(err)
	}
	s, err := proxy.New(proxy.Config{Tokens: source, Policy: policy, Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkHandler is the cost of our own code for one cached request: no
// sockets, no net/http server.
func BenchmarkHandler(b *testing.B) {
	h := benchServer(b).Handler()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(benchRequest)))
	if err != nil {
		b.Fatal(err)
	}
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
	if w.status != http.StatusOK {
		b.Errorf("status %d, want 200", w.status)
	}
}

// sink is a ResponseWriter that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkCached measures cached requests over loopback sockets against the
// floor: a bare net/http handler that writes the same reply. The two take turns,
// so that what else the machine does hits both. Time and allocations per
// operation are those of svidecar, the client's (which allocates nothing)
// included; x-floor is the ratio of times.
func BenchmarkCached(b *testing.B) {
	s := benchServer(b)
	ours, ctx := listenB(b), b.Context()
	ops := listenB(b)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ours, ops) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	floor := startFloor(b, s.Handler())
	for _, conns := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			mine, theirs := dialAll(b, ours.Addr(), conns), dialAll(b, floor, conns)
			turns(b, mine, theirs)
		})
	}
}

// turns sends b.N requests to each side, a few at a time.
func turns(b *testing.B, mine, theirs []*benchClient) {
	const turn = 2000
	var atFloor time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= turn {
		n := min(left, turn)
		share(b, mine, n)
		b.StopTimer()
		start := time.Now()
		share(b, theirs, n)
		atFloor += time.Since(start)
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(b.Elapsed().Seconds()/atFloor.Seconds(), "x-floor")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// share lets the clients send n requests between them.
func share(b *testing.B, clients []*benchClient, n int) {
	var running sync.WaitGroup
	for i, c := range clients {
		running.Go(func() {
			for j := i; j < n; j += len(clients) {
				if err := c.ask(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
}

// startFloor serves, from memory, what h answers.
func startFloor(b *testing.B, h http.Handler) net.Addr {
	b.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(benchRequest)))
	if err != nil {
		b.Fatal(err)
	}
	recorded := httptest.NewRecorder()
	h.ServeHTTP(recorded, r)
	body, header := recorded.Body.Bytes(), recorded.Header()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name := range header {
			w.Header().Set(name, header.Get(name))
		}
		_, _ = w.Write(body)
	})}
	l := listenB(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	b.Cleanup(func() { _ = server.Close(); <-done })
	return l.Addr()
}

func listenB(b *testing.B) net.Listener {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchClient speaks just enough HTTP to cost little, and the same to both sides.
type benchClient struct {
	conn    net.Conn
	request []byte
	reply   []byte
}

func dialAll(b *testing.B, addr net.Addr, n int) []*benchClient {
	b.Helper()
	clients := make([]*benchClient, n)
	for i := range clients {
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		clients[i] = &benchClient{conn, []byte(benchRequest), make([]byte, 8<<10)}
		if err := clients[i].ask(); err != nil { // also fills the cache
			b.Fatal(err)
		}
	}
	return clients
}

// ask sends the request and reads its whole reply, which must be a 200.
func (c *benchClient) ask() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	for have, want := 0, -1; want < 0 || have < want; {
		n, err := c.conn.Read(c.reply[have:])
		if err != nil {
			return err
		}
		if have += n; want < 0 {
			if want, err = replyLength(c.reply[:have]); err != nil {
				return err
			}
		}
	}
	return nil
}

// replyLength is the length of a reply whose header is complete, else -1.
func replyLength(b []byte) (int, error) {
	header, _, whole := bytes.Cut(b, []byte("\r\n\r\n"))
	if !whole {
		return -1, nil
	}
	_, rest, _ := bytes.Cut(header, []byte("\r\nContent-Length: "))
	digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
	length, err := strconv.Atoi(string(digits))
	if err != nil || !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("not a token: %q", b)
	}
	return len(header) + len("\r\n\r\n") + length, nil
}

package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/proxy"
)

// from is a connection whose peer has another address.
type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

// probe asks for health from an address, and leaves the connection open.
func (p *pipes) probe(t *testing.T, ip string) (net.Conn, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = ours.Close() })
	select {
	case p.conns <- from{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}}:
	case <-time.After(time.Second): // what probes wait
		return ours, os.ErrDeadlineExceeded
	}
	if err := ours.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return ours, err // it was closed at once
	}
	if _, err := io.WriteString(ours, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return ours, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		return ours, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return ours, err
	}
	return ours, ours.SetDeadline(time.Time{})
}

// withOps runs a server of which only health and metrics are asked.
func withOps(t *testing.T, do func(t *testing.T, ops *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := proxy.New(proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ops, ended := newPipes(), make(chan error, 1)
		go func() { ended <- s.Run(ctx, newPipes(), ops) }()
		do(t, ops)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestOpsPlacesAreShared: no other machine, by however many connections or
// addresses, keeps probes of others from being answered.
func TestOpsPlacesAreShared(t *testing.T) {
	for _, tt := range []struct {
		name, taker string // a format
		held        int    // of 100 connections
		probes      []string
	}{
		{"one address", "203.0.113.9", 16, []string{"203.0.113.10", "2001:db8::1", "127.0.0.1", "::1"}},
		{"one address, mapped", "::ffff:203.0.113.9", 16, []string{"203.0.113.10", "::ffff:127.0.0.1"}},
		{"one network", "2001:db8::%x", 16, []string{"2001:db8:0:1::1", "203.0.113.10", "127.0.0.1"}},
		{"many addresses", "203.0.113.%d", 48, []string{"127.0.0.1", "::1"}},
		{"this machine", "127.0.0.%d", 16, []string{"203.0.113.10"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withOps(t, func(t *testing.T, ops *pipes) {
				held := 0
				for i := range 100 {
					ip := tt.taker
					if tt.taker[len(tt.taker)-2] == '%' {
						ip = fmt.Sprintf(tt.taker, i+100)
					}
					if _, err := ops.probe(t, ip); err == nil {
						held++
					} else if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("connection %d waits", i)
					}
				}
				if held != tt.held {
					t.Errorf("%d connections are held, want %d", held, tt.held)
				}
				for _, ip := range tt.probes {
					if _, err := ops.probe(t, ip); err != nil {
						t.Errorf("a probe from %s: %v", ip, err)
					}
				}
			})
		})
	}
}

// TestOpsConnectionsEndSoon: an idle one gives its place back after 5 s.
func TestOpsConnectionsEndSoon(t *testing.T) {
	withOps(t, func(t *testing.T, ops *pipes) {
		var conns []net.Conn
		for range 16 {
			conn, err := ops.probe(t, "203.0.113.9")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		began := time.Now()
		for _, conn := range conns {
			if _, err := io.ReadAll(conn); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("idle connections ended after %v", took)
		}
		synctest.Wait()
		if _, err := ops.probe(t, "203.0.113.9"); err != nil {
			t.Errorf("once they ended: %v", err)
		}
	})
}

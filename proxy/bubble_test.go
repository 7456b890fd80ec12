package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/proxy"
)

// pipes is a listener inside a bubble, where there are no sockets.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// ask sends one request and reads its reply.
func (p *pipes) ask(t *testing.T, request string) *http.Response {
	t.Helper()
	ours, theirs := net.Pipe()
	p.conns <- theirs
	defer ours.Close()
	if _, err := io.WriteString(ours, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

// serveArc runs a server of Arc's protocol in a bubble, with its keys in dir, until
// stop is called.
func serveArc(t *testing.T, dir string) (arc *pipes, stop func()) {
	t.Helper()
	s, err := proxy.New(proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet(), Protocols: []imds.Protocol{imds.Arc}, ArcTokensDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	arc, ended := newPipes(), make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, newPipes(), newPipes(), proxy.Endpoint{Protocol: imds.Arc, Listener: arc})
	}()
	return arc, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

const arcRequest = "GET " + imdsTarget + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + metadata

// challenge returns the path of a key.
func (p *pipes) challenge(t *testing.T) string {
	t.Helper()
	path, ok := strings.CutPrefix(p.ask(t, arcRequest+"\r\n").Header.Get("WWW-Authenticate"), "Basic realm=")
	if !ok {
		t.Fatal("no key")
	}
	return path
}

// TestArcKeysExpire: a key that nobody uses is gone after 20 s, from the
// directory too, and there is room for another.
func TestArcKeysExpire(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		arc, stop := serveArc(t, dir)
		defer stop()
		path := arc.challenge(t)
		time.Sleep(19 * time.Second)
		key, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("after 19 s: %v", err)
		}
		time.Sleep(2 * time.Second)
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("after 21 s: %v, %v", left, err)
		}
		if got := arc.ask(t, arcRequest+"Authorization: Basic "+string(key)+"\r\n\r\n"); got.StatusCode != 401 {
			t.Errorf("a key of 21 s ago: %d, want 401", got.StatusCode)
		}
	})
}

// TestArcKeysGivenAgain: of the 128 keys at once, one with less than 5 s left is given
// again only if there is no other: a client could come too late with it.
func TestArcKeysGivenAgain(t *testing.T) {
	for _, tt := range []struct {
		name       string
		old, young int // keys, 14 s apart
		wantOld    bool
	}{
		{"some have time", 120, 8, false},
		{"none has", 128, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				arc, stop := serveArc(t, dir)
				defer stop()
				old := map[string]bool{}
				for range tt.old {
					old[arc.challenge(t)] = true
				}
				time.Sleep(14 * time.Second)
				for range tt.young {
					arc.challenge(t)
				}
				time.Sleep(2 * time.Second) // the old ones have 4 s left
				for range 24 {              // so that the young ones have been given more often
					if path := arc.challenge(t); old[path] != tt.wantOld {
						t.Fatalf("%s is given again; is it old: %v, want %v", path, old[path], tt.wantOld)
					}
				}
			})
		})
	}
}

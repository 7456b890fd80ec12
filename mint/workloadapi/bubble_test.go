//go:build unix

package workloadapi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint/workloadapi"
)

// pipes is a listener in memory, for bubbles.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "bubble"} }

func (p *pipes) dial(context.Context, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// bubble serves inside a synctest bubble until the test ends.
func bubble(t *testing.T, server *workloadapi.Server) (workload.SpiffeWorkloadAPIClient, *pipes) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return raw(t, "passthrough:///bubble", grpc.WithContextDialer(l.dial)), l
}

func TestTokenIsRenewedAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		c, _ := bubble(t, newServer(t, iss.config()))
		for _, tt := range []struct {
			sleep time.Duration
			want  int32
		}{{0, 1}, {149 * time.Second, 1}, {2 * time.Second, 2}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(tt.sleep)
			mustFetch(t, c, audience)
			if n := iss.mints.Load(); n != tt.want {
				t.Errorf("after %v more: %d mintings, want %d", tt.sleep, n, tt.want)
			}
		}
	})
}

// TestHeldTokenServesToItsEnd while the signer fails, and no longer.
func TestHeldTokenServesToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		c, _ := bubble(t, newServer(t, iss.config()))
		old := mustFetch(t, c, audience)
		iss.set(func(i *issuer) {
			i.play = func(context.Context, spiffeid.ID, string) (secret.Value, error) { return secret.Value{}, errSigner }
		})
		time.Sleep(289 * time.Second)
		if got, err := fetch(t, c, audience); err != nil || got != old {
			t.Errorf("with 11 s left: another token, or error %v", err)
		}
		if told := iss.told(); !strings.Contains(told, errSigner.Error()) {
			t.Errorf("nobody is told that it cannot be renewed: %q", told)
		}
		time.Sleep(2 * time.Second)
		if _, err := fetch(t, c, audience); err == nil {
			t.Error("with 9 s left it is still handed out")
		}
	})
}

// TestHangingSignerIsBounded: the old token after a second, and no token at all
// after ten.
func TestHangingSignerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		c, _ := bubble(t, newServer(t, iss.config()))
		old := mustFetch(t, c, audience)
		iss.set(func(i *issuer) {
			i.play = func(ctx context.Context, _ spiffeid.ID, _ string) (secret.Value, error) {
				<-ctx.Done()
				return secret.Value{}, ctx.Err()
			}
		})
		time.Sleep(200 * time.Second)
		begin := time.Now()
		if got, err := fetch(t, c, audience); err != nil || got != old || time.Since(begin) != time.Second {
			t.Errorf("past half-life: after %v another token, or error %v", time.Since(begin), err)
		}
		time.Sleep(20 * time.Second)
		begin = time.Now()
		if _, err := fetch(t, c, "another"); err == nil || time.Since(begin) != 10*time.Second {
			t.Errorf("without a token: after %v error %v", time.Since(begin), err)
		}
	})
}

func TestCallersShareOneMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		wait := make(chan struct{})
		iss.play = func(ctx context.Context, id spiffeid.ID, audience string) (secret.Value, error) {
			<-wait
			return iss.sign(ctx, id, audience)
		}
		c, _ := bubble(t, newServer(t, iss.config()))
		var callers sync.WaitGroup
		tokens := make([]string, 50)
		for i := range tokens {
			callers.Go(func() { tokens[i], _ = fetch(t, c, audience) })
		}
		synctest.Wait() // all of them are waiting
		close(wait)
		callers.Wait()
		for _, token := range tokens {
			if token == "" || token != tokens[0] {
				t.Fatal("callers got different tokens, or none")
			}
		}
		if n := iss.mints.Load(); n != 1 {
			t.Errorf("%d mintings, want 1", n)
		}
	})
}

// TestServeWaitsForMinting that outlives its caller, and takes its time to end.
func TestServeWaitsForMinting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		ended := false
		iss.play = func(ctx context.Context, _ spiffeid.ID, _ string) (secret.Value, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended = true
			return secret.Value{}, ctx.Err()
		}
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		go func() {
			ctx, leave := context.WithTimeout(withHeader(t.Context()), time.Second)
			defer leave()
			_, _ = raw(t, "passthrough:///bubble", grpc.WithContextDialer(l.dial)).FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{audience}})
		}()
		if err := newServer(t, iss.config()).Serve(ctx, l); err != nil || !ended {
			t.Errorf("Serve returned while something was being minted, error %v", err)
		}
	})
}

// TestMintingIsBounded has a hundred audiences at once.
func TestMintingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		now, most := 0, 0
		iss.play = func(ctx context.Context, id spiffeid.ID, audience string) (secret.Value, error) {
			iss.set(func(*issuer) { now++; most = max(most, now) })
			time.Sleep(100 * time.Millisecond)
			iss.set(func(*issuer) { now-- })
			return iss.sign(ctx, id, audience)
		}
		c, _ := bubble(t, newServer(t, iss.config()))
		var callers sync.WaitGroup
		for i := range 60 {
			callers.Go(func() {
				if _, err := fetch(t, c, string(rune('A'+i))); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if most != 8 {
			t.Errorf("%d mintings at once, want 8", most)
		}
	})
}

// TestTokenFromTheFutureIsNotHeld is what a clock set back makes.
func TestTokenFromTheFutureIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := newIssuer(t)
		iss.play = func(context.Context, spiffeid.ID, string) (secret.Value, error) {
			return secret.New(forge(t, 0, nil, claims(time.Now().Add(30*time.Second)))), nil
		}
		c, _ := bubble(t, newServer(t, iss.config()))
		if _, err := fetch(t, c, audience); err == nil {
			t.Error("a token that is not valid yet is handed out")
		}
	})
}

// TestSilentClientsAreDropped: one that never says anything, one that never calls,
// and one that no longer answers.
func TestSilentClientsAreDropped(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		after      time.Duration
	}{
		{"says nothing", "", 5 * time.Second},
		{"answers no ping", preface, 70 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, l := bubble(t, newServer(t, newIssuer(t).config()))
				c, err := l.dial(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				begin := time.Now()
				go func() { _, _ = c.Write([]byte(tt.says)) }()
				if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, io.EOF) {
					t.Logf("closed by %v", err)
				}
				if took := time.Since(begin); took > tt.after+time.Second {
					t.Errorf("dropped after %v, want %v", took, tt.after)
				}
			})
		})
	}
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := newIssuer(t).config()
		cfg.MaxStreams = 2
		c, _ := bubble(t, newServer(t, cfg))
		for range 2 {
			kids(t, watch(t, c), "spiffe://example.org")
		}
		ctx, cancel := context.WithTimeout(withHeader(t.Context()), time.Minute)
		defer cancel()
		if err := first(c.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{})); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a third stream: %v, want it to wait", err)
		}
	})
}

// TestIdleConnectionsAreClosed with a client that answers pings.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dialled := 0
		server := newServer(t, newIssuer(t).config())
		_, l := bubble(t, server)
		c := raw(t, "passthrough:///bubble", grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialled++
			return l.dial(ctx, address)
		}))
		mustFetch(t, c, audience)
		time.Sleep(4 * time.Minute)
		mustFetch(t, c, audience)
		if dialled != 1 {
			t.Errorf("after 4 minutes dialled %d times, want 1", dialled)
		}
		time.Sleep(6 * time.Minute)
		mustFetch(t, c, audience)
		if dialled != 2 {
			t.Errorf("after 6 more minutes dialled %d times, want 2", dialled)
		}
	})
}

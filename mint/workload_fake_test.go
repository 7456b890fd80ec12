package mint_test

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// agent is a fake Workload API on a real socket. It is stricter than SPIRE: it
// serves one audience at a time, and no request without the security header.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	t       testing.TB
	address string
	kill    func() // ends all connections, and removes the socket

	mu      sync.Mutex
	script  script
	fetches int
	arrived chan struct{} // gets a value for each fetch, if there is room
}

// script says what the agent answers. The zero value issues one good SVID.
type script struct {
	fail    error
	hang    <-chan struct{}     // until closed, or the call ends
	entries []*workload.JWTSVID // nil means a new one of an hour for subject
	loose   bool                // answers with all entries, whatever the subject asked for
	bundles map[string][]byte
}

func startAgent(t testing.TB) *agent {
	t.Helper()
	if runtime.GOOS == "windows" {
		return startAgentAt(t, "tcp://127.0.0.1:0")
	}
	dir, err := os.MkdirTemp("", "wl") // t.TempDir is too long for some systems' sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return startAgentAt(t, "unix://"+filepath.Join(dir, "agent.sock"))
}

func startAgentAt(t testing.TB, address string) *agent {
	t.Helper()
	a := &agent{t: t, address: address, arrived: make(chan struct{}, 1000)}
	a.start()
	t.Cleanup(func() { a.kill() })
	return a
}

// start serves at the address, again after kill.
func (a *agent) start() {
	a.t.Helper()
	network, address := a.address[:4], a.address[len("unix://"):]
	if network == "tcp:" {
		network, address = "tcp", a.address[len("tcp://"):]
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		a.t.Fatal(err)
	}
	if network == "tcp" {
		a.address = "tcp://" + listener.Addr().String()
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener)
	}()
	a.kill = func() {
		server.Stop()
		_ = listener.Close() // if Stop came before Serve
		<-ended
	}
}

func (a *agent) play(s script) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = s
}

func (a *agent) calls() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fetches
}

func (a *agent) FetchJWTSVID(ctx context.Context, request *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	a.mu.Lock()
	a.fetches++
	s := a.script
	a.mu.Unlock()
	select {
	case a.arrived <- struct{}{}:
	default:
	}
	if err := secured(ctx); err != nil {
		return nil, err
	}
	if len(request.GetAudience()) != 1 || request.GetAudience()[0] == "" {
		return nil, status.Errorf(codes.InvalidArgument, "%d audiences", len(request.GetAudience()))
	}
	if id := request.GetSpiffeId(); id != "" {
		if _, err := spiffeid.FromString(id); err != nil {
			return nil, status.Error(codes.InvalidArgument, "invalid requested SPIFFE ID")
		}
	}
	if s.hang != nil {
		select {
		case <-s.hang:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return a.answer(request, s)
}

func (a *agent) answer(request *workload.JWTSVIDRequest, s script) (*workload.JWTSVIDResponse, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	if s.entries == nil {
		s.entries = []*workload.JWTSVID{entry(subject, "", svid(a.t, time.Now(), time.Hour))}
	}
	if id := request.GetSpiffeId(); id != "" && !s.loose {
		s.entries = slices.DeleteFunc(slices.Clone(s.entries), func(e *workload.JWTSVID) bool { return e.GetSpiffeId() != id })
		if len(s.entries) == 0 {
			return nil, status.Error(codes.PermissionDenied, "no identity issued")
		}
	}
	return &workload.JWTSVIDResponse{Svids: s.entries}, nil
}

func (a *agent) FetchJWTBundles(_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse]) error {
	if err := secured(stream.Context()); err != nil {
		return err
	}
	a.mu.Lock()
	s := a.script
	a.mu.Unlock()
	if s.bundles == nil {
		return status.Error(codes.PermissionDenied, "no identity issued")
	}
	if err := stream.Send(&workload.JWTBundlesResponse{Bundles: s.bundles}); err != nil {
		return err
	}
	<-stream.Context().Done() // the stream stays open for changes
	return nil
}

// secured is section 3 of the Workload API's endpoint specification: the header
// keeps a browser or a proxy from being made to ask.
func secured(ctx context.Context) error {
	header, _ := metadata.FromIncomingContext(ctx)
	if !slices.Equal(header.Get("workload.spiffe.io"), []string{"true"}) {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	return nil
}

func entry(id, hint, raw string) *workload.JWTSVID {
	return &workload.JWTSVID{SpiffeId: id, Hint: hint, Svid: raw}
}

// svid is a good JWT-SVID of subject.
func svid(t testing.TB, issued time.Time, life time.Duration) string {
	t.Helper()
	return forge(t, goodHeader, payload(issued, issued.Add(life)))
}

// only is a script that answers with one entry of subject.
func only(raw string) script {
	return script{entries: []*workload.JWTSVID{entry(subject, "", raw)}}
}

// bundle is the SPIFFE bundle document of a trust domain with one key.
func bundle(t testing.TB, domain, kid string, key crypto.PublicKey) map[string][]byte {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString(domain)
	data, err := jwtbundle.FromJWTAuthorities(td, map[string]crypto.PublicKey{kid: key}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{fmt.Sprintf("spiffe://%s", domain): data}
}

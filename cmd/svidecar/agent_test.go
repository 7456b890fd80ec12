package main

import (
	"context"
	"net"
	"slices"
	"sync/atomic"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/svidecar/svidecar/mint"
)

// agent is a Workload API that issues what the emulation's own source signs.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	source *mint.Local
	denies atomic.Bool
	stop   func()
}

// FetchJWTSVID implements the SPIFFE Workload API.
func (a *agent) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if md, _ := metadata.FromIncomingContext(ctx); !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return nil, status.Error(codes.InvalidArgument, "security header missing")
	}
	if a.denies.Load() {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	assertion, err := a.source.Assertion(ctx)
	if err != nil || !slices.Equal(req.Audience, assertion.Claims.Audience) {
		return nil, status.Errorf(codes.InvalidArgument, "audience %q: %v", req.Audience, err)
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: assertion.Claims.Subject, Svid: assertion.Value.Reveal()}}}, nil
}

// agent [denying | away]
//
// starts a Workload API until the end of the script, which finds it by
// $SPIFFE_ENDPOINT_SOCKET; entra comes first. Later it changes what that does:
// away is for good.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	shared := ts.Value("emulation").(*emulationOf)
	if neg || shared.source == nil {
		ts.Fatalf("usage: entra, then agent [denying | away]")
	}
	if shared.agent == nil {
		shared.agent = startAgent(ts, shared.source)
	}
	shared.agent.denies.Store(slices.Equal(args, []string{"denying"}))
	if slices.Equal(args, []string{"away"}) {
		shared.agent.stop()
	}
}

func startAgent(ts *testscript.TestScript, source *mint.Local) *agent {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	a := &agent{source: source}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	a.stop = func() { server.Stop(); <-done }
	ts.Defer(a.stop)
	ts.Setenv("SPIFFE_ENDPOINT_SOCKET", "tcp://"+l.Addr().String())
	return a
}

package main

import (
	"context"
	"net"
	"slices"

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
	denies bool
}

// FetchJWTSVID implements the SPIFFE Workload API.
func (a *agent) FetchJWTSVID(ctx context.Context, req *workload.JWTSVIDRequest) (*workload.JWTSVIDResponse, error) {
	if md, _ := metadata.FromIncomingContext(ctx); !slices.Equal(md.Get("workload.spiffe.io"), []string{"true"}) {
		return nil, status.Error(codes.InvalidArgument, "security header missing")
	}
	if a.denies {
		return nil, status.Error(codes.PermissionDenied, "no identity issued")
	}
	assertion, err := a.source.Assertion(ctx)
	if err != nil || !slices.Equal(req.Audience, assertion.Claims.Audience) {
		return nil, status.Errorf(codes.InvalidArgument, "audience %q: %v", req.Audience, err)
	}
	return &workload.JWTSVIDResponse{Svids: []*workload.JWTSVID{{SpiffeId: assertion.Claims.Subject, Svid: assertion.Value.Reveal()}}}, nil
}

// agent [denying]
//
// starts a Workload API until the end of the script, which finds it by
// $SPIFFE_ENDPOINT_SOCKET; entra comes first.
func cmdAgent(ts *testscript.TestScript, neg bool, args []string) {
	source := ts.Value("emulation").(*emulationOf).source
	if neg || source == nil {
		ts.Fatalf("usage: entra, then agent [denying]")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, &agent{source: source, denies: slices.Equal(args, []string{"denying"})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	ts.Defer(func() { server.Stop(); <-done })
	ts.Setenv("SPIFFE_ENDPOINT_SOCKET", "tcp://"+l.Addr().String())
}

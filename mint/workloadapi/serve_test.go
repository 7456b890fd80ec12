//go:build unix

package workloadapi_test

import (
	"context"
	"crypto"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	spiffe "github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint/workloadapi"
)

// socketAddress is in a folder of its own that everybody may enter, and short
// enough for a socket.
func socketAddress(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return "unix://" + filepath.Join(dir, "api.sock")
}

// start serves on a real socket until the test ends, or stop is called.
func start(t testing.TB, server *workloadapi.Server) (address string, stop func()) {
	t.Helper()
	address = socketAddress(t)
	l, err := workloadapi.Listen(address, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return address, stop
}

// client is go-spiffe's.
func client(t testing.TB, address string) *spiffe.Client {
	t.Helper()
	c, err := spiffe.New(t.Context(), spiffe.WithAddr(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw is a client that sends what a test wants.
func raw(t testing.TB, address string, opts ...grpc.DialOption) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	conn, err := grpc.NewClient(address, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return workload.NewSpiffeWorkloadAPIClient(conn)
}

func withHeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

func checkStatus(t testing.TB, err error, code codes.Code, says string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), says) {
		t.Errorf("got %v, want %v with %q", err, code, says)
	}
}

// everyCall makes each of the service's calls once.
func everyCall(ctx context.Context, c workload.SpiffeWorkloadAPIClient) map[string]error {
	errs := map[string]error{}
	_, errs["FetchJWTSVID"] = c.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{audience}})
	_, errs["ValidateJWTSVID"] = c.ValidateJWTSVID(ctx, &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: "a.b.c"})
	errs["FetchJWTBundles"] = first(c.FetchJWTBundles(ctx, &workload.JWTBundlesRequest{}))
	errs["FetchX509SVID"] = first(c.FetchX509SVID(ctx, &workload.X509SVIDRequest{}))
	errs["FetchX509Bundles"] = first(c.FetchX509Bundles(ctx, &workload.X509BundlesRequest{}))
	errs["FetchWITSVID"] = first(c.FetchWITSVID(ctx, &workload.WITSVIDRequest{}))
	errs["FetchWITBundles"] = first(c.FetchWITBundles(ctx, &workload.WITBundlesRequest{}))
	return errs
}

func first[T any](stream grpc.ServerStreamingClient[T], err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func TestSecurityHeaderIsRequired(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	for name, header := range map[string][]string{
		"none":               nil,
		"another value":      {"workload.spiffe.io", "True"},
		"an empty value":     {"workload.spiffe.io", ""},
		"twice":              {"workload.spiffe.io", "true", "workload.spiffe.io", "true"},
		"two values in one":  {"workload.spiffe.io", "true, true"},
		"another, and right": {"workload.spiffe.io", "false", "workload.spiffe.io", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), header...)
			for call, err := range everyCall(ctx, raw(t, address)) {
				t.Run(call, func(t *testing.T) { checkStatus(t, err, codes.InvalidArgument, "workload.spiffe.io: true is missing") })
			}
		})
	}
}

func TestOtherProfilesAreUnimplemented(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	for call, err := range everyCall(withHeader(t.Context()), raw(t, address)) {
		if strings.Contains(call, "X509") || strings.Contains(call, "WIT") {
			checkStatus(t, err, codes.Unimplemented, "SPIRE agent")
		}
	}
	_, err := client(t, address).FetchX509SVID(t.Context())
	checkStatus(t, err, codes.Unimplemented, "X.509-SVIDs")
}

func TestPanicIsContained(t *testing.T) {
	iss := newIssuer(t)
	address, _ := start(t, newServer(t, iss.config()))
	iss.set(func(i *issuer) {
		i.play = func(context.Context, spiffeid.ID, string) (secret.Value, error) { panic("a token") }
	})
	c := raw(t, address)
	_, err := c.FetchJWTSVID(withHeader(t.Context()), &workload.JWTSVIDRequest{Audience: []string{audience}})
	checkStatus(t, err, codes.Unavailable, "its log says why")
	if told := iss.told(); !strings.Contains(told, "minting panicked") || strings.Contains(told, "a token") {
		t.Errorf("told of the panic in Mint: %q", told)
	}
	iss.set(func(i *issuer) { i.keys, i.play = []crypto.PublicKey{panicKey{}}, nil })
	for call, err := range everyCall(withHeader(t.Context()), c) {
		if strings.Contains(call, "JWT") {
			checkStatus(t, err, codes.Unavailable, "its log says why")
		}
	}
	cfg := iss.config()
	cfg.Keys = func() []crypto.PublicKey { panic("a key") }
	address, _ = start(t, newServer(t, cfg))
	iss.told()
	for call, err := range everyCall(withHeader(t.Context()), raw(t, address)) {
		if strings.Contains(call, "JWT") {
			checkStatus(t, err, codes.Internal, "internal error")
		}
	}
	if told := iss.told(); strings.Count(told, "a call panicked") != 3 || strings.Contains(told, "a key") {
		t.Errorf("told of the panics in Keys: %q", told)
	}
}

type panicKey struct{}

func TestServeStops(t *testing.T) {
	iss := newIssuer(t)
	minting := make(chan struct{})
	released := make(chan struct{})
	iss.play = func(ctx context.Context, _ spiffeid.ID, _ string) (secret.Value, error) {
		close(minting)
		<-ctx.Done() // a signer that hangs
		close(released)
		return secret.Value{}, ctx.Err()
	}
	address, stop := start(t, newServer(t, iss.config()))
	c := client(t, address)
	ctx, leave := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() { _, _ = c.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience}) })
	<-minting
	leave() // its minting goes on
	calls.Wait()
	watched := make(chan error, 1)
	stream, err := raw(t, address).FetchJWTBundles(withHeader(t.Context()), &workload.JWTBundlesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := stream.Recv()
		watched <- err
	}()
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	checkStatus(t, <-watched, codes.Unavailable, "stopping")
	select {
	case <-released:
	default:
		t.Error("Serve did not wait for the minting")
	}
	if _, err := os.Lstat(strings.TrimPrefix(address, "unix://")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	text := make([]byte, 1<<20)
	if text := string(text[:runtime.Stack(text, true)]); strings.Contains(text, "(*Server)") {
		t.Errorf("goroutines of the server are left:\n%s", text)
	}
}

// TestServeStopsInTime has a call that would hang for ten seconds.
func TestServeStopsInTime(t *testing.T) {
	t.Parallel() // it takes 3 s
	iss := newIssuer(t)
	minting := make(chan struct{})
	iss.play = func(ctx context.Context, _ spiffeid.ID, _ string) (secret.Value, error) {
		close(minting)
		<-ctx.Done()
		return secret.Value{}, ctx.Err()
	}
	address, stop := start(t, newServer(t, iss.config()))
	failed := make(chan error, 1)
	c := client(t, address)
	go func() {
		_, err := c.FetchJWTSVID(context.Background(), jwtsvid.Params{Audience: audience})
		failed <- err
	}()
	<-minting
	begin := time.Now()
	stop()
	if took := time.Since(begin); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("stopped after %v, want 3s", took)
	}
	checkStatus(t, <-failed, codes.Unavailable, "")
}

func TestServeOnce(t *testing.T) {
	server := newServer(t, newIssuer(t).config())
	_, stop := start(t, server)
	stop()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serves once") {
		t.Errorf("second Serve: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestServeReportsItsListener(t *testing.T) {
	l, err := workloadapi.Listen(socketAddress(t), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := newServer(t, newIssuer(t).config()).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "accept") {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

package workloadapi

import (
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FetchX509SVID is not served.
func (*Server) FetchX509SVID(*workload.X509SVIDRequest, grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	return jwtOnly("X.509-SVIDs")
}

// FetchX509Bundles is not served.
func (*Server) FetchX509Bundles(*workload.X509BundlesRequest, grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	return jwtOnly("X.509 bundles")
}

// FetchWITSVID is not served.
func (*Server) FetchWITSVID(*workload.WITSVIDRequest, grpc.ServerStreamingServer[workload.WITSVIDResponse]) error {
	return jwtOnly("WIT-SVIDs")
}

// FetchWITBundles is not served.
func (*Server) FetchWITBundles(*workload.WITBundlesRequest, grpc.ServerStreamingServer[workload.WITBundlesResponse]) error {
	return jwtOnly("WIT bundles")
}

// jwtOnly is a text that SPIFFE clients log.
func jwtOnly(what string) error {
	return status.Errorf(codes.Unimplemented, "this endpoint, svidecar's local issuer, has JWT-SVIDs only; for %s set SPIFFE_ENDPOINT_SOCKET to the socket of a SPIRE agent", what)
}

package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	maxRequest   = 64 << 10         // bytes of a message; a token may have 16 KiB
	maxHeader    = 8 << 10          // bytes of the metadata of a call
	bufferBytes  = 4 << 10          // each way of a connection: messages are small, connections many
	shakeTimeout = 5 * time.Second  // until a connection has said that it speaks HTTP/2
	idleTimeout  = 5 * time.Minute  // of a connection without a call
	pingEvery    = time.Minute      // a client that stands still is found out by this
	pingTimeout  = 10 * time.Second // until it has to have answered
	pingAllowed  = 10 * time.Second // between pings of a client
	stopTimeout  = 3 * time.Second  // for calls under way when Serve ends
)

// securityHeader must come with every call, with the value "true" (Endpoint,
// section 3): whoever is made to send a request by a URL cannot set it.
const securityHeader = "workload.spiffe.io"

func (s *Server) newGRPC() *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(kernel{}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxStreams)),
		grpc.ConnectionTimeout(shakeTimeout),
		grpc.ReadBufferSize(bufferBytes),
		grpc.WriteBufferSize(bufferBytes),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAllowed, PermitWithoutStream: true}),
	)
}

// Serve answers on l, which [Listen] made, until ctx is done; then it lets calls
// under way end, for 3 s at most, and returns nil when everything has stopped. It
// closes l. Any other end is an error. A Server serves once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.served.Swap(true) {
		_ = l.Close()
		return errors.New("workloadapi: a Server serves once: make another one with New")
	}
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failed = s.grpc.Serve(newGate(l, s.cfg.MaxConnections))
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	s.shutDown()
	<-ended
	if ctx.Err() == nil {
		return fmt.Errorf("workloadapi: accept connections: %w", failed)
	}
	return nil
}

// shutDown ends the streams, then the calls, then the minting that outlived its
// callers.
func (s *Server) shutDown() {
	close(s.stopping)
	forced := make(chan struct{})
	force := time.AfterFunc(stopTimeout, func() {
		defer close(forced)
		s.grpc.Stop() // ends GracefulStop
	})
	s.grpc.GracefulStop()
	if !force.Stop() {
		<-forced
	}
	s.tokens.close()
}

func (s *Server) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (reply any, err error) {
	defer s.contain(&err)
	if err := secured(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (s *Server) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer s.contain(&err)
	if err := secured(stream.Context()); err != nil {
		return err
	}
	return handle(server, stream)
}

// contain makes an error of a panic, which would end the process. The panic's
// value is not shown, since it may hold what the code held.
func (s *Server) contain(err *error) {
	if p := recover(); p != nil {
		s.cfg.Fault(errors.New("workloadapi: internal error: a call panicked; report this as a fault"))
		*err = status.Error(codes.Internal, "internal error of the server; its log tells more")
	}
}

func secured(ctx context.Context) error {
	header, _ := metadata.FromIncomingContext(ctx)
	if slices.Equal(header.Get(securityHeader), []string{"true"}) {
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "the metadata %s: true is missing: use a SPIFFE client, which sends it", securityHeader)
}

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// drain bounds how long calls under way may take once the listener has closed:
// longer than the API server waits for any.
const drain = 15 * time.Second

// listener is where the API server calls.
type listener struct {
	cfg     Config
	handler *Handler
	cert    *certificate
	trust   *trust
	state   atomic.Int32
}

const (
	stateStarting int32 = iota
	stateServing
	stateEnding
)

var errNotServing = errors.New("webhook: it does not serve yet, or no longer")

// ready is for /readyz.
func (l *listener) ready(r *http.Request) error {
	if l.state.Load() != stateServing {
		return errNotServing
	}
	return l.trust.check(r.Context())
}

// NeedLeaderElection implements [manager.LeaderElectionRunnable]: each replica
// serves.
func (*listener) NeedLeaderElection() bool { return false }

// Start listens once there is a certificate. Told to end, it is unready at once
// and serves on for a while, because the API server's way to this replica closes
// only after that is seen.
func (l *listener) Start(ctx context.Context) error {
	select {
	case <-l.cert.loaded:
	case <-ctx.Done():
		return nil
	}
	socket, err := net.Listen("tcp", l.cfg.Listen)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	server, limited := l.server(), netutil.LimitListener(socket, maxConnections)
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(limited, "", "") }()
	l.state.Store(stateServing)
	l.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("address", socket.Addr().String()))
	select {
	case err := <-ended:
		return fmt.Errorf("webhook: serving: %w", err)
	case <-ctx.Done():
	}
	l.state.Store(stateEnding)
	l.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "ending", slog.Duration("in", l.cfg.ShutdownDelay))
	select {
	case err := <-ended:
		return fmt.Errorf("webhook: serving: %w", err)
	case <-time.After(l.cfg.ShutdownDelay):
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	return server.Shutdown(last)
}

// server bounds what a caller can hold before its request is looked at.
func (l *listener) server() *http.Server {
	mux := http.NewServeMux()
	mux.Handle("POST "+Path, l.handler)
	return &http.Server{
		Handler:           mux,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: l.cert.get},
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: small, MaxReceiveBufferPerStream: small},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(l.cfg.Logger.Handler(), slog.LevelWarn),
	}
}

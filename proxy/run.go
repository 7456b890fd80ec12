package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/svidecar/svidecar/imds"
)

// Bounds of both listeners.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = readHeaderTimeout // a form included
	writeTimeout      = 40 * time.Second  // over the longest exchange, 30 s
	idleTimeout       = 2 * time.Minute
	maxHeader         = 16 << 10 // net/http adds 4 KiB of its own
	drainTimeout      = 40 * time.Second
	opsIdleTimeout    = 5 * time.Second // probes come anew each time
)

// Run serves tokens and health until ctx ends, then drains: the listener stays
// open for Config.ShutdownDelay, and requests that have come in are answered.
// It closes all listeners, and returns after all that it started has stopped.
func (s *Server) Run(ctx context.Context, tokens, ops net.Listener, own ...Endpoint) error {
	servers := []*http.Server{s.httpServer(s.Handler())}
	listeners := []net.Listener{limit(tokens, s.cfg.MaxConnections)}
	for _, e := range own {
		servers = append(servers, s.ownServer(e))
		listeners = append(listeners, limit(e.Listener, s.cfg.MaxConnections))
	}
	servers, listeners = append(servers, s.opsServer()), append(listeners, share(ops))
	if err := s.openKeys(own); err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	defer s.arc.close()
	failed := make(chan error, len(servers))
	var running sync.WaitGroup
	for i, l := range listeners {
		running.Go(func() {
			if err := serveOn(servers[i], l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("proxy: serving %s: %w", l.Addr(), err)
			}
		})
	}
	s.ready.Store(true)
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	s.drain(servers, err == nil)
	running.Wait()
	s.upstream.CloseIdleConnections()
	return err
}

// openKeys makes ready what Arc's protocol needs, if it has a listener.
func (s *Server) openKeys(own []Endpoint) error {
	for _, e := range own {
		if e.Protocol == imds.Arc {
			return s.arc.open()
		}
	}
	return nil
}

// ownServer serves one protocol, by HTTP/1.1 alone: HTTP/2 has ways of its own
// to say which host and path are meant.
func (s *Server) ownServer(e Endpoint) *http.Server {
	server := s.httpServer(s.handler(s.ownRoutes(e.Protocol)))
	if e.Certificate != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*e.Certificate}, MinVersion: tls.VersionTLS12}
		server.Protocols = new(http.Protocols)
		server.Protocols.SetHTTP1(true)
	}
	return server
}

// opsServer serves health and metrics.
func (s *Server) opsServer() *http.Server {
	server := s.httpServer(s.opsHandler())
	server.IdleTimeout = opsIdleTimeout
	return server
}

func serveOn(server *http.Server, l net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(l, "", "")
	}
	return server.Serve(l)
}

// drain ends the servers, the one that tells readiness last.
func (s *Server) drain(servers []*http.Server, patient bool) {
	s.ready.Store(false)
	s.draining.Store(true)
	if patient && s.cfg.ShutdownDelay > 0 {
		s.cfg.Logger.Info("shutting down: still serving", "delay", s.cfg.ShutdownDelay.String())
		<-time.After(s.cfg.ShutdownDelay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			s.cfg.Logger.Warn("requests were cut off at shutdown", "error", err.Error())
			_ = server.Close()
		}
	}
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		// One routing context for each connection, on which requests come
		// one after another; chi makes one and copies the request, else.
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, chi.RouteCtxKey, chi.NewRouteContext())
		},
		MaxHeaderBytes: maxHeader,
		// "OPTIONS *" goes through the guard like everything else.
		DisableGeneralOptionsHandler: true,
		// A connection that sends nothing or rubbish is a probe, not an
		// error.
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// opsHandler serves health and metrics, in which no secret is.
func (s *Server) opsHandler() http.Handler {
	r := chi.NewRouter()
	r.Get("/livez", text(http.StatusOK, "ok\n"))
	r.Get("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if !s.ready.Load() {
			text(http.StatusServiceUnavailable, "shutting down\n")(w, r)
			return
		}
		if err := s.cfg.Ready(); err != nil {
			text(http.StatusServiceUnavailable, err.Error()+"\n")(w, r)
			return
		}
		text(http.StatusOK, "ok\n")(w, r)
	})
	r.Get(opsProofPath, s.tellOpsProof)
	r.Get("/healthz", text(http.StatusOK, "Active")) // as aad-pod-identity's probes want it
	r.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return r
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

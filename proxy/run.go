package proxy

import (
	"context"
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
)

// Bounds of both listeners.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = readHeaderTimeout // no route reads a body
	writeTimeout      = 40 * time.Second  // over the longest exchange, 30 s
	idleTimeout       = 2 * time.Minute
	maxHeader         = 16 << 10 // net/http adds 4 KiB of its own
	drainTimeout      = 40 * time.Second
	maxOpsConnections = 64
)

// Run serves tokens and health until ctx ends, then drains: the listener stays
// open for Config.ShutdownDelay, and requests that have come in are answered.
// It closes both listeners, and returns after all that it started has stopped.
func (s *Server) Run(ctx context.Context, tokens, ops net.Listener) error {
	servers := []*http.Server{s.httpServer(s.Handler()), s.httpServer(s.opsHandler())}
	failed := make(chan error, len(servers))
	var running sync.WaitGroup
	bounded := limit(tokens, s.cfg.MaxConnections)
	for i, l := range []net.Listener{bounded, limit(ops, maxOpsConnections)} {
		running.Go(func() {
			if err := servers[i].Serve(l); !errors.Is(err, http.ErrServerClosed) {
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
	return err
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

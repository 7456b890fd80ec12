// Package publish owns the way in which an issuer's two documents reach those
// who verify its assertions: a small HTTP or HTTPS server, or files for static
// hosting. It never sees a private signing key, and never decides which keys
// belong in the documents.
package publish

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the server. The documents have a few kilobytes, and Entra asks for
// them a few times an hour.
const (
	readTimeout    = 5 * time.Second // no request has a body
	writeTimeout   = 10 * time.Second
	idleTimeout    = time.Minute
	drainTimeout   = 10 * time.Second
	maxHeader      = 8 << 10
	maxConnections = 1024
)

// Config configures [New].
type Config struct {
	// Documents serves the two documents, as [mint.Issuer] does. Required.
	Documents http.Handler

	// Issuer is the issuer's URL, whose host is the one that requests must
	// name, with its port or without. Required.
	Issuer string

	// Hosts are further values of the Host header that are accepted, in lower
	// case, with a port if the client names one: a reverse proxy may ask by
	// another name.
	Hosts []string

	// CertFile and KeyFile are PEM files of a certificate chain and its key,
	// and make the server speak HTTPS. They are looked at anew for each
	// handshake, and read when they have changed. Both or none.
	CertFile, KeyFile string

	// Logger receives what a person must act on, and one line for each request
	// at debug. Required.
	Logger *slog.Logger
}

// Server serves the documents. Make one with [New].
type Server struct {
	cfg     Config
	hosts   []string
	refusal []byte      // for other hosts
	tls     *tls.Config // nil: HTTP
}

// New checks cfg, and reads the certificate if there is one.
func New(cfg Config) (*Server, error) {
	if cfg.Documents == nil || cfg.Logger == nil {
		return nil, errors.New("publish: Config.Documents and Config.Logger are required")
	}
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("publish: Config.Issuer: %q is not a URL with a host", cfg.Issuer)
	}
	s := &Server{cfg: cfg, hosts: append([]string{strings.ToLower(u.Host), strings.ToLower(u.Hostname())}, cfg.Hosts...)}
	if u.Port() == "" {
		s.hosts = append(s.hosts, strings.ToLower(u.Hostname())+":443")
	}
	if s.refusal, err = refusalFor(u.Host); err != nil {
		return nil, err
	}
	switch {
	case cfg.CertFile == "" && cfg.KeyFile == "":
		return s, nil
	case cfg.CertFile == "" || cfg.KeyFile == "":
		return nil, errors.New("publish: a certificate and its key go together: give both files, or none for HTTP")
	}
	certificates := &certificates{certFile: cfg.CertFile, keyFile: cfg.KeyFile, host: u.Hostname(), log: cfg.Logger}
	if err := certificates.load(); err != nil {
		return nil, err
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.choose, NextProtos: []string{"h2", "http/1.1"}}
	return s, nil
}

// Run serves on l until ctx ends, then drains. It closes l, and returns after
// all that it started has stopped.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	l = netutil.LimitListener(l, maxConnections)
	if s.tls != nil {
		l = tls.NewListener(l, s.tls)
	}
	server := s.httpServer()
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if stop() { // it ended by itself
		_ = server.Close()
		return fmt.Errorf("publish: serving %s: %w", l.Addr(), err)
	}
	<-drained
	return nil
}

func (s *Server) httpServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// "OPTIONS *" is refused like everything else.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// Handler is the server without its listener: the documents, for requests that
// name the issuer's host, and nothing else.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.cfg.Logger.Debug("request", "method", r.Method, "path", r.URL.EscapedPath(), "peer", r.RemoteAddr)
		if !slices.Contains(s.hosts, strings.ToLower(r.Host)) {
			refuse(w, s.refusal)
			return
		}
		s.cfg.Documents.ServeHTTP(w, r)
	})
}

// refusalFor is what is said to those who ask another host: a page in a browser
// that resolves its own name to this server, or a proxy that is set up wrongly.
func refusalFor(host string) ([]byte, error) {
	body, err := json.Marshal(map[string]string{
		"error":             "misdirected_request",
		"error_description": "the Host header is not that of the issuer, " + host + ": if the name is right, allow it by --allowed-hosts",
	})
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return append(body, '\n'), nil
}

func refuse(w http.ResponseWriter, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusMisdirectedRequest)
	_, _ = w.Write(body)
}

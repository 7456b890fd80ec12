// Package proxy owns the local HTTP server: it guards, routes, applies policy
// and replies, and shows health and metrics on a second listener. It never
// talks to Entra, never answers with a token of an identity other than the one
// that policy chose, and never passes a request on to another server, save what
// is asked about the machine itself where a setting names the path.
package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/secret"
)

// Tokens is where tokens come from: an *exchange.Source. An error of its is an
// *exchange.Error or the cause of ctx.
type Tokens interface {
	Token(ctx context.Context, key exchange.Key) (exchange.Token, error)
	Refresh(ctx context.Context, key exchange.Key, unwanted string) (exchange.Token, error)
	Stats() exchange.Stats
}

// Config says what a Server serves.
type Config struct {
	// Tokens is required.
	Tokens Tokens
	// Policy is required: it alone turns requests into keys.
	Policy *Policy
	// Protocols that are served. Nil means IMDS and App Service. Requests of
	// others are refused.
	Protocols []imds.Protocol
	// ArcTokensDir is where the keys of Arc's clients are written while Run
	// serves that protocol, which needs it.
	ArcTokensDir string
	// IdentityHeader is the secret that App Service requests carry. If it
	// is empty every such request is refused with 401.
	IdentityHeader secret.Value
	// AllowedHosts are accepted in the Host header, beside loopback names
	// and addresses and 169.254.169.254. One without a port goes for all.
	AllowedHosts []string
	// RequireAPIVersion refuses IMDS requests without api-version, as the
	// real service does and aad-pod-identity did not.
	RequireAPIVersion bool
	// Instance, if set, is served under /metadata/instance. Without it, and
	// without PassThrough, requests there are refused.
	Instance *imds.Instance
	// PassThrough names what is passed on to the machine's own metadata
	// service, in place of Instance.
	PassThrough PassThrough
	// ShutdownDelay is how long requests are still accepted once Run's
	// context ends. Zero means no delay.
	ShutdownDelay time.Duration
	// MaxRequests bounds the requests answered at once; further ones are
	// refused with 429. Zero means 2,048.
	MaxRequests int
	// MaxConnections bounds the connections open at once; further ones wait
	// to be accepted. Zero means 4,096.
	MaxConnections int
	// Ready, if set, has a say in readiness: its error is the reason.
	Ready func() error
	// ClockSkew, if set, is shown as a metric: how far Entra's clock is
	// ahead of this machine's.
	ClockSkew func() time.Duration
	// NMIMetrics shows aad-pod-identity's metric too, with Namespace, the
	// pod's, as its label.
	NMIMetrics bool
	Namespace  string
	// Logger is required. Requests that got a token are logged at debug,
	// all others at info or above.
	Logger *slog.Logger
	// Version is shown as a metric. Empty means "unknown".
	Version string
}

// Server answers managed-identity requests. It is safe for concurrent use.
type Server struct {
	cfg      Config
	hosts    map[string]bool // AllowedHosts in lower case
	router   chi.Router
	upstream *http.Transport // of PassThrough
	arc      *arcKeys
	metrics  *metrics
	draining atomic.Bool
	answered atomic.Int64 // now
	ready    atomic.Bool
	proofKey [32]byte // of this process's proofs, and of nothing else
}

// New validates cfg and starts nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Tokens == nil:
		return nil, errors.New("proxy: Config.Tokens is required")
	case cfg.Policy == nil:
		return nil, errors.New("proxy: Config.Policy is required")
	case cfg.Logger == nil:
		return nil, errors.New("proxy: Config.Logger is required")
	case cfg.ShutdownDelay < 0 || cfg.MaxRequests < 0 || cfg.MaxConnections < 0:
		return nil, errors.New("proxy: a bound in Config is negative")
	case cfg.Instance != nil && len(cfg.PassThrough.Paths) > 0:
		return nil, errors.New("proxy: Config.Instance and Config.PassThrough exclude each other")
	}
	if err := errors.Join(cfg.PassThrough.check(), cfg.checkProtocols()); err != nil {
		return nil, err
	}
	cfg.defaults()
	s := &Server{cfg: cfg, hosts: map[string]bool{}, upstream: newUpstream(), arc: &arcKeys{dir: cfg.ArcTokensDir}}
	for _, host := range cfg.AllowedHosts {
		s.hosts[strings.Trim(strings.ToLower(host), "[]")] = true
	}
	_, _ = rand.Read(s.proofKey[:]) // never fails
	s.metrics = newMetrics(cfg)
	s.router = s.routes()
	return s, nil
}

func (c *Config) defaults() {
	if c.MaxRequests == 0 {
		c.MaxRequests = 2048
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 4096
	}
	if c.Protocols == nil {
		c.Protocols = []imds.Protocol{imds.IMDS, imds.AppService}
	}
	if c.PassThrough.Host == "" {
		c.PassThrough.Host = imdsAddr.String()
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.ClockSkew == nil {
		c.ClockSkew = func() time.Duration { return 0 }
	}
}

// newID returns a random UUID (RFC 9562, version 4), which ties a refusal to
// its log line.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Handler is the token listener's handler.
func (s *Server) Handler() http.Handler { return s.handler(s.router) }

func (s *Server) handler(routes chi.Router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, routes) })
}

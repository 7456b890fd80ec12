package entratest

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// cloudAudiences are the assertion audiences of the public cloud, US
// Government and China.
var cloudAudiences = []string{"api://AzureADTokenExchange", "api://AzureADTokenExchangeUSGov", "api://AzureADTokenExchangeChina"}

// entraHosts issue Entra's own tokens; so do their subdomains.
var entraHosts = []string{
	"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net",
	"login.microsoftonline.us", "login.partner.microsoftonline.cn",
}

// Config says what the emulator is and knows.
type Config struct {
	// CA signs the server's certificate. Nil: New makes one.
	CA *CA
	// Addr is the loopback address to listen on. Empty: 127.0.0.1:0, a free port.
	Addr string
	// Hosts are further names, without port, that clients may call the server
	// by: they are put into its certificate. It always answers to 127.0.0.1,
	// ::1 and localhost, and to no other name.
	Hosts []string
	// Apps are the applications that exist. Tenants exist because an app is in
	// them. Empty: none, until SetApps.
	Apps []App
	// Resources exist, besides which none does: each is a scope without its
	// "/.default". One trailing slash makes no difference. Empty: any exists.
	Resources []string
	// Audience is the assertion audience of the emulated cloud, and one of the
	// three that Entra has. Empty: api://AzureADTokenExchange.
	Audience string
	// IssuerClient fetches the issuers' documents; it is copied, and follows no
	// redirect. Nil: a client that trusts CA and nothing else.
	IssuerClient *http.Client
	// IssuerTimeout bounds the fetching of an issuer's two documents together.
	// Zero: 5 s. At most 1 min.
	IssuerTimeout time.Duration
	// KeyCacheTTL is how long an issuer's keys are remembered. As at Entra, a
	// kid that is not among the remembered keys does not cause a new fetch.
	// Zero: nothing is remembered, keys are fetched for each assertion.
	KeyCacheTTL time.Duration
	// TokenLifetime is how long an access token lives; whole seconds, 2 s to
	// 24 h. The reply's expires_in is one second less, as Entra's. Zero: 1 h.
	TokenLifetime time.Duration
	// RefreshIn is the reply's refresh_in, in whole seconds, below
	// TokenLifetime. Zero: the reply has none.
	RefreshIn time.Duration
	// Key signs access tokens: RSA, 2,048 bits. Nil: New makes one, which takes
	// about a tenth of a second.
	Key *rsa.PrivateKey
}

// Server is the emulator. Make it with New. It owns its listener and its
// goroutines from Start until Close.
type Server struct {
	ca        *CA
	addr      string
	names     []string
	resources []string
	audience  string
	life      time.Duration
	refreshIn time.Duration

	signer     *signer
	dir        directory
	issuers    *issuers
	faults     faults
	calls      tally
	handler    http.Handler
	base       context.Context // canceled by Close; ends hung requests
	cancelBase context.CancelFunc

	mu     sync.Mutex
	url    string
	http   *http.Server
	closed bool
	loop   sync.WaitGroup // the accept loop
	conns  sync.WaitGroup // one per connection
}

// New checks cfg and returns a server that does not listen yet: call Start, or
// serve its Handler.
func New(cfg Config) (*Server, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	s := &Server{
		ca:        cfg.CA,
		addr:      cfg.Addr,
		names:     append([]string{"127.0.0.1", "::1", "localhost"}, cfg.Hosts...),
		audience:  cfg.Audience,
		life:      cfg.TokenLifetime,
		refreshIn: cfg.RefreshIn,
		issuers:   newIssuers(cfg.IssuerClient, cfg.IssuerTimeout, cfg.KeyCacheTTL),
	}
	for _, r := range cfg.Resources {
		s.resources = append(s.resources, strings.TrimSuffix(r, "/"))
	}
	if err := s.SetApps(cfg.Apps); err != nil {
		return nil, err
	}
	sign, err := newSigner(cfg.Key)
	if err != nil {
		return nil, err
	}
	s.signer = sign
	s.base, s.cancelBase = context.WithCancel(context.Background())
	s.handler = s.routes()
	return s, nil
}

// fill checks cfg and puts the defaults in.
func (cfg *Config) fill() error {
	cfg.Addr = defaultTo(cfg.Addr, "127.0.0.1:0")
	cfg.Audience = defaultTo(cfg.Audience, cloudAudiences[0])
	cfg.IssuerTimeout = defaultTo(cfg.IssuerTimeout, 5*time.Second)
	cfg.TokenLifetime = defaultTo(cfg.TokenLifetime, time.Hour)
	if err := cfg.check(); err != nil {
		return err
	}
	if cfg.CA == nil {
		ca, err := NewCA()
		if err != nil {
			return err
		}
		cfg.CA = ca
	}
	if cfg.IssuerClient == nil {
		cfg.IssuerClient = &http.Client{Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: cfg.CA.Pool(), MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, // leaves no connection behind after Close
		}}
	}
	return nil
}

func (cfg *Config) check() error {
	if err := checkLoopback(cfg.Addr); err != nil {
		return err
	}
	switch {
	case !slices.Contains(cloudAudiences, cfg.Audience):
		return fmt.Errorf("entratest: Config.Audience %q is not one of %q", cfg.Audience, cloudAudiences)
	case cfg.IssuerTimeout < 0 || cfg.IssuerTimeout > time.Minute:
		return fmt.Errorf("entratest: Config.IssuerTimeout %v is not within 0 and 1m", cfg.IssuerTimeout)
	case cfg.KeyCacheTTL < 0:
		return fmt.Errorf("entratest: Config.KeyCacheTTL %v is negative", cfg.KeyCacheTTL)
	case cfg.TokenLifetime < 2*time.Second || cfg.TokenLifetime > 24*time.Hour || cfg.TokenLifetime%time.Second != 0:
		return fmt.Errorf("entratest: Config.TokenLifetime %v is not whole seconds within 2s and 24h", cfg.TokenLifetime)
	case cfg.RefreshIn < 0 || cfg.RefreshIn >= cfg.TokenLifetime || cfg.RefreshIn%time.Second != 0:
		return fmt.Errorf("entratest: Config.RefreshIn %v is not whole seconds below the token lifetime", cfg.RefreshIn)
	}
	for _, h := range cfg.Hosts {
		if h == "" || strings.ContainsAny(h, ":/@ ") {
			return fmt.Errorf("entratest: Config.Hosts has %q, which is not a host name without port", h)
		}
	}
	for _, r := range cfg.Resources {
		if r == "" || strings.HasSuffix(r, "/.default") {
			return fmt.Errorf("entratest: Config.Resources has %q, want a scope without its /.default", r)
		}
	}
	return nil
}

func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("entratest: Config.Addr %q is not host:port", addr)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("entratest: Config.Addr %q is not a loopback address", addr)
	}
	return nil
}

// Start listens and serves in the background until Close. It returns an error
// if the address is taken, or if it was called before.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil || s.closed {
		return errors.New("entratest: the server was started or closed before")
	}
	cert, err := s.ca.Certificate(s.names...)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("entratest: listening: %w", err)
	}
	s.url = "https://" + ln.Addr().String()
	s.http = s.newHTTPServer(cert)
	srv := s.http
	s.loop.Go(func() { _ = srv.ServeTLS(ln, "", "") }) // returns when Close closes it
	return nil
}

func (s *Server) newHTTPServer(cert tls.Certificate) *http.Server {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Server{
		Handler:           s.handler,
		Protocols:         &http1,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      10 * time.Minute, // above the longest Fault.Latency
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // refused handshakes are the client's to report
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnState:         s.trackConn,
	}
}

// trackConn counts connections, so that Close can wait for their goroutines.
func (s *Server) trackConn(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// Close stops listening, ends every request, hung ones included, and returns
// once everything that Start started has stopped. Further calls do nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	srv := s.http
	s.closed = true
	s.mu.Unlock()
	s.cancelBase()
	if srv == nil {
		return nil
	}
	err := srv.Close()
	s.loop.Wait()
	s.conns.Wait()
	if err != nil {
		return fmt.Errorf("entratest: closing: %w", err)
	}
	return nil
}

// URL returns "https://127.0.0.1:port" without a trailing slash, and "" before
// Start.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// CA returns the authority that signs the server's certificate.
func (s *Server) CA() *CA { return s.ca }

// Handler serves the emulator's endpoints without Start, for instance to an
// in-memory transport. Requests must be for one of Config.Hosts or loopback. A
// fault that gives no reply panics with http.ErrAbortHandler, as net/http's
// servers expect.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{tenant}/discovery/instance", s.instance)
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.openID)
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.ownKeys)
	mux.HandleFunc("/{tenant}/oauth2/v2.0/token", s.token)
	return s.prepare(mux)
}

// prepare does what every reply needs, and ends requests when s closes.
func (s *Server) prepare(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.add(func(c *Calls) { c.Requests++ })
		setHeaders(w.Header(), r)
		if !s.answersTo(r.Host) {
			http.Error(w, "this emulator does not answer to the host "+r.Host, http.StatusMisdirectedRequest)
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.base, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func setHeaders(h http.Header, r *http.Request) {
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Ms-Request-Id", newGUID())
	h.Set("X-Ms-Ests-Server", "svidecar emulator")
	if strings.EqualFold(r.Header.Get("Return-Client-Request-Id"), "true") {
		h.Set("Client-Request-Id", correlation(r))
	}
}

// answersTo reports whether host, with or without port, is one of s's names.
func (s *Server) answersTo(host string) bool {
	u := url.URL{Host: host}
	return slices.ContainsFunc(s.names, func(name string) bool { return strings.EqualFold(name, u.Hostname()) })
}

// issuedByEntra reports whether the issuer is Entra, which the emulator is too.
func (s *Server) issuedByEntra(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	host := strings.ToLower(u.Hostname())
	for _, h := range entraHosts {
		if host == h || strings.HasSuffix(host, "."+h) {
			return true
		}
	}
	own, err := url.Parse(s.URL())
	return err == nil && own.Host != "" && u.Port() == own.Port() && s.answersTo(u.Host)
}

func defaultTo[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

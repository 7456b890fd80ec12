package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

// sidecar is what serve, dev and token are made of.
type sidecar struct {
	cfg     *config.Config
	log     *slog.Logger
	sources sources
	entra   *exchange.Entra
	tokens  *exchange.Source
	policy  *proxy.Policy
}

// newSidecar builds from configuration alone; it opens files but no listener.
func newSidecar(cfg *config.Config) (*sidecar, error) {
	made, err := newSources(cfg)
	if err != nil {
		return nil, err
	}
	roots, err := authorityRoots(cfg.AuthorityCAFile)
	if err != nil {
		return nil, err
	}
	return assemble(cfg, made, roots)
}

// assemble connects sources, exchange and policy. The mint reaches the exchange
// as a func value, here and nowhere else.
func assemble(cfg *config.Config, from sources, roots *x509.CertPool) (*sidecar, error) {
	sc := &sidecar{cfg: cfg, log: newLogger(cfg), sources: from}
	var err error
	if sc.policy, err = newPolicy(cfg); err != nil {
		return nil, err
	}
	sc.entra, err = exchange.NewEntra(exchange.EntraConfig{
		Authority: cfg.AuthorityHost,
		Region:    cfg.Region,
		Roots:     roots,
		Assertion: func(ctx context.Context, key exchange.Key) (secret.Value, error) {
			assertion, err := from.of(key).Assertion(ctx)
			return assertion.Value, err
		},
	})
	if err != nil {
		return nil, err
	}
	sc.tokens, err = exchange.New(exchange.Config{
		Redeem:  sc.entra.Redeem,
		Timeout: cfg.ExchangeTimeout,
		Entries: cfg.CacheEntries,
	})
	return sc, err
}

func (sc *sidecar) close() {
	sc.tokens.Close()
	sc.entra.Close()
}

// serve listens and runs until ctx ends.
func (sc *sidecar) serve(ctx context.Context) error {
	server, err := sc.newServer()
	if err != nil {
		return err
	}
	tokens, ops, err := listenBoth(ctx, sc.cfg)
	if err != nil {
		return err
	}
	sc.log.Info("serving", "version", version(), "tokens", tokens.Addr().String(), "ops", ops.Addr().String(),
		"authority", sc.cfg.AuthorityHost, "identities", len(sc.cfg.Identities), "app_service", !sc.cfg.IdentityHeader.IsZero())
	if sc.cfg.UnsafeListen {
		sc.log.Warn("unsafe-listen is on: whoever reaches this address can ask for tokens", "tokens", tokens.Addr().String())
	}
	return server.Run(ctx, tokens, ops)
}

func (sc *sidecar) newServer() (*proxy.Server, error) {
	return proxy.New(proxy.Config{
		Tokens:            sc.tokens,
		Policy:            sc.policy,
		IdentityHeader:    sc.cfg.IdentityHeader,
		AllowedHosts:      sc.cfg.AllowedHosts,
		RequireAPIVersion: sc.cfg.RequireAPIVersion,
		ShutdownDelay:     sc.cfg.ShutdownDelay,
		Logger:            sc.log,
		Version:           version(),
	})
}

func listenBoth(ctx context.Context, cfg *config.Config) (tokens, ops net.Listener, err error) {
	if tokens, err = listen(ctx, "listen", cfg.Listen); err != nil {
		return nil, nil, err
	}
	if ops, err = listen(ctx, "ops-listen", cfg.OpsListen); err != nil {
		return nil, nil, errors.Join(err, tokens.Close())
	}
	return tokens, ops, nil
}

func listen(ctx context.Context, setting, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s: cannot listen on %s: %w; stop what uses it, or choose another address", setting, address, cause(err))
	}
	return l, nil
}

// cause cuts the operations that net puts before an error of the system.
func cause(err error) error {
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}

// authorityRoots adds the certificates in the file to the system's.
func authorityRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--authority-ca-file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--authority-ca-file: %s holds no PEM certificate", path)
	}
	return roots, nil
}

// newPolicy lists the configured identities. Without a list, AZURE_CLIENT_ID is
// the default and any other client id of the tenant may be asked for, as with
// azure-workload-identity's sidecar.
func newPolicy(cfg *config.Config) (*proxy.Policy, error) {
	pc := proxy.PolicyConfig{Default: -1}
	for i, id := range cfg.Identities {
		if id.Default {
			pc.Default = i
		}
		pc.Identities = append(pc.Identities, proxy.Identity{
			ClientID: id.ClientID, Tenant: id.TenantID, ObjectID: id.ObjectID, ResourceID: id.ResourceID, Resources: id.AllowedResources,
		})
	}
	if cfg.Identities == nil {
		pc.AnyClientTenant = cfg.TenantID
		if cfg.ClientID != "" {
			pc.Identities, pc.Default = []proxy.Identity{{ClientID: cfg.ClientID, Tenant: cfg.TenantID}}, 0
		}
	}
	return proxy.NewPolicy(pc)
}

func newLogger(cfg *config.Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts))
}

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/version"
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
	keys    []exchange.Key // of --prefetch
	warm    atomic.Bool    // every token of --prefetch has come
}

// newSidecar builds from configuration alone; it opens files but no listener.
func newSidecar(cfg *config.Config) (*sidecar, error) {
	made, err := newSources(cfg)
	if err != nil {
		return nil, err
	}
	roots, err := rootsWith(cfg.AuthorityCAFile)
	if err != nil {
		return nil, fmt.Errorf("--authority-ca-file: %w", err)
	}
	return assemble(cfg, made, roots)
}

// assemble connects sources, exchange and policy. The mint reaches the exchange
// as a func value, here and nowhere else.
func assemble(cfg *config.Config, from sources, roots *x509.CertPool) (*sidecar, error) {
	sc := &sidecar{cfg: cfg, log: newLogger(cfg), sources: from}
	var err error
	if sc.policy, err = newPolicy(cfg, from.before != nil); err != nil {
		return nil, err
	}
	if sc.keys, err = sc.prefetchKeys(); err != nil {
		return nil, err
	}
	sc.entra, err = exchange.NewEntra(exchange.EntraConfig{
		Authority: cfg.AuthorityHost,
		Region:    cfg.Region,
		Roots:     roots,
		Assertion: from.assertion,
	})
	if err != nil {
		return nil, err
	}
	sc.tokens, err = exchange.New(exchange.Config{
		Redeem:     sc.entra.Redeem,
		Credential: from.credential,
		Failed:     sc.renewalFailed,
		Timeout:    cfg.ExchangeTimeout,
		Entries:    cfg.CacheEntries,
	})
	return sc, err
}

// renewalFailed tells of what no reply tells: the token held is still served.
func (sc *sidecar) renewalFailed(key exchange.Key, err *exchange.Error) {
	sc.log.Warn("renewal failed: the token held is served on", "client_id", key.ClientID, "tenant_id", key.Tenant, "scope", key.Scope,
		"code", err.Code, "error", err.Error())
}

func (sc *sidecar) close() {
	sc.tokens.Close()
	sc.entra.Close()
	sc.sources.close()
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
	sc.log.Info("serving", "version", version.Of(release), "tokens", tokens.Addr().String(), "ops", ops.Addr().String(),
		"authority", sc.cfg.AuthorityHost, "identities", len(sc.cfg.Identities), "protocols", strings.Join(sc.cfg.Protocols, ","), "app_service", !sc.cfg.IdentityHeader.IsZero())
	sc.warnOfReach(tokens.Addr())
	own, err := sc.endpoints(ctx)
	if err != nil {
		return errors.Join(err, tokens.Close(), ops.Close())
	}
	ctx, stop := context.WithCancel(ctx) // a server that fails ends what goes on beside it
	defer sc.sources.keep(ctx)()
	defer sc.prefetch(ctx)()
	defer stop()
	return server.Run(ctx, tokens, ops, own...)
}

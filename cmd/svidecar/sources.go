package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint"
)

// asserter is a source of assertions.
type asserter interface {
	Assertion(ctx context.Context) (mint.Assertion, error)
}

// sources says where each identity's assertions come from.
type sources struct {
	byName     map[string]asserter
	byIdentity map[identity]asserter
	fallback   asserter // of identities that are not listed; may be nil if all are
	// before, if set, is told of each identity before it is exchanged: dev's
	// emulator learns of client ids as apps name them.
	before  func(clientID string)
	keepers []*keeper // of the directories of keys
}

// identity is a key without its scope.
type identity struct{ tenant, clientID string }

func (s sources) of(key exchange.Key) asserter {
	if a, ok := s.byIdentity[identity{key.Tenant, key.ClientID}]; ok {
		return a
	}
	return s.fallback
}

// assertion is an exchange.AssertionFunc.
func (s sources) assertion(ctx context.Context, key exchange.Key, fresh bool) (secret.Value, error) {
	if s.before != nil {
		s.before(key.ClientID)
	}
	from := s.of(key)
	ask := from.Assertion
	if source, ok := from.(interface {
		Fresh(context.Context) (mint.Assertion, error)
	}); ok && fresh {
		ask = source.Fresh
	}
	a, err := ask(ctx)
	return a.Value, err
}

// credential describes what would be sent for key: an exchange.Config.Credential.
func (s sources) credential(ctx context.Context, key exchange.Key) string {
	// It is looked at before an exchange, whose time it must not take.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	a, err := s.of(key).Assertion(ctx)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%q %q %q %q", a.Claims.Issuer, a.Claims.Subject, a.Claims.Audience, a.Claims.KeyID)
}

func newSources(cfg *config.Config) (sources, error) {
	made := sources{byName: map[string]asserter{}, byIdentity: map[identity]asserter{}}
	for _, src := range cfg.Sources {
		if err := made.add(src, cfg); err != nil {
			return sources{}, fmt.Errorf("source %q: %w", src.Name, err)
		}
	}
	for _, id := range cfg.Identities {
		made.byIdentity[identity{id.TenantID, id.ClientID}] = made.byName[id.Source]
	}
	made.fallback = made.byName[cfg.DefaultSource()]
	return made, nil
}

func newSource(src config.Source) (asserter, error) {
	switch src.Kind {
	case config.KindFile:
		return mint.NewFile(mint.FileConfig{Path: src.Path})
	case config.KindSPIFFE:
		return mint.NewWorkload(mint.WorkloadConfig{
			Address: src.Socket, Audience: src.Audience, Subject: src.Subject, Hint: src.Hint, VerifyBundle: src.Verify,
		})
	case config.KindGitHub, config.KindGoogle, config.KindExec, config.KindURL:
		return newFetcher(src)
	}
	key, err := loadKey(src.KeyFile)
	if err != nil {
		return nil, err
	}
	return mint.NewLocal(mint.LocalConfig{
		Signer: key, Issuer: src.Issuer, Subject: src.Subject, Audience: src.Audience, Lifetime: src.Lifetime,
	})
}

// close ends the sources that hold connections.
func (s sources) close() {
	for _, a := range s.byName {
		if c, ok := a.(io.Closer); ok {
			_ = c.Close()
		}
	}
}

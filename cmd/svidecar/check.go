package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

// checkSources asks each source once, so that what can only be mended by a
// person is known at the start and not from the first app that fails.
func (sc *sidecar) checkSources(ctx context.Context) error {
	for _, k := range sc.sources.keepers {
		if err := k.start(ctx); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sc.sources.byName)) {
		assertion, err := sc.sources.byName[name].Assertion(ctx)
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			sc.log.Info("source is ready", "source", name, "assertion", assertion.Claims.String())
			sc.warnOfAudience(name, assertion.Claims.Audience)
		case errors.As(err, &temporary) && temporary.Temporary():
			sc.log.Warn("source has no assertion yet", "source", name, slog.String("error", err.Error()))
		default:
			return fmt.Errorf("source %q: %w", name, err)
		}
	}
	return nil
}

// warnOfAudience compares what a source's assertions are for with what the
// configuration says that they should be for.
func (sc *sidecar) warnOfAudience(name string, audience []string) {
	for _, src := range sc.cfg.Sources {
		if src.Name == name && !slices.Contains(audience, src.Audience) {
			sc.log.Warn("the assertion's audience is not the expected one: Entra refuses it unless the federated credential says so too",
				"source", name, "audience", strings.Join(audience, ", "), "expected", src.Audience)
		}
	}
}

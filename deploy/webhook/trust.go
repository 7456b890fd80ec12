package webhook

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// trust tells whether the API server believes the certificate: the authority is
// written into the configuration a moment after the certificate into its Secret, and
// a call in between would fail.
type trust struct {
	cfg  Config
	cert *certificate
	live client.Reader
	// seen once is enough: at a renewal every replica takes the new certificate
	// in the same moment, and one that became unready would only be missed.
	seen atomic.Bool

	mu   sync.Mutex
	told string // last, in the log
}

var errUntrusted = errors.New("webhook: the configuration does not have the certificate's authority yet: the replica that has the lease writes it; if this lasts, see that replica's log, and whether something else changes caBundle")

// check asks the API server until it has been seen. What /readyz shows of its
// error is nothing, so the log has it, once.
func (t *trust) check(ctx context.Context) error {
	if t.seen.Load() {
		return nil
	}
	err := t.look(ctx)
	t.seen.Store(err == nil)
	t.tell(ctx, err)
	return err
}

func (t *trust) tell(ctx context.Context, err error) {
	state := "ready"
	if err != nil {
		state = "not ready: " + err.Error()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if state != t.told {
		t.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, state, slog.String("configuration", t.cfg.Configuration))
		t.told = state
	}
}

func (t *trust) look(ctx context.Context) error {
	pair, err := t.cert.get(nil)
	if err != nil {
		return err
	}
	var configuration admissionregistrationv1.MutatingWebhookConfiguration
	if err := t.live.Get(ctx, client.ObjectKey{Name: t.cfg.Configuration}, &configuration); err != nil {
		return fmt.Errorf("webhook: looking up the configuration %s: %w", t.cfg.Configuration, err)
	}
	for _, w := range configuration.Webhooks {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(w.ClientConfig.CABundle)
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
			return errUntrusted
		}
	}
	return nil
}

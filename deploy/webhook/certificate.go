package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// certificate is what the API server is shown. It comes from the Secret itself
// and not from a mounted volume, which would be up to two minutes behind: in that
// time the API server would trust an authority that nobody answers by.
type certificate struct {
	cfg     Config
	mark    string // file that says to cert-controller that there is a certificate
	loaded  chan struct{}
	once    sync.Once
	current atomic.Pointer[tls.Certificate]
}

// watch follows the Secret.
func (c *certificate) watch(ctx context.Context, mgr manager.Manager) error {
	informer, err := mgr.GetCache().GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("webhook: watching the Secret of the certificate: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.take(ctx, o) },
		UpdateFunc: func(_, o any) { c.take(ctx, o) },
	})
	return err
}

// take serves a Secret's certificate from now on. One that is not whole is left:
// the one before may still be good.
func (c *certificate) take(ctx context.Context, object any) {
	secret, ok := object.(*corev1.Secret)
	if !ok || secret.Name != c.cfg.Secret || len(secret.Data[corev1.TLSCertKey]) == 0 {
		return
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err == nil {
		err = os.WriteFile(c.mark, secret.Data[corev1.TLSCertKey], 0o600)
	}
	if err != nil {
		c.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the certificate in the Secret is of no use", slog.String("secret", c.cfg.Secret), slog.String("error", err.Error()))
		return
	}
	c.current.Store(&pair)
	c.cfg.Metrics.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "certificate", slog.Time("expires", pair.Leaf.NotAfter))
	c.once.Do(func() { close(c.loaded) })
}

var errNoCertificate = errors.New("webhook: there is no certificate yet")

// get is for [tls.Config].GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if pair := c.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errNoCertificate
}

// rotate has one replica at a time keep the certificate new, and its authority
// in the webhook configuration.
func (c *certificate) rotate(mgr manager.Manager) error {
	err := rotator.AddRotator(mgr, &rotator.CertRotator{
		SecretKey:             types.NamespacedName{Namespace: c.cfg.Namespace, Name: c.cfg.Secret},
		CertDir:               filepath.Dir(c.mark),
		CAName:                c.cfg.Service + "-ca",
		CAOrganization:        "svidecar",
		DNSName:               c.cfg.Service + "." + c.cfg.Namespace + ".svc",
		IsReady:               make(chan struct{}),
		Webhooks:              []rotator.WebhookInfo{{Name: c.cfg.Configuration, Type: rotator.Mutating}},
		FieldOwner:            fieldOwner,
		RequireLeaderElection: true,
	})
	if err != nil {
		return fmt.Errorf("webhook: preparing the certificate: %w", err)
	}
	return nil
}

const fieldOwner = "svidecar-webhook"

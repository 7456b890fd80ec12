package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Run serves until ctx ends, and returns after everything it started has
// stopped.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.DetectNative {
		if err := s.detectNative(ctx); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "svidecar-webhook-")
	if err != nil {
		return fmt.Errorf("webhook: it needs a directory for temporary files: %w", err)
	}
	defer os.RemoveAll(dir)
	mgr, err := s.manager()
	if err != nil {
		return fmt.Errorf("webhook: starting: %w", err)
	}
	cert := &certificate{cfg: s.cfg, mark: filepath.Join(dir, corev1.TLSCertKey), loaded: make(chan struct{})}
	for _, prepare := range []func() error{
		func() error { return s.watch(ctx, mgr) },
		func() error { return cert.watch(ctx, mgr) },
		func() error { return cert.rotate(mgr) },
		func() error { return s.serve(mgr, cert) },
	} {
		if err := prepare(); err != nil {
			return err
		}
	}
	return mgr.Start(ctx)
}

// manager is the frame in which caches, the lease, health and metrics live.
func (s *Server) manager() (manager.Manager, error) {
	stop := s.cfg.ShutdownDelay + drain + 5*time.Second
	return manager.New(rest.AddUserAgent(rest.CopyConfig(s.cfg.REST), fieldOwner), manager.Options{
		Logger:                        logr.FromSlogHandler(s.cfg.Logger.Handler()),
		Cache:                         s.cache(),
		Metrics:                       metricsserver.Options{BindAddress: s.cfg.MetricsListen},
		HealthProbeBindAddress:        s.cfg.HealthListen,
		LeaderElection:                true,
		LeaderElectionID:              s.cfg.Service,
		LeaderElectionNamespace:       s.cfg.Namespace,
		LeaderElectionReleaseOnCancel: true, // Run's caller ends the process
		GracefulShutdownTimeout:       &stop,
	})
}

// cache keeps only what answers need: one Secret, the labels of namespaces, and
// those annotations of service accounts that are read.
func (s *Server) cache() cache.Options {
	return cache.Options{
		ReaderFailOnMissingInformer: true,
		DefaultTransform:            cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Secret{}: {
				Namespaces: map[string]cache.Config{s.cfg.Namespace: {}},
				Field:      fields.OneTermEqualSelector("metadata.name", s.cfg.Secret),
			},
			partial("Namespace"):      {Transform: slim},
			partial("ServiceAccount"): {Transform: slim},
		},
	}
}

// slim is for a cluster with a hundred thousand service accounts.
func slim(object any) (any, error) {
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil
	}
	kept := metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion}
	if o.Namespace == "" {
		kept.Labels = o.Labels
	}
	for key, value := range o.Annotations {
		if strings.HasPrefix(key, "azure.workload.identity/") {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[key] = value
		}
	}
	o.ObjectMeta = kept
	return o, nil
}

// watch starts to keep what answers need, and finds out whether it can be had.
func (s *Server) watch(ctx context.Context, mgr manager.Manager) error {
	objects := []client.Object{partial("Namespace"), partial("ServiceAccount")}
	if s.cfg.PodIdentity.on() {
		for _, kind := range podIdentityKinds {
			gvk := kindOf(kind)
			if _, err := mgr.GetRESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
				return fmt.Errorf("webhook: the cluster has no %s: set pod identity to none, or install the definitions of aad-pod-identity: %w", kind, err)
			}
			object := new(unstructured.Unstructured)
			object.SetGroupVersionKind(gvk)
			objects = append(objects, object)
		}
	}
	for _, object := range objects {
		if _, err := mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("webhook: watching %s: %w", object.GetObjectKind().GroupVersionKind().Kind, err)
		}
	}
	return nil
}

// serve adds the listener for the API server, which starts when the caches are
// full.
func (s *Server) serve(mgr manager.Manager, cert *certificate) error {
	handler, err := NewHandler(HandlerConfig{
		Inject: s.cfg.Inject, PodIdentity: s.cfg.PodIdentity, Namespaces: s.namespaces, Cached: mgr.GetCache(), Live: mgr.GetAPIReader(),
		Metrics: s.cfg.Metrics, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	l := &listener{cfg: s.cfg, handler: handler, cert: cert, trust: &trust{cfg: s.cfg, cert: cert, live: mgr.GetAPIReader()}}
	if err := mgr.AddHealthzCheck("process", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("webhook", l.ready); err != nil {
		return err
	}
	s.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "starting", slog.String("listen", s.cfg.Listen))
	return mgr.Add(l)
}

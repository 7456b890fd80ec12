// Package webhook owns the admission webhook: it answers the API server's
// question about each new pod with what deploy/inject says, looks up what that
// must know of the cluster, and keeps its own certificate. It never decides what
// is done to a pod, and never writes anything but its certificate, its lease,
// and the authority in its own webhook configuration.
package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"

	"github.com/svidecar/svidecar/deploy/inject"
)

// Path is where the API server sends pods.
const Path = "/mutate/pods"

// Config says how one replica of the webhook runs.
type Config struct {
	REST    *rest.Config // the API server, and who asks it; required
	Metrics *Metrics     // required
	Logger  *slog.Logger // required

	Inject       inject.Config // of the installation
	DetectNative bool          // take Inject.NativeSidecars from the version of the API server
	PodIdentity  PodIdentity   // whether the objects of aad-pod-identity count; empty means PodIdentityNone

	// PodIdentityNamespaces is a label selector, such as team=a or migrated, of the
	// namespaces in which PodIdentity counts; empty means all.
	PodIdentityNamespaces string

	Namespace     string // of the webhook itself; required
	Service       string // by which the API server reaches it, in Namespace; required
	Secret        string // that keeps the certificate, in Namespace, and is there already; required
	Configuration string // the MutatingWebhookConfiguration that gets the authority; required

	Listen        string        // host:port for the API server; empty means :9443
	HealthListen  string        // host:port of /healthz and /readyz; empty means :8081
	MetricsListen string        // host:port of /metrics, in plain HTTP; empty means :8080
	ShutdownDelay time.Duration // for which it still serves once told to end, so that no call is lost; zero means 5 s, at most 1 min
}

// Server is one replica.
type Server struct {
	cfg        Config
	namespaces labels.Selector // of Config.PodIdentityNamespaces
}

// New validates the configuration.
func New(cfg Config) (*Server, error) {
	var bad []error
	require := func(ok bool, text string) {
		if !ok {
			bad = append(bad, errors.New("webhook: Config."+text))
		}
	}
	require(cfg.REST != nil, "REST is required")
	require(cfg.Metrics != nil, "Metrics is required")
	require(cfg.Logger != nil, "Logger is required")
	for _, name := range []struct{ field, value string }{
		{"Namespace", cfg.Namespace}, {"Service", cfg.Service}, {"Secret", cfg.Secret}, {"Configuration", cfg.Configuration},
	} {
		require(name.value != "", name.field+" is required")
	}
	cfg.Listen = cmp.Or(cfg.Listen, ":9443")
	cfg.HealthListen = cmp.Or(cfg.HealthListen, ":8081")
	cfg.MetricsListen = cmp.Or(cfg.MetricsListen, ":8080")
	for _, address := range []struct{ field, value string }{
		{"Listen", cfg.Listen}, {"HealthListen", cfg.HealthListen}, {"MetricsListen", cfg.MetricsListen},
	} {
		if _, err := net.ResolveTCPAddr("tcp", address.value); err != nil {
			bad = append(bad, fmt.Errorf("webhook: Config.%s %q is no host:port: %w", address.field, address.value, err))
		}
	}
	cfg.ShutdownDelay = cmp.Or(cfg.ShutdownDelay, 5*time.Second)
	require(cfg.ShutdownDelay > 0 && cfg.ShutdownDelay <= time.Minute, "ShutdownDelay is not above zero and at most a minute")
	namespaces, err := labels.Parse(cfg.PodIdentityNamespaces)
	if err != nil {
		bad = append(bad, fmt.Errorf("webhook: Config.PodIdentityNamespaces %q is no label selector: %w", cfg.PodIdentityNamespaces, err))
	}
	bad = append(bad, cfg.PodIdentity.validate(), cfg.Inject.Validate())
	return &Server{cfg, namespaces}, errors.Join(bad...)
}

// native is the first version whose sidecars outlive the app without a feature
// gate.
const native = "1.29.0"

// detectNative asks the API server for its version.
func (s *Server) detectNative(ctx context.Context) error {
	client, err := discovery.NewDiscoveryClientForConfig(s.cfg.REST)
	if err != nil {
		return fmt.Errorf("webhook: asking the API server for its version: %w", err)
	}
	info, err := client.ServerVersion()
	if err != nil {
		return fmt.Errorf("webhook: asking the API server for its version: %w", err)
	}
	v, err := version.ParseGeneric(info.GitVersion)
	if err != nil {
		return fmt.Errorf("webhook: the version of the API server is %q: %w; say whether it has native sidecars", info.GitVersion, err)
	}
	s.cfg.Inject.NativeSidecars = v.AtLeast(version.MustParseGeneric(native))
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "API server", slog.String("version", info.GitVersion), slog.Bool("native_sidecars", s.cfg.Inject.NativeSidecars))
	return nil
}

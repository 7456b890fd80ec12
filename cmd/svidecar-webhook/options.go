package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/webhook"
)

// options are the flags, and what they make.
type options struct {
	printConfig bool
	native      string
	mode        string
	podIdentity string
	logLevel    slog.Level
	webhook     webhook.Config
}

// register names the flags. A default that is not the zero value is that of
// deploy/inject or deploy/webhook, shown here so that --help tells it.
func (o *options) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	w, in := &o.webhook, &o.webhook.Inject
	fs.StringVar(&in.Image, "sidecar-image", "", "image of the sidecar and of the redirection; required")
	fs.StringVar(&in.ImagePullPolicy, "sidecar-image-pull-policy", "", "Always, IfNotPresent or Never")
	fs.StringVar(&o.native, "native-sidecars", "auto", "whether the cluster has native sidecars (Kubernetes 1.29): auto, true or false")
	fs.StringVar(&o.mode, "mode", string(inject.ModeAuto), "how requests reach the sidecar: auto, env, redirect or address")
	fs.IntVar(&in.Port, "port", 8000, "port of the tokens, on the pod's loopback")
	fs.IntVar(&in.OpsPort, "ops-port", 8001, "port of health and metrics")
	fs.BoolVar(&in.Scrape, "scrape", false, "serve health and metrics of the sidecar on the pod's address too")
	fs.StringVar(&in.LogLevel, "sidecar-log-level", "", "debug, info, warn or error")
	fs.StringVar(&in.Resources.CPURequest, "sidecar-cpu-request", "10m", "a quantity, or none")
	fs.StringVar(&in.Resources.MemoryRequest, "sidecar-memory-request", "32Mi", "a quantity, or none")
	fs.StringVar(&in.Resources.CPULimit, "sidecar-cpu-limit", "none", "a quantity, or none")
	fs.StringVar(&in.Resources.MemoryLimit, "sidecar-memory-limit", "128Mi", "a quantity, or none")
	fs.Int64Var(&in.RunAsUser, "sidecar-run-as-user", 65531, "user id of the sidecar")
	fs.StringVar(&in.TenantID, "tenant-id", "", "tenant of pods that name none, as their service accounts do")
	fs.StringVar(&in.Cloud, "cloud", "", "public, usgov or china")
	fs.StringVar(&in.AuthorityHost, "authority-host", "", "https URL of Entra, in place of the cloud's")
	fs.StringVar(&in.CAConfigMap, "ca-config-map", "", "ConfigMap in the pod's namespace whose ca.crt is trusted for the authority host too")
	fs.StringVar(&in.HTTPSProxy, "https-proxy", "", "by which sidecars reach Entra")
	fs.StringVar(&in.NoProxy, "no-proxy", "", "what sidecars ask without the proxy")
	fs.Int64Var(&in.TokenExpiration, "token-expiration", 3600, "life of service-account tokens in seconds, 3600 to 86400")
	fs.StringVar(&in.SPIFFE.CSIDriver, "spiffe-csi-driver", "csi.spiffe.io", "CSI driver that mounts the Workload API")
	fs.StringVar(&in.SPIFFE.HostPath, "spiffe-host-path", "", "directory of the Workload API on each node, in place of the CSI driver")
	fs.StringVar(&in.SPIFFE.SocketFile, "spiffe-socket-file", "spire-agent.sock", "name of the Workload API's socket in that directory")
	fs.StringVar(&o.podIdentity, "pod-identity", string(webhook.PodIdentityNone), "which bindings of aad-pod-identity inject: none, cluster or namespaced")
	fs.StringVar(&w.PodIdentityNamespaces, "pod-identity-namespaces", "", "label selector of the namespaces in which they do; empty: all")
	fs.StringVar(&w.Namespace, "namespace", "", "namespace of the webhook; required")
	fs.StringVar(&w.Service, "service", "svidecar-webhook", "Service by which the API server reaches the webhook")
	fs.StringVar(&w.Secret, "secret", "svidecar-webhook", "Secret that keeps the certificate")
	fs.StringVar(&w.Configuration, "configuration", "svidecar-webhook", "MutatingWebhookConfiguration that gets the authority")
	fs.StringVar(&w.Listen, "listen", ":9443", "address for the API server")
	fs.StringVar(&w.HealthListen, "health-listen", ":8081", "address of /healthz and /readyz")
	fs.StringVar(&w.MetricsListen, "metrics-listen", ":8080", "address of /metrics, in plain HTTP")
	fs.DurationVar(&w.ShutdownDelay, "shutdown-delay", 5*time.Second, "how long to serve on once told to end, at most 1m")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
	fs.VisitAll(func(f *pflag.Flag) { f.Usage += " (env " + variable(f.Name) + ")" })
	fs.BoolVar(&o.printConfig, "print-config", false, "print every effective setting, and exit")
}

// prefix is none that Kubernetes makes of the Service's name for its own
// variables.
const prefix = "SVIDECAR_ADMISSION_"

func variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// complete reads the variables, and checks what does not need the API server.
func (o *options) complete(fs *pflag.FlagSet, environ []string) error {
	if err := readVariables(fs, environ); err != nil {
		return err
	}
	o.webhook.Inject.Mode = inject.Mode(o.mode)
	o.webhook.PodIdentity = webhook.PodIdentity(o.podIdentity)
	switch o.native {
	case "auto":
		o.webhook.DetectNative = true
	case "true", "false":
		o.webhook.Inject.NativeSidecars = o.native == "true"
	default:
		return fmt.Errorf("--native-sidecars %q: it may be auto, true or false", o.native)
	}
	var bad []error
	if o.webhook.Namespace == "" {
		bad = append(bad, errors.New("--namespace is required: that of the webhook itself"))
	}
	if err := o.webhook.Inject.Validate(); err != nil {
		bad = append(bad, errors.New(asFlags.Replace(err.Error())))
	}
	return errors.Join(bad...)
}

// asFlags says what is wrong with the settings in the words of whoever gave them.
var asFlags = strings.NewReplacer(
	"inject: Config.ImagePullPolicy", "--sidecar-image-pull-policy", "inject: Config.Image", "--sidecar-image", "inject: Config.Mode", "--mode",
	"inject: Config.Port", "--port", " and OpsPort", " and --ops-port", "inject: Config.RunAsUser", "--sidecar-run-as-user",
	"inject: Config.TokenExpiration", "--token-expiration", "inject: Config.SPIFFE.HostPath", "--spiffe-host-path",
	"inject: Config.SPIFFE.SocketFile", "--spiffe-socket-file", "inject: Config.Resources", "--sidecar-cpu-*, --sidecar-memory-*", "inject: Config: log-level", "--sidecar-log-level", "inject: Config: ", "--",
)

// print shows each setting as its flag.
func (o *options) print(w io.Writer, fs *pflag.FlagSet) error {
	var err error
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "print-config" && f.Name != "help" && err == nil {
			_, err = fmt.Fprintf(w, "--%s=%s\n", f.Name, f.Value)
		}
	})
	return err
}

// Package inject owns what svidecar does to a pod: it reads the pod as the API
// server sends it, and answers with a JSON patch that adds the sidecar, with the
// reason why it adds none, or with nothing. It never does I/O, never reads a
// clock, and never changes what it does not know: the pod stays raw JSON.
//
// docs/kubernetes.md lists the annotations that it obeys.
package inject

import (
	"encoding/json"
	"errors"
	"strings"
)

// Mode is how the app's requests reach the sidecar.
type Mode string

// The modes. Only ModeEnv works where Pod Security forbids NET_ADMIN.
const (
	ModeAuto     Mode = "auto"     // ModeRedirect where the namespace's Pod Security level allows it, else ModeEnv
	ModeEnv      Mode = "env"      // variables in the app's containers; nothing is intercepted
	ModeRedirect Mode = "redirect" // an init container redirects 169.254.169.254:80 to the sidecar
	ModeAddress  Mode = "address"  // an init container puts 169.254.169.254 on lo, where the sidecar listens
)

// The containers that are ours, by name.
const (
	SidecarName  = "svidecar"
	RedirectName = "svidecar-redirect"
)

// Config holds the settings of one installation, which the annotations of a pod
// refine. Its methods are safe for concurrent use if NewSecret is.
type Config struct {
	Image           string // of the sidecar and of the redirection; required
	ImagePullPolicy string // Always, IfNotPresent or Never; empty leaves it to the API server
	NativeSidecars  bool   // the cluster has them (Kubernetes 1.29); without them init containers get no tokens

	Mode      Mode      // empty means ModeAuto
	Port      int       // of the tokens, on 127.0.0.1; zero means 8000; ModeAddress always takes 80
	OpsPort   int       // of health and metrics; zero means 8001
	Scrape    bool      // serve health and metrics on the pod's address too, and declare the port
	LogLevel  string    // debug, info, warn or error; empty means info
	Resources Resources // of the sidecar and of the redirection
	RunAsUser int64     // of the sidecar, 1 to 2147483647; zero means 65531

	TenantID        string // where neither the pod nor its service account names one; may be empty
	Cloud           string // public, usgov or china; empty means public, or that of AuthorityHost
	AuthorityHost   string // https URL; empty means that of Cloud
	TokenExpiration int64  // life of the projected token in seconds, 3600 to 86400; zero means 3600
	CAConfigMap     string // name of a ConfigMap in the pod's namespace, whose key ca.crt is trusted for AuthorityHost too; may be empty
	HTTPSProxy      string // by which the sidecar reaches Entra; may be empty
	NoProxy         string // what the sidecar asks without HTTPSProxy; may be empty

	SPIFFE SPIFFE

	// NewSecret makes the header by which a pod's clients know themselves to its
	// sidecar: 16 printable characters at least. Nil means 130 random bits.
	NewSecret func() string
}

// Resources are Kubernetes quantities. An empty one means the default, "none"
// leaves it out.
type Resources struct {
	CPURequest    string // default 10m
	MemoryRequest string // default 32Mi
	CPULimit      string // default none
	MemoryLimit   string // default 128Mi
}

// SPIFFE says where pods that want the source spiffe find the Workload API.
type SPIFFE struct {
	CSIDriver  string // that mounts the socket's directory; empty means csi.spiffe.io
	HostPath   string // the socket's directory on each node, to use in place of CSIDriver; may be empty
	SocketFile string // name of the socket in that directory; empty means spire-agent.sock
}

// Identity is one identity that the pod may ask for. The JSON names are those of
// the annotation svidecar.io/identities.
type Identity struct {
	ClientID         string   `json:"clientId"`
	TenantID         string   `json:"tenantId,omitempty"` // empty means the pod's
	ObjectID         string   `json:"objectId,omitempty"`
	ResourceID       string   `json:"resourceId,omitempty"`
	Default          bool     `json:"default,omitempty"` // answers requests that name none; at most one does
	AllowedResources []string `json:"allowedResources,omitempty"`
}

// Input is one pod and what surrounds it.
type Input struct {
	Pod             []byte            // JSON, as in the admission request
	Namespace       string            // the pod's own may be empty at admission
	NamespaceLabels map[string]string // for pod-security.kubernetes.io/enforce

	// ServiceAccountAnnotations are those of the pod's service account.
	ServiceAccountAnnotations map[string]string

	// Identities were bound to the pod by its label aadpodidbinding. One or more
	// inject the sidecar without an annotation.
	Identities []Identity
}

// Result is what is to be done.
type Result struct {
	Patch    []byte   // RFC 6902; nil if nothing is to be done
	Warnings []string // for whoever creates the pod, one line each
	Injected bool     // the patched pod has our sidecar
	Mode     Mode     // how its requests reach the sidecar; empty without one
}

// Validate reports what is wrong with the settings of the installation.
func (c Config) Validate() error {
	_, err := c.complete()
	return err
}

// Mutate decides what to do with a pod. Mutating the patched pod again gives no
// patch, so it may be called as often as other webhooks make it necessary; a
// container that they added gets its variables then.
//
// An error refuses the pod: it is one line for whoever creates it, and names the
// annotation, its value, and what is allowed.
func (c Config) Mutate(in Input) (Result, error) {
	cfg, err := c.complete()
	if err != nil {
		return Result{}, err
	}
	p, err := parsePod(in.Pod)
	if err != nil {
		return Result{}, err
	}
	m := &mutation{cfg: cfg, in: in, pod: p}
	if err := m.run(); err != nil {
		return Result{}, err
	}
	res := Result{Warnings: m.warnings, Injected: m.mode != "", Mode: m.mode}
	if len(p.ops) > 0 {
		if res.Patch, err = json.Marshal(p.ops); err != nil {
			return Result{}, errors.New("inject: internal error: " + err.Error())
		}
	}
	return res, nil
}

// Alone reports, by a pod's annotations and labels, whether Mutate answers by the
// pod alone. Input then needs Pod and Namespace only, and no look-up that fails can
// refuse a pod which wants nothing.
func Alone(annotations, labels map[string]string) bool {
	for _, key := range []string{keyInject, keyTheirInject} {
		if value, found := annotations[key]; found {
			yes, err := readBool(value)
			return err != nil || !yes && labels[keyUse] != "true"
		}
	}
	return false
}

// oneLine joins what is wrong.
func oneLine(problems []error) error {
	var texts []string
	for _, err := range problems {
		texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

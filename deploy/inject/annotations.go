package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The keys that inject, or say that we have. Those of azure-workload-identity
// are honoured so that its pods need no change.
const (
	ours   = "svidecar.io/"
	theirs = "azure.workload.identity/"

	keyInject      = ours + "inject"
	keyInjected    = ours + "injected"
	keyTheirInject = theirs + "inject-proxy-sidecar"
	keyUse         = theirs + "use" // a label
	keyExpiration  = theirs + "service-account-token-expiration"
	keyClientID    = theirs + "client-id" // of the service account
	keyTenantID    = theirs + "tenant-id" // of the service account
)

// Annotation is one annotation of a pod that is obeyed.
type Annotation struct {
	Name    string
	Allowed string // in words
	Meaning string

	setting string // the sidecar's own setting that it is handed to
	read    func(*wish, string) error
}

// wish is what a pod asks for.
type wish struct {
	mode          Mode
	modeFrom      string // who chose it
	port          int
	portChosen    bool // by our annotation
	opsPort       int
	scrape        bool
	runAsUser     int64
	userChosen    bool // by our annotation
	resources     Resources
	chosen        Resources // of these, by our annotations
	settings      []settingValue
	spiffe        bool
	identities    []Identity
	skip, skipUse []string // containers to leave alone
	expiration    int64
}

// Annotations lists the annotations of a pod, in the order of
// docs/kubernetes.md.
func Annotations() []Annotation { return slices.Clone(annotations) }

const (
	wantsBool  = "true or false"
	wantsPort  = "a port from 1 to 65535"
	wantsNames = `names of containers, separated by ";"`
)

// annotations is the table. What becomes a setting of the sidecar is judged by
// the sidecar's own parser.
var annotations = []Annotation{
	{Name: keyInject, Allowed: wantsBool, read: readNothing,
		Meaning: "`true` adds the sidecar. `false` keeps it out, whatever else asks for it. It outranks `azure.workload.identity/inject-proxy-sidecar`"},
	{Name: ours + "mode", Allowed: "auto, env, redirect, address", read: readMode,
		Meaning: "how requests reach the sidecar: see [modes](#modes)"},
	{Name: ours + "client-id", Allowed: "a GUID", setting: "client-id",
		Meaning: "the identity that answers requests which name none. Default: the service account's `azure.workload.identity/client-id`"},
	{Name: ours + "tenant-id", Allowed: "a GUID or a verified domain", setting: "tenant-id",
		Meaning: "its tenant. Default: the service account's `azure.workload.identity/tenant-id`, then the installation's"},
	{Name: ours + "identities", Allowed: "a JSON list of objects with clientId, tenantId, objectId, resourceId, default, allowedResources", read: readIdentities,
		Meaning: "the only identities that the pod gets tokens for: see [several identities](#several-identities)"},
	{Name: ours + "source", Allowed: "file, spiffe", read: readSource,
		Meaning: "where assertions come from: `file`, the pod's service-account token; `spiffe`, the SPIFFE Workload API. Default: `file`"},
	{Name: ours + "spiffe-id", Allowed: "a SPIFFE ID", setting: "subject",
		Meaning: "which SPIFFE ID to choose where the agent gives several"},
	{Name: ours + "spiffe-hint", Allowed: "a hint without white space", setting: "spiffe-hint",
		Meaning: "which hint to choose by, in place of `svidecar.io/spiffe-id`"},
	{Name: ours + "audience", Allowed: "an audience without white space", setting: "audience",
		Meaning: "audience of the assertions, where the federated credential names another than the cloud's"},
	{Name: ours + "region", Allowed: "an Azure region", setting: "region",
		Meaning: "whose token endpoint to use. Default: the global one"},
	{Name: ours + "prefetch", Allowed: "resources, separated by commas", setting: "prefetch",
		Meaning: "resources to get tokens for at the start"},
	{Name: ours + "ready-requires-token", Allowed: wantsBool, setting: "ready-requires-token",
		Meaning: "whether the app's containers wait for the tokens of `svidecar.io/prefetch`"},
	{Name: ours + "require-api-version", Allowed: wantsBool, setting: "require-api-version",
		Meaning: "whether requests without api-version are refused on the IMDS path"},
	{Name: ours + "log-level", Allowed: "debug, info, warn, error", setting: "log-level",
		Meaning: "least level that the sidecar logs"},
	{Name: ours + "port", Allowed: wantsPort, read: readPort,
		Meaning: "of the tokens, on 127.0.0.1. It outranks `azure.workload.identity/proxy-sidecar-port`"},
	{Name: ours + "ops-port", Allowed: wantsPort, read: readOpsPort,
		Meaning: "of health and metrics"},
	{Name: ours + "scrape", Allowed: wantsBool, read: readScrape,
		Meaning: "whether health and metrics are served on the pod's address too, as port `svidecar-ops`"},
	{Name: ours + "skip-containers", Allowed: wantsNames, read: readSkip,
		Meaning: "containers that get no variables in mode `env`"},
	{Name: ours + "run-as-user", Allowed: "a number from 1 to 2147483647", read: readUser,
		Meaning: "user id of the sidecar, which must not be one of the app's"},
	{Name: ours + "cpu-request", Allowed: "a quantity, or none", read: readQuantity(func(r *Resources) *string { return &r.CPURequest }),
		Meaning: "of the sidecar, and of the init container"},
	{Name: ours + "memory-request", Allowed: "a quantity, or none", read: readQuantity(func(r *Resources) *string { return &r.MemoryRequest }),
		Meaning: "as above"},
	{Name: ours + "cpu-limit", Allowed: "a quantity, or none", read: readQuantity(func(r *Resources) *string { return &r.CPULimit }),
		Meaning: "as above"},
	{Name: ours + "memory-limit", Allowed: "a quantity, or none", read: readQuantity(func(r *Resources) *string { return &r.MemoryLimit }),
		Meaning: "as above"},
	{Name: keyInjected, Allowed: "env, redirect, address", read: readNothing,
		Meaning: "written by svidecar: the pod has been done, in this mode. Not for you to set"},
	{Name: keyTheirInject, Allowed: wantsBool, read: readNothing,
		Meaning: "`true` adds the sidecar, as azure-workload-identity's webhook would add its own. Its `false` keeps it out"},
	{Name: theirs + "proxy-sidecar-port", Allowed: wantsPort, read: readTheirPort,
		Meaning: "as `svidecar.io/port`, but for mode `address`, where it does nothing"},
	{Name: keyExpiration, Allowed: "seconds, from 3600 to 86400", read: readExpiration,
		Meaning: "life of the service-account token. It outranks the service account's annotation of that name"},
	{Name: theirs + "skip-containers", Allowed: wantsNames, read: readSkipUse,
		Meaning: "containers that the label `azure.workload.identity/use` does nothing for"},
}

// readNothing is for annotations that are read before the others.
func readNothing(*wish, string) error { return nil }

// apply reads one annotation into the wish.
func (a Annotation) apply(w *wish, value string) error {
	var err error
	switch {
	case a.setting == "":
		err = a.read(w, value)
	case value == "":
		err = errNotAllowed
	default:
		err = checkSetting(a.setting, value)
		w.settings = append(w.settings, settingValue{a.setting, value})
	}
	if err == errNotAllowed {
		return fmt.Errorf("annotation %s: %s is not allowed: it may be %s", a.Name, quote(value), a.Allowed)
	}
	if err != nil {
		return fmt.Errorf("annotation %s: %w", a.Name, err)
	}
	return nil
}

// readWish reads the pod's annotations over what the installation and the
// service account say.
func (m *mutation) readWish(inject bool) (wish, error) {
	w := wish{
		mode: m.cfg.Mode, modeFrom: "the installation's mode", port: m.cfg.Port, opsPort: m.cfg.OpsPort, scrape: m.cfg.Scrape,
		runAsUser: m.cfg.RunAsUser, resources: m.cfg.Resources, identities: m.in.Identities, expiration: m.cfg.TokenExpiration,
	}
	var bad []error
	if err := w.readServiceAccount(m.in.ServiceAccountAnnotations); err != nil {
		bad = append(bad, err)
	}
	faults, _ := m.read(&w, theirs) // first, so that ours outrank them
	bad = append(bad, faults...)
	if inject {
		faults, _ := m.read(&w, ours)
		bad = append(bad, faults...)
	}
	if err := w.resources.check(ours); err != nil && len(bad) == 0 {
		bad = append(bad, fmt.Errorf("annotation %w", err))
	}
	return w, oneLine(bad)
}

// mostFaults bounds how many annotations one refusal names.
const mostFaults = 40

// read reads the pod's annotations with a prefix. One of ours that is unknown is an error; theirs may have more than we
// know.
func (m *mutation) read(w *wish, prefix string) (bad []error, found bool) {
	given := m.pod.strings("metadata", "annotations")
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		found = true
		if len(bad) >= mostFaults {
			return append(bad, errors.New("and there may be more")), true
		}
		i := slices.IndexFunc(annotations, func(a Annotation) bool { return a.Name == key })
		switch {
		case i >= 0:
			if err := annotations[i].apply(w, given[key]); err != nil {
				bad = append(bad, err)
			}
		case prefix == ours:
			bad = append(bad, fmt.Errorf("annotation %s: it is unknown: %s", quote(key), nearest(key)))
		}
	}
	return bad, found
}

// readServiceAccount reads the one annotation that a pod outranks.
func (w *wish) readServiceAccount(annotations map[string]string) error {
	value, ok := annotations[keyExpiration]
	if !ok {
		return nil
	}
	if err := readExpiration(w, value); err != nil {
		return fmt.Errorf("annotation %s of the service account: %s is not allowed: it may be seconds, from %d to %d", keyExpiration, quote(value), minExpiration, maxExpiration)
	}
	return nil
}

// nearest names the annotations of ours that a mistyped one may have meant.
func nearest(key string) string {
	var close, all []string
	for _, a := range annotations {
		name, found := strings.CutPrefix(a.Name, ours)
		if !found || a.Name == keyInjected {
			continue
		}
		all = append(all, name)
		known, typed := bare(name), bare(strings.TrimPrefix(key, ours))
		if strings.Contains(known, typed) || strings.Contains(typed, known) {
			close = append(close, a.Name)
		}
	}
	if len(close) > 0 {
		return "did you mean " + strings.Join(close, " or ") + "?"
	}
	return "there are " + strings.Join(all, ", ")
}

// bare is s without what people write differently.
func bare(s string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(s))
}

// quote is %q, cut to a length that fits a line.
func quote(s string) string {
	const most = 120
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "…"
}

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// namespaceFile is where kubelet tells a pod its namespace, unless
// automountServiceAccountToken is off.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// templateVariable is what a subject may hold as {{name}}. Its value is that of the
// environment variable env, which Kubernetes' downward API fills, or else what
// other finds.
type templateVariable struct {
	name  string
	env   string // empty: there is none
	field string // of the pod, as a fieldRef's fieldPath names it
	other func() (value, from string, err error)
}

// templateVariables are all there are. A table of ours, never the whole
// environment: what an app or an image puts there must not name anybody.
var templateVariables = []templateVariable{
	{name: "namespace", env: "SVIDECAR_POD_NAMESPACE", field: "metadata.namespace", other: mountedNamespace},
	{name: "serviceaccount", env: "SVIDECAR_SERVICE_ACCOUNT", field: "spec.serviceAccountName"},
	{name: "pod", env: "SVIDECAR_POD_NAME", field: "metadata.name"},
	{name: "node", env: "SVIDECAR_NODE_NAME", field: "spec.nodeName"},
	{name: "hostname", other: hostname},
}

func templateVariableNames() (names, environs []string) {
	for _, v := range templateVariables {
		names = append(names, v.name)
		if v.env != "" {
			environs = append(environs, v.env)
		}
	}
	return names, environs
}

func mountedNamespace() (value, from string, err error) {
	data, err := readBounded(namespaceFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	return strings.TrimSpace(string(data)), "file " + namespaceFile, err
}

func hostname() (value, from string, err error) {
	value, err = os.Hostname()
	return value, "the system's host name", err
}

// isTemplate: no SPIFFE ID holds a brace, so that one is always meant as part of
// a variable.
func isTemplate(subject string) bool { return strings.ContainsAny(subject, "{}") }

const spiffeScheme = "spiffe://"

// checkTemplate refuses what no values could make a SPIFFE ID of, and variables
// that are not in the table.
func checkTemplate(subject string) error {
	domain, path, _ := strings.Cut(strings.TrimPrefix(subject, spiffeScheme), "/")
	switch {
	case !strings.HasPrefix(subject, spiffeScheme):
		return fmt.Errorf("%s has a variable and is no SPIFFE ID: write it like %sexample.org/ns/{{namespace}}", quote(subject), spiffeScheme)
	case isTemplate(domain):
		return fmt.Errorf("%s has a variable in the trust domain: write that out, since variables stand in the path only", quote(subject))
	}
	for segment := range strings.SplitSeq(path, "/") {
		if err := checkTemplateSegment(segment); err != nil {
			return fmt.Errorf("%s: %w", quote(subject), err)
		}
	}
	return nil
}

func checkTemplateSegment(segment string) error {
	name, ok := variableIn(segment)
	names, _ := templateVariableNames()
	switch {
	case !isTemplate(segment):
		return nil
	case !ok:
		// Two values side by side could be divided in two ways: a-b and c, or a and b-c.
		return fmt.Errorf("%s is neither plain text nor one variable: write a variable as a whole segment without spaces, such as /{{namespace}}/", quote(segment))
	case !slices.Contains(names, name):
		return fmt.Errorf("unknown variable %s (known are %s)%s", quote(name), strings.Join(names, ", "), didYouMean(name, names, "use one of them"))
	}
	return nil
}

// variableIn gives the name in a segment that is one variable.
func variableIn(segment string) (name string, ok bool) {
	name, opens := strings.CutPrefix(segment, "{{")
	name, closes := strings.CutSuffix(name, "}}")
	return name, opens && closes && name != "" && !isTemplate(name) && !hasSpace(name)
}

// expandSubject puts values for the variables of the subject at key, and notes
// where they came from. A value is one segment of a SPIFFE ID or is refused, so
// that none changes the ID's shape. After a problem the subject stays as it is.
func (l *loader) expandSubject(key string, subject *string) {
	if !isTemplate(*subject) {
		return
	}
	segments, sources, before := strings.Split(*subject, "/"), []string(nil), len(l.list)
	for _, v := range templateVariables {
		if !slices.Contains(segments, v.written()) {
			continue
		}
		value, from, err := v.value(l.env)
		if err != nil {
			l.add(l.where(key), err)
			continue
		}
		for i := range segments {
			if segments[i] == v.written() {
				segments[i] = value
			}
		}
		sources = append(sources, v.name+" from "+from)
	}
	if len(l.list) > before {
		return
	}
	expanded := strings.Join(segments, "/")
	if err := checkExpanded(expanded); err != nil {
		l.add(l.where(key), err)
		return
	}
	*subject = expanded
	o := l.cfg.from[key]
	o.text += "; " + strings.Join(sources, ", ")
	l.cfg.from[key] = o
}

func checkExpanded(subject string) error {
	if _, err := spiffeid.FromString(subject); err != nil {
		return fmt.Errorf("%s is not a SPIFFE ID (%w): correct what stands around the variables", quote(subject), err)
	}
	_, err := parseClaim(subject)
	return err
}

// refuseTemplate is for the subjects that are compared with what others issue.
func (l *loader) refuseTemplate(key, subject string) {
	if isTemplate(subject) {
		l.addf(l.where(key), "%s has a variable, which only sources of kind %s replace: write the SPIFFE ID out", quote(subject), KindLocal)
	}
}

// written is the variable as a template holds it.
func (v templateVariable) written() string { return "{{" + v.name + "}}" }

func (v templateVariable) value(env map[string]string) (value, from string, err error) {
	if v.env != "" {
		value, from = env[v.env], "env "+v.env
	}
	if value == "" && v.other != nil {
		value, from, err = v.other()
	}
	switch {
	case err != nil:
		return "", "", fmt.Errorf("%s has no value: %w", v.written(), err)
	case value == "":
		return "", "", v.unset()
	}
	if err := spiffeid.ValidatePathSegment(value); err != nil {
		return "", "", fmt.Errorf("%s is %s (%s), which is not one segment of a SPIFFE ID: give a value of letters, digits, dots, dashes and underscores", v.written(), quote(value), from)
	}
	return value, from, nil
}

func (v templateVariable) unset() error {
	if v.env == "" {
		return fmt.Errorf("%s has no value: give this machine a host name, or write the name out", v.written())
	}
	return fmt.Errorf("%s has no value: set %s; in a pod by valueFrom: {fieldRef: {fieldPath: %s}}", v.written(), v.env, v.field)
}

package config_test

import (
	"os"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/internal/config"
)

// pod is what the downward API gives a pod.
var pod = []string{
	"SVIDECAR_POD_NAMESPACE=shop", "SVIDECAR_SERVICE_ACCOUNT=cart",
	"SVIDECAR_POD_NAME=cart-7d4b9c-x2x9p", "SVIDECAR_NODE_NAME=node-1.example",
}

// templated loads a local source with this subject.
func templated(t testing.TB, subject string, environ ...string) (*config.Config, error) {
	t.Helper()
	args := []string{"--source=local", "--issuer=https://issuer.example", "--key-file=k", "--subject=" + subject}
	return load(t, args, with([]string{"AZURE_TENANT_ID=" + tenant}, environ...))
}

func TestTemplateRefuses(t *testing.T) {
	const known = `known are namespace, serviceaccount, pod, node, hostname`
	const shape = ` is neither plain text nor one variable: write a variable as a whole segment without spaces, such as /{{namespace}}/`
	for _, tt := range []struct{ name, subject, want string }{
		{"mistyped", "spiffe://a.example/{{namespce}}", `"spiffe://a.example/{{namespce}}": unknown variable "namespce" (` + known + `); did you mean "namespace"?`},
		{"in another style", "spiffe://a.example/{{service-account}}", `"spiffe://a.example/{{service-account}}": unknown variable "service-account" (` + known + `); did you mean "serviceaccount"?`},
		{"capitals", "spiffe://a.example/{{Pod}}", `"spiffe://a.example/{{Pod}}": unknown variable "Pod" (` + known + `); did you mean "pod"?`},
		{"unknown", "spiffe://a.example/{{AZURE_TENANT_ID}}", `"spiffe://a.example/{{AZURE_TENANT_ID}}": unknown variable "AZURE_TENANT_ID" (` + known + `); use one of them`},
		{"no name", "spiffe://a.example/{{}}", `"spiffe://a.example/{{}}": "{{}}"` + shape},
		{"spaces", "spiffe://a.example/{{ pod }}", `"spiffe://a.example/{{ pod }}": "{{ pod }}"` + shape},
		{"one brace", "spiffe://a.example/{pod}", `"spiffe://a.example/{pod}": "{pod}"` + shape},
		{"three braces", "spiffe://a.example/{{{pod}}}", `"spiffe://a.example/{{{pod}}}": "{{{pod}}}"` + shape},
		{"not closed", "spiffe://a.example/{{pod", `"spiffe://a.example/{{pod": "{{pod"` + shape},
		{"half closed", "spiffe://a.example/{{pod}", `"spiffe://a.example/{{pod}": "{{pod}"` + shape},
		{"not opened", "spiffe://a.example/pod}}", `"spiffe://a.example/pod}}": "pod}}"` + shape},
		{"closed in the next segment", "spiffe://a.example/{{po/d}}", `"spiffe://a.example/{{po/d}}": "{{po"` + shape},
		{"part of a segment", "spiffe://a.example/ns-{{pod}}", `"spiffe://a.example/ns-{{pod}}": "ns-{{pod}}"` + shape},
		{"two in a segment", "spiffe://a.example/{{namespace}}{{pod}}", `"spiffe://a.example/{{namespace}}{{pod}}": "{{namespace}}{{pod}}"` + shape},
		{"nested", "spiffe://a.example/{{{{pod}}}}", `"spiffe://a.example/{{{{pod}}}}": "{{{{pod}}}}"` + shape},
		{"trust domain", "spiffe://{{namespace}}/app", `"spiffe://{{namespace}}/app" has a variable in the trust domain: write that out, since variables stand in the path only`},
		{"part of the trust domain", "spiffe://a.{{namespace}}.example/app", `"spiffe://a.{{namespace}}.example/app" has a variable in the trust domain: write that out, since variables stand in the path only`},
		{"all of it", "{{namespace}}", `"{{namespace}}" has a variable and is no SPIFFE ID: write it like spiffe://example.org/ns/{{namespace}}`},
		{"Kubernetes' subject", "system:serviceaccount:{{namespace}}:a", `"system:serviceaccount:{{namespace}}:a" has a variable and is no SPIFFE ID: write it like spiffe://example.org/ns/{{namespace}}`},
		{"another scheme", "SPIFFE://a.example/{{pod}}", `"SPIFFE://a.example/{{pod}}" has a variable and is no SPIFFE ID: write it like spiffe://example.org/ns/{{namespace}}`},
		{"trust domain in capitals", "spiffe://A.example/{{pod}}",
			`"spiffe://A.example/cart-7d4b9c-x2x9p" is not a SPIFFE ID (trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores): correct what stands around the variables`},
		{"slash at the end", "spiffe://a.example/{{pod}}/",
			`"spiffe://a.example/cart-7d4b9c-x2x9p/" is not a SPIFFE ID (path cannot have a trailing slash): correct what stands around the variables`},
		{"too long", "spiffe://a.example/" + strings.Repeat("a", 570) + "/{{pod}}",
			`"spiffe://a.example/` + strings.Repeat("a", 101) + `"… holds white space or is longer than 600 characters: a federated credential cannot name it`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := templated(t, tt.subject, pod...)
			wantError(t, err, "subject (from flag --subject): "+tt.want)
		})
	}
}

func TestTemplateWantsValues(t *testing.T) {
	_, err := templated(t, "spiffe://a.example/{{serviceaccount}}/{{node}}/{{pod}}/{{pod}}")
	wantError(t, err, `subject (from flag --subject): {{serviceaccount}} has no value: set SVIDECAR_SERVICE_ACCOUNT; in a pod by valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}`+"\n"+
		`subject (from flag --subject): {{pod}} has no value: set SVIDECAR_POD_NAME; in a pod by valueFrom: {fieldRef: {fieldPath: metadata.name}}`+"\n"+
		`subject (from flag --subject): {{node}} has no value: set SVIDECAR_NODE_NAME; in a pod by valueFrom: {fieldRef: {fieldPath: spec.nodeName}}`)
}

// TestTemplateValuesKeepTheShape: whoever names a namespace, a pod or a node must
// not choose how many segments the ID has, nor be another's by a dot segment.
func TestTemplateValuesKeepTheShape(t *testing.T) {
	for _, value := range []string{
		"shop/sa/admin", "shop/", "/shop", "/", ".", "..", "a/../b", "a b", " shop", "shop\n", "shop\x00", "%2F", "shop%2fadmin", "a:b", "a@b", "a?b", "a#b", `a\b`,
		"{{pod}}", "{{", "täg", "sh\u200bop", "\u2215",
	} {
		_, err := templated(t, "spiffe://a.example/ns/{{namespace}}/sa/{{serviceaccount}}", "SVIDECAR_POD_NAMESPACE="+value, "SVIDECAR_SERVICE_ACCOUNT=cart")
		if err == nil || !strings.HasPrefix(err.Error(), "subject (from flag --subject): {{namespace}} is ") || strings.Contains(err.Error(), "\n") ||
			!strings.Contains(err.Error(), "(env SVIDECAR_POD_NAMESPACE), which is not one segment of a SPIFFE ID") {
			t.Errorf("namespace %q: %v, want one line that refuses the value", value, err)
		}
	}
}

func TestTemplateExpands(t *testing.T) {
	c, err := templated(t, "spiffe://a.example/ns/{{namespace}}/sa/{{serviceaccount}}/{{node}}/{{pod}}/{{namespace}}", pod...)
	if err != nil {
		t.Fatal(err)
	}
	const want = "spiffe://a.example/ns/shop/sa/cart/node-1.example/cart-7d4b9c-x2x9p/shop"
	value, from := shown(t, c, "subject")
	const origin = "flag --subject; namespace from env SVIDECAR_POD_NAMESPACE, serviceaccount from env SVIDECAR_SERVICE_ACCOUNT, " +
		"pod from env SVIDECAR_POD_NAME, node from env SVIDECAR_NODE_NAME"
	if c.Subject != want || c.Sources[0].Subject != want || value != want || from != origin {
		t.Errorf("subject %q, of the source %q, shown as %q from %q; want %q from %q", c.Subject, c.Sources[0].Subject, value, from, want, origin)
	}
	again := mustLoad(t, c.Flags(), nil)
	if again.Subject != want {
		t.Errorf("after its flags the subject is %q, want %q", again.Subject, want)
	}
}

func TestTemplateOfAListedSource(t *testing.T) {
	inDir(t, map[string]string{"svidecar.yaml": "sources:\n- name: own\n  kind: local\n  issuer: https://issuer.example\n  key-file: k\n  subject: spiffe://a.example/{{namespace}}\n"})
	for _, tt := range []struct {
		name, want string
		environ    []string
	}{
		{"wrong", `svidecar.yaml:6: sources[0].subject: {{namespace}} is ".." (env SVIDECAR_POD_NAMESPACE), which is not one segment of a SPIFFE ID: ` +
			`give a value of letters, digits, dots, dashes and underscores`, []string{"SVIDECAR_POD_NAMESPACE=.."}},
		{"right", "", pod},
	} {
		c, err := load(t, []string{"--config=svidecar.yaml"}, with(tt.environ, "AZURE_TENANT_ID="+tenant))
		if tt.want != "" {
			wantError(t, err, tt.want)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		value, from := shown(t, c, "sources[0].subject")
		if want := "file svidecar.yaml:6; namespace from env SVIDECAR_POD_NAMESPACE"; value != "spiffe://a.example/shop" || from != want {
			t.Errorf("shown as %q from %q, want it from %q", value, from, want)
		}
	}
}

func TestTemplateHostname(t *testing.T) {
	host, err := os.Hostname()
	if err != nil || spiffeid.ValidatePathSegment(host) != nil {
		t.Skipf("this system's host name is %q (%v)", host, err)
	}
	c, err := templated(t, "spiffe://a.example/{{hostname}}", "=C:=C:\\a") // as Windows keeps its directories
	if err != nil {
		t.Fatal(err)
	}
	_, from := shown(t, c, "subject")
	if c.Subject != "spiffe://a.example/"+host || from != "flag --subject; hostname from the system's host name" {
		t.Errorf("subject %q from %q", c.Subject, from)
	}
}

// TestTemplateIsForLocalSources: the subject of another kind is compared, and
// would never be equal.
func TestTemplateIsForLocalSources(t *testing.T) {
	const want = `"spiffe://a.example/{{pod}}" has a variable, which only sources of kind local replace: write the SPIFFE ID out`
	_, err := load(t, []string{"--source=spiffe", "--spiffe-socket=unix:///run/api.sock", "--subject=spiffe://a.example/{{pod}}"}, with(pod, "AZURE_TENANT_ID="+tenant))
	wantError(t, err, "subject (from flag --subject): "+want)
	inDir(t, map[string]string{"svidecar.yaml": "sources:\n- {name: a, kind: spiffe, socket: 'unix:///run/api.sock', subject: 'spiffe://a.example/{{pod}}'}\n"})
	_, err = load(t, []string{"--config=svidecar.yaml"}, with(pod, "AZURE_TENANT_ID="+tenant))
	wantError(t, err, "svidecar.yaml:2: sources[0].subject: "+want)
}

// FuzzTemplate holds that what loads is a SPIFFE ID that differs from its
// template in whole segments only, and there by the value alone.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []struct{ subject, namespace string }{
		{"spiffe://a.example/ns/{{namespace}}/sa/x", "shop"}, {"spiffe://a.example/{{namespace}}", "a/b"}, {"spiffe://{{namespace}}/x", "a"},
		{"spiffe://a.example/{{namespace}}/{{namespace}}", ".."}, {"{{namespace}}", "spiffe://a/b"}, {"spiffe://a/{{{namespace}}}", "a"}, {"spiffe:///{{namespace}}", "a"},
		{"spiffe://a/{{namespace}}/", "{{pod}}"}, {"spiffe://a//{{namespace}}", "\x00"}, {"spiffe://a", "a"}, {"spiffe://a/{{name\nspace}}", "a"}, {"}}{{", "}}"},
	} {
		f.Add(seed.subject, seed.namespace)
	}
	f.Fuzz(func(t *testing.T, subject, namespace string) {
		c, err := templated(t, subject, "SVIDECAR_POD_NAMESPACE="+namespace)
		if err != nil || !strings.ContainsAny(subject, "{}") {
			return
		}
		if strings.Contains(subject, "{{hostname}}") || namespace == "" {
			return // other values than the fuzzer's
		}
		if _, err := spiffeid.FromString(c.Subject); err != nil {
			t.Errorf("Load(%q) with %q gives %q: %v", subject, namespace, c.Subject, err)
		}
		before, after := strings.Split(subject, "/"), strings.Split(c.Subject, "/")
		if len(before) != len(after) {
			t.Fatalf("Load(%q) with %q gives %q, which has another number of segments", subject, namespace, c.Subject)
		}
		for i := range before {
			if after[i] != before[i] && (before[i] != "{{namespace}}" || after[i] != namespace || i < 3) {
				t.Errorf("Load(%q) with %q gives %q, whose segment %d is not its own", subject, namespace, c.Subject, i)
			}
		}
	})
}

//go:build e2e && linux

package kubernetes_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
	"github.com/svidecar/svidecar/exchange/entratest"
)

// provideEverywhere has the API server give each pod of the namespace what stands for Entra here, as no pod reaches
// anything outside. So the manifests of a document are applied as they stand.
const provideEverywhere = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: (namespace)}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: (namespace)}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: |
        Object{spec: Object.spec{
          volumes: [Object.spec.volumes{name: "entra", secret: Object.spec.volumes.secret{secretName: "entra"}}],
          initContainers: [Object.spec.initContainers{
            name: "entra", image: "e2e.invalid/entra:e2e", imagePullPolicy: "Never", restartPolicy: "Always",
            volumeMounts: [Object.spec.initContainers.volumeMounts{name: "entra", mountPath: "/etc/entra", readOnly: true}]}]}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: (namespace)}
spec: {policyName: (namespace)}
`

// standIns are the programs of the page that are not here. Docker builds and pushes only what the Dockerfile has; az leaves what
// it was asked for. Helm is helm, with what this cluster needs: whatever the page sets wins.
var standIns = map[string]string{
	"docker": `#!/bin/bash
case "$1" in
build) grep -q "^FROM base AS $3\$" Dockerfile && [ "$2 $6 $7" = "--target --tag e2e.invalid/$3:e2e" ] ;;
push) [[ "$2" == e2e.invalid/*:e2e ]] ;;
*) false ;;
esac || { echo "docker: $*" >&2; exit 1; }
echo "$2" >>"$STAND_IN/docker.said"
`,
	"az": `#!/bin/bash
printf '%s\n' "$@" >"$STAND_IN/az.said"
`,
	"helm": `#!/bin/bash
more=(--timeout 90s)
if [ "$1" = install ]; then more+=(--set-json "$HELM_ENV" --set "$HELM_VALUES"); fi
exec "$HELM" "$@" "${more[@]}"
`,
}

// TestQuickstart does what docs/quickstart.md says, word by word: the chart by real helm, an app of aad-pod-identity by
// kubectl, and one annotation. What az is told is what Entra then trusts.
func TestQuickstart(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	page := newQuickstart(t, ns)
	shared.Do(t, "create", "namespace", "svidecar-system")
	provideEntra(t, "svidecar-system") // the authority that each sidecar mounts
	page.run(t, "# Quickstart", "## 1.", "## 2.", "## 3.")
	t.Cleanup(func() { helm(t, "uninstall", "svidecar", "--namespace", "svidecar-system", "--wait") })
	subject := "system:serviceaccount:" + ns + ":whoami"
	if c := page.credential(t); c != (entratest.FederatedCredential{Issuer: cluster.Issuer, Subject: subject, Audience: audience}) {
		t.Fatalf("az was asked for the credential %+v", c)
	}
	provideEntra(t, ns, entratest.App{ClientID: clientID, TenantID: tenantID, Credentials: []entratest.FederatedCredential{page.credential(t)}})
	shared.Apply(t, "", strings.ReplaceAll(provideEverywhere, "(namespace)", ns))
	t.Cleanup(func() {
		shared.Do(t, "delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", ns)
	})
	shared.Eventually(t, func() error { // the API server takes a moment to know a policy
		out, err := shared.Kubectl(t, "", "run", "any", "--image=any", "--namespace", ns, "--dry-run=server", "--output=jsonpath={.spec.initContainers[*].name}")
		if err == nil && out != "entra" {
			err = fmt.Errorf("a pod has the init containers %q", out)
		}
		return err
	})
	page.run(t, "## 4.")

	want := `{"appid":"` + clientID + `","tid":"` + tenantID + `","aud":"https://vault.azure.net"}`
	pod := strings.TrimSpace(shared.Do(t, "get", "pods", "--namespace", ns, "--selector=app=whoami", "--output", `jsonpath={.items[?(@.metadata.annotations.svidecar\.io/injected=="redirect")].metadata.name}`))
	if line := shared.WaitLog(t, ns, pod, "whoami", "{"); line != want {
		t.Errorf("the app's first line is %s, want %s", line, want)
	}
	if a := entraCalls(t, ns, pod).Assertions[clientID]; a.Subject != subject {
		t.Errorf("Entra was shown the subject %q, want %q", a.Subject, subject)
	}
	told := page.run(t, "## When it shows an error")
	for _, part := range []string{cluster.Issuer, subject, audience, clientID} {
		if !strings.Contains(told, part) {
			t.Errorf("what the page has one look at lacks %s:\n%s", part, told)
		}
	}
	if table := page.run(t, "## All the other"); !regexp.MustCompile(`(?m)^` + ns + ` +whoami-\S+ +redirect$`).MatchString(table) {
		t.Errorf("the table of pods to move lacks whoami:\n%s", table)
	}
	page.run(t, "## Back")
	if left := shared.Do(t, "get", "deployment", "whoami", "--namespace", ns, "--output", "jsonpath={.spec.template.metadata.annotations}"); strings.Contains(left, "svidecar.io") {
		t.Errorf("after the way back the template has the annotations %s", left)
	}
}

// quickstart is the page, and where its commands run.
type quickstart struct {
	blocks []string // of each section, its heading and its commands
	top    string   // of the checkout
	env    []string
	dir    string // of what stand-ins leave
}

func newQuickstart(t *testing.T, namespace string) *quickstart {
	t.Helper()
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(top, "docs/quickstart.md"))
	if err != nil {
		t.Fatal(err)
	}
	real, err := exec.LookPath("helm")
	if err != nil {
		t.Fatal(err)
	}
	q := &quickstart{top: top, dir: t.TempDir()}
	for name, script := range standIns {
		if err := os.WriteFile(filepath.Join(q.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, section := range strings.Split(string(text), "\n## ") {
		if i > 0 {
			section = "## " + section
		}
		q.blocks = append(q.blocks, section)
	}
	// The images are here already, by the names that the page gives them.
	values := "hostNetwork=true,replicas=1,networkPolicy.enabled=false,image.pullPolicy=Never,sidecar.image.pullPolicy=Never," +
		"sidecar.caConfigMap=entra-ca,authorityHost=" + entraHost
	q.env = append(os.Environ(), "PATH="+q.dir+":"+os.Getenv("PATH"), "KUBECONFIG="+shared.Kubeconfig(), "HELM="+real, "HELM_ENV=env="+apiServer, "HELM_VALUES="+values,
		"HELM_CACHE_HOME="+q.dir, "HELM_CONFIG_HOME="+q.dir, "HELM_DATA_HOME="+q.dir, "STAND_IN="+q.dir, "QUICKSTART_NAMESPACE="+namespace)
	return q
}

// ours replaces what the page has a reader fill in.
var ours = strings.NewReplacer(
	"REGISTRY=registry.example.com/svidecar TAG=dev", "REGISTRY=e2e.invalid TAG=e2e",
	"TENANT_ID=22222222-2222-2222-2222-222222222222", "TENANT_ID="+tenantID,
	"CLIENT_ID=11111111-1111-1111-1111-111111111111", "CLIENT_ID="+clientID,
	"NAMESPACE=default", "NAMESPACE=$QUICKSTART_NAMESPACE",
)

// run runs the commands of sections in one shell, after those of the first section, and gives what they print.
func (q *quickstart) run(t *testing.T, sections ...string) string {
	t.Helper()
	script := "set -euo pipefail\n"
	for _, heading := range append([]string{"# Quickstart"}, sections...) {
		script += q.commands(t, heading)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = q.top, q.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		state, _ := shared.Kubectl(t, "", "get", "pods,events", "--all-namespaces")
		t.Fatalf("%q of docs/quickstart.md: %v\n%s\n%s", sections, err, out, state)
	}
	return string(out)
}

func (q *quickstart) commands(t *testing.T, heading string) (script string) {
	t.Helper()
	for _, section := range q.blocks {
		if !strings.HasPrefix(section, heading) {
			continue
		}
		for i, part := range strings.Split(section, "```") {
			if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
				script += ours.Replace(block)
			}
		}
	}
	if script == "" {
		t.Fatalf("docs/quickstart.md has no commands under %q", heading)
	}
	return script
}

// credential is what az was asked to make.
func (q *quickstart) credential(t *testing.T) (c entratest.FederatedCredential) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(q.dir, "az.said"))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i, arg := range args[:len(args)-1] {
		switch arg {
		case "--issuer":
			c.Issuer = args[i+1]
		case "--subject":
			c.Subject = args[i+1]
		case "--audiences":
			c.Audience = args[i+1]
		}
	}
	return c
}

//go:build e2e && linux

package webhook_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// helm runs helm, which keeps nothing of ours.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("helm", args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG="+shared.Kubeconfig())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const chart = "../../deploy/chart"

// TestManifestsAreTheChart holds deploy/manifests against what the chart gives by default.
func TestManifestsAreTheChart(t *testing.T) {
	shared.API(t)
	out, err := helm(t, "template", "svidecar", chart, "--namespace", system, "--no-hooks")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(manifests, "svidecar-webhook.yaml")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(kept), out); diff != "" {
		t.Errorf("helm template svidecar deploy/chart --namespace %s --no-hooks gives another %s (-file +chart):\n%s", system, file, diff)
	}
	if out, err := helm(t, "lint", chart, "--strict"); err != nil {
		t.Errorf("helm lint: %v\n%s", err, out)
	}
}

// TestChartRefuses holds that a mistyped value is told, and not forgotten; that one which is null, for which helm forgets
// the default, is refused wherever it stands; and that no value has the webhook wait for itself.
func TestChartRefuses(t *testing.T) {
	shared.API(t)
	for set, want := range map[string]string{
		"sidecar.porrt=8000":                           "porrt",
		"podIdentity=standard":                         "podIdentity",
		"tenantId=not-a-tenant":                        "tenantId",
		"image.repository=example.com/x:tag":           "repository",
		"sidecar.port=8001":                            "choose two",
		"ports.metrics=8081":                           "choose three",
		"failurePolicy=fail":                           "failurePolicy",
		"sidecar.image.digest=sha256:abc":              "digest",
		"sidecar.tokenExpiration=60":                   "tokenExpiration",
		"sidecar.resources.limits.cpu=1c":              "cpu",
		"authorityHost=http://insecure":                "authorityHost",
		"shutdownDelay=999m":                           "shutdownDelay",
		"shutdownDelay=61s":                            "shutdownDelay",
		"shutdownDelay=60001ms":                        "shutdownDelay",
		"shutdownDelay=0s":                             "shutdownDelay", // the program would take its default
		`podAnnotations.svidecar\.io/inject=x`:         "wait for the webhook",
		`podLabels.azure\.workload\.identity/use=true`: "wait for the webhook",
		"podLabels.aadpodidbinding=orders":             "wait for the webhook",
		`podLabels.app\.kubernetes\.io/name=x`:         "sets itself",
		"replicas=null":                                "replicas",
		"podIdentity=null":                             "podIdentity",
		"requireSidecar=null":                          "requireSidecar",
		"excludedNamespaces=null":                      "excludedNamespaces",
		"networkPolicy=null":                           "networkPolicy",
		"networkPolicy.enabled=null":                   "enabled",
		"networkPolicy.apiServerPorts=null":            "apiServerPorts",
		"ports.health=null":                            "health",
		"image.repository=null":                        "repository",
		"sidecar.mode=null":                            "mode",
		"sidecar.image.tag=null":                       "tag",
		"sidecar.resources.limits.memory=null":         "memory",
		"sidecar.spiffe.hostPath=null":                 "hostPath",
	} {
		flag, missing := "--set-string", strings.HasSuffix(set, "=null")
		if _, value, _ := strings.Cut(set, "="); missing || strings.Trim(value, "0123456789") == "" {
			flag = "--set"
		}
		out, err := helm(t, "template", "svidecar", chart, flag, set)
		if err == nil || !strings.Contains(out, want) || missing && !strings.Contains(out, "missing propert") {
			t.Errorf("%s %s: %v, want a refusal that names %s:\n%.300s", flag, set, err, want, out)
		}
	}
}

// TestChartWarns holds that whoever installs the chart is told where pods may come without the sidecar.
func TestChartWarns(t *testing.T) {
	shared.API(t)
	for set, want := range map[string]string{
		"failurePolicy=Ignore":                        "",
		"podIdentity=cluster":                         "",
		"failurePolicy=Ignore,requireSidecar=false":   "pods that ask for the sidecar start without it",
		"failurePolicy=Ignore,podIdentity=namespaced": "by their label aadpodidbinding\nstart without the sidecar",
		"failurePolicy=Ignore,podIdentity=cluster":    "by their label aadpodidbinding\nstart without the sidecar",
	} {
		out, err := helm(t, "install", "svidecar", chart, "--dry-run=client", "--set", set)
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "WARNING") != (want != "") {
			_, notes, _ := strings.Cut(out, "NOTES:")
			t.Errorf("--set %s: %v, want the warning %q:\n%s", set, err, want, notes)
		}
	}
}

// TestChartInstalls holds that a real API server takes the chart with everything turned on, or off.
func TestChartInstalls(t *testing.T) {
	shared.API(t)
	for name, values := range map[string][]string{
		"on":  {"--set", "shutdownDelay=1m,podLabels.team=x,podAnnotations.e2e\\.invalid/key=x,podIdentity=cluster,hostNetwork=true,priorityClassName=system-cluster-critical,sidecar.image.digest=sha256:" + strings.Repeat("0", 64) + ",networkPolicy.webhookFrom[0].ipBlock.cidr=10.0.0.4/32,networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus"},
		"off": {"--set", "requireSidecar=false,networkPolicy.enabled=false,replicas=1,failurePolicy=Ignore", "--set-json", "excludedNamespaces=[]"},
	} {
		ns := shared.Namespace(t)
		out, err := helm(t, append([]string{"template", name, chart, "--namespace", ns}, values...)...)
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		if _, err := shared.Kubectl(t, out, "apply", "--filename", "-", "--dry-run=server"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

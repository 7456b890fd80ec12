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

// TestChartRefuses holds that a mistyped value is told, and not forgotten.
func TestChartRefuses(t *testing.T) {
	shared.API(t)
	for set, want := range map[string]string{
		"sidecar.porrt=8000":                 "porrt",
		"podIdentity=standard":               "podIdentity",
		"tenantId=not-a-tenant":              "tenantId",
		"image.repository=example.com/x:tag": "repository",
		"sidecar.port=8001":                  "choose two",
		"ports.metrics=8081":                 "choose three",
		"failurePolicy=fail":                 "failurePolicy",
		"sidecar.image.digest=sha256:abc":    "digest",
		"sidecar.tokenExpiration=60":         "tokenExpiration",
		"sidecar.resources.limits.cpu=1c":    "cpu",
		"authorityHost=http://insecure":      "authorityHost",
	} {
		out, err := helm(t, "template", "svidecar", chart, "--set-string", set)
		if numeric := strings.HasPrefix(want, "choose") || strings.HasSuffix(set, "=60") || strings.HasSuffix(set, "=8000"); numeric {
			out, err = helm(t, "template", "svidecar", chart, "--set", set)
		}
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("--set %s: %v, want a refusal that names %s:\n%.300s", set, err, want, out)
		}
	}
}

// TestChartInstalls holds that a real API server takes the chart with everything turned on, or off.
func TestChartInstalls(t *testing.T) {
	shared.API(t)
	for name, values := range map[string]string{
		"on":  "podIdentity=cluster,hostNetwork=true,priorityClassName=system-cluster-critical,sidecar.image.digest=sha256:" + strings.Repeat("0", 64) + ",networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
		"off": "requireSidecar=false,networkPolicy.enabled=false,replicas=1,failurePolicy=Ignore,excludedNamespaces=null",
	} {
		ns := shared.Namespace(t)
		out, err := helm(t, "template", name, chart, "--namespace", ns, "--set", values)
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		if _, err := shared.Kubectl(t, out, "apply", "--filename", "-", "--dry-run=server"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

//go:build e2e && linux

package kubernetes_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// chartValues are those of a cluster whose API server reaches only what is on the node's own link.
const chartValues = "hostNetwork=true,replicas=1,networkPolicy.enabled=false," +
	"image.repository=e2e.invalid/svidecar-webhook,image.tag=e2e,image.pullPolicy=Never," +
	"sidecar.image.repository=e2e.invalid/svidecar,sidecar.image.tag=e2e,sidecar.image.pullPolicy=Never"

// apiServer is where it listens, in place of a Service that leads nowhere without kube-proxy.
const apiServer = `[{"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"}, {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}]`

// TestChart installs the chart with helm, waits for its webhook, runs the chart's own test, in which a pod gets the
// sidecar and finds it ready, upgrades it without losing the certificate, and removes it without a trace.
func TestChart(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	tenant := "tenantId=" + tenantID
	helm(t, "install", "svidecar", "../../deploy/chart", "--namespace", ns, "--set-json", "env="+apiServer, "--set", chartValues, "--wait", "--timeout", "90s")
	secret := func() string {
		return shared.Do(t, "get", "secret", "svidecar-webhook", "--namespace", ns, "--output", `jsonpath={.data.tls\.crt}`)
	}
	before := secret()
	helm(t, "test", "svidecar", "--namespace", ns, "--timeout", "90s")
	helm(t, "upgrade", "svidecar", "../../deploy/chart", "--namespace", ns, "--set-json", "env="+apiServer, "--set", chartValues, "--set", tenant, "--wait", "--timeout", "90s")
	if before == "" || secret() != before {
		t.Error("the upgrade lost the certificate")
	}
	helm(t, "test", "svidecar", "--namespace", ns, "--timeout", "90s")
	helm(t, "uninstall", "svidecar", "--namespace", ns, "--wait")
	left := shared.Do(t, "get", "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingadmissionpolicy,validatingadmissionpolicybinding", "--output", "name")
	if strings.Contains(left, "svidecar") {
		t.Errorf("it left behind:\n%s", left)
	}
}

func helm(t *testing.T, args ...string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("helm", args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG="+shared.Kubeconfig())
	if out, err := cmd.CombinedOutput(); err != nil {
		logs, _ := shared.Kubectl(t, "", "logs", "--namespace", args[slices.Index(args, "--namespace")+1], "--selector", "app.kubernetes.io/instance=svidecar", "--all-containers", "--prefix", "--tail=20")
		t.Fatalf("helm %s: %v: %s\n%s", strings.Join(args, " "), err, out, logs)
	}
}

//go:build e2e && linux

package kubernetes_test

import (
	"encoding/json"
	"errors"
	"fmt"
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
// sidecar and finds it ready, upgrades it and rolls that back without losing the certificate, and removes it without a
// trace but its Lease. The policy that docs/kubernetes.md keeps outlives it, and is all that then refuses a pod.
func TestChart(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	tenant := "tenantId=" + tenantID
	helm(t, "install", "svidecar", "../../deploy/chart", "--namespace", ns, "--set-json", "env="+apiServer, "--set", chartValues, "--wait", "--timeout", "90s")
	secret := func() string {
		return shared.Do(t, "get", "secret", "svidecar-webhook", "--namespace", ns, "--output", `jsonpath={.data.tls\.crt}`)
	}
	before := secret()
	shared.Eventually(t, func() error { // a replica is ready a moment before the API server is told of its authority
		if shared.Do(t, "get", "mutatingwebhookconfiguration", "svidecar-webhook", "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}") == "" {
			return errors.New("the configuration has no authority")
		}
		return nil
	})
	helm(t, "test", "svidecar", "--namespace", ns, "--timeout", "90s")
	helm(t, "upgrade", "svidecar", "../../deploy/chart", "--namespace", ns, "--set-json", "env="+apiServer, "--set", chartValues, "--set", tenant, "--wait", "--timeout", "90s")
	if before == "" || secret() != before {
		t.Error("the upgrade lost the certificate")
	}
	helm(t, "test", "svidecar", "--namespace", ns, "--timeout", "90s")
	helm(t, "rollback", "svidecar", "1", "--namespace", ns, "--wait", "--timeout", "90s")
	if secret() != before {
		t.Error("the rollback lost the certificate")
	}
	helm(t, "test", "svidecar", "--namespace", ns, "--timeout", "90s")
	kept := helm(t, "template", "svidecar", "../../deploy/chart", "--namespace", ns, "--set", "fullnameOverride=svidecar-kept", "--show-only", "templates/policy.yaml")
	shared.Apply(t, ns, kept)
	helm(t, "uninstall", "svidecar", "--namespace", ns, "--wait")
	wantKept(t, ns, kept)
	if lease := shared.Do(t, "get", "leases", "--namespace", ns, "--output", "name"); strings.TrimSpace(lease) != "lease.coordination.k8s.io/svidecar-webhook" {
		t.Errorf("of leases it left %q behind", lease)
	}
	left := shared.Do(t, "get", "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,validatingadmissionpolicy,validatingadmissionpolicybinding", "--output", "name")
	left += shared.Do(t, "get", "deployment,service,secret,networkpolicy,poddisruptionbudget,serviceaccount,role,rolebinding", "--namespace", ns, "--output", "name")
	if strings.Contains(left, "svidecar") {
		t.Errorf("it left behind:\n%s", left)
	}
}

// wantKept holds that the kept policy refuses a pod that asks while there is no webhook, and that without it the pod is
// created as it is. It ends without the policy.
func wantKept(t *testing.T, ns, policy string) {
	t.Helper()
	shared.Do(t, "create", "serviceaccount", account, "--namespace", ns)
	asking, err := json.Marshal(annotate(workload(t, "orders"), redirected))
	if err != nil {
		t.Fatal(err)
	}
	created := func() (string, error) {
		return shared.Kubectl(t, string(asking), "create", "--namespace", ns, "--filename", "-", "--dry-run=server", "--output", "jsonpath={.spec.initContainers[*].name}")
	}
	shared.Eventually(t, func() error {
		if _, err := created(); err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'svidecar-kept'") {
			return fmt.Errorf("with the kept policy a pod that asks: %v", err)
		}
		return nil
	})
	if _, err := shared.Kubectl(t, policy, "delete", "--filename", "-"); err != nil {
		t.Fatal(err)
	}
	shared.Eventually(t, func() error {
		names, err := created()
		if err == nil && strings.Contains(names, "svidecar") {
			err = fmt.Errorf("it has containers %s", names)
		}
		return err
	})
}

// helm gives its output, and fails the test with the log of the webhook.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("helm", args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir, "KUBECONFIG="+shared.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if err != nil {
		logs, _ := shared.Kubectl(t, "", "logs", "--namespace", args[slices.Index(args, "--namespace")+1], "--selector", "app.kubernetes.io/instance=svidecar", "--all-containers", "--prefix", "--tail=20")
		t.Fatalf("helm %s: %v: %s\n%s", strings.Join(args, " "), err, out, logs)
	}
	return string(out)
}

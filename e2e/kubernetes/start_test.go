//go:build e2e && linux

package kubernetes_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/svidecar/svidecar/deploy/inject"
)

// TestReadyRequiresToken holds the app back until the token that it will ask for is there, and starts it then.
func TestReadyRequiresToken(t *testing.T) {
	t.Parallel()
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod, _ := injected(t, ns, nil, annotate(workload(t, "orders"), map[string]string{
		"svidecar.io/mode": "redirect", "svidecar.io/prefetch": "https://vault.azure.net", "svidecar.io/ready-requires-token": "true",
	}))
	entraFirst(t, pod)
	at[object](t, containerOf(t, pod, "initContainers", "entra"), "startupProbe", "exec")["command"] = []string{
		"/entra", "PUT", "/faults", `{"scope":"*","fault":{"status":503}}`,
	}
	applyObjects(t, ns, pod)
	const scope = "https://vault.azure.net/.default"
	shared.Eventually(t, func() error {
		s, err := askEntra(t, ns, "orders")
		if err == nil && s.Scopes[scope] < 2 { // at the second one it has had an answer, and waits still
			err = fmt.Errorf("Entra was asked for %v, want %s twice", s.Scopes, scope)
		}
		return err
	})
	wantUnstarted(t, statusOf(t, ns, "orders"), "app")
	if _, err := shared.Exec(t, ns, "orders", "entra", "/entra", "DELETE", "/faults"); err != nil {
		t.Fatal(err)
	}
	shared.WaitReady(t, ns, "pod/orders")
	wantIdentity(t, ns, "orders", "app", clientID)
}

// entraFirst lets Entra start before the sidecar, as the real one is there before any pod.
func entraFirst(t *testing.T, pod object) {
	t.Helper()
	all := at[[]any](t, pod, "spec", "initContainers")
	i := slices.IndexFunc(all, func(c any) bool { return c.(object)["name"] == "entra" })
	entra := all[i]
	pod["spec"].(object)["initContainers"] = slices.Insert(slices.Delete(all, i, i+1), 0, entra)
}

// TestClassic holds that without native sidecars the app, too, gets its token, at its first attempt.
func TestClassic(t *testing.T) {
	t.Parallel()
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod, _ := injectedBy(t, func(c *inject.Config) { c.NativeSidecars = false }, ns, nil, annotate(workload(t, "orders"), redirected))
	if first := at[[]any](t, pod, "spec", "containers")[0].(object)["name"]; first != "svidecar" {
		t.Fatalf("the first container is %s, want svidecar", first)
	}
	applyObjects(t, ns, pod)
	shared.WaitReady(t, ns, "pod/orders")
	wantIdentity(t, ns, "orders", "app", clientID)
}

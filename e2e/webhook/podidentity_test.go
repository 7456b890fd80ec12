//go:build e2e && linux

package webhook_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// definitions are aad-pod-identity's, without what they say of fields.
func definitions() string {
	var all strings.Builder
	for kind, plural := range map[string]string{
		"AzureIdentity": "azureidentities", "AzureIdentityBinding": "azureidentitybindings", "AzurePodIdentityException": "azurepodidentityexceptions",
	} {
		fmt.Fprintf(&all, `
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.aadpodidentity.k8s.io, annotations: {api-approved.kubernetes.io: "unapproved, as theirs"}}
spec:
  group: aadpodidentity.k8s.io
  names: {kind: %[2]s, listKind: %[2]sList, plural: %[1]s, singular: %[3]s}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, plural, kind, strings.ToLower(kind))
	}
	return all.String()
}

const bound = `
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: orders}
spec:
  type: 0
  clientID: bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb
  resourceID: /subscriptions/33333333-3333-3333-3333-333333333333/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orders
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: {name: orders}
spec: {azureIdentity: orders, selector: orders}
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzurePodIdentityException
metadata: {name: system}
spec: {podLabels: {tier: system}}
`

// TestPodIdentity runs the webhook with the chart's rights for the objects of aad-pod-identity, and its conditions. A pod
// that is made a moment after its binding has its identity.
func TestPodIdentity(t *testing.T) {
	install(t)
	shared.Apply(t, "default", definitions())
	t.Cleanup(func() { // another test wants a cluster without them
		shared.Do(t, "delete", "crd", "azureidentities.aadpodidentity.k8s.io", "azureidentitybindings.aadpodidentity.k8s.io",
			"azurepodidentityexceptions.aadpodidentity.k8s.io")
	})
	shared.Do(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
	out, err := helm(t, "template", "svidecar", chart, "--namespace", system, "--no-hooks", "--set", "podIdentity=cluster", "--show-only", "templates/rbac.yaml", "--show-only", "templates/webhook.yaml")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	shared.Apply(t, system, out)
	first.kill()
	first = start(t, 0, "--pod-identity=cluster")
	first.waitReady(t)
	defer func() {
		first.kill()
		shared.Do(t, "apply", "--filename", manifests)
		first = start(t, 0)
		first.waitReady(t)
	}()

	ns := shared.Namespace(t)
	shared.Apply(t, ns, bound)
	p, err := create(t, ns, pod("p", "", "aadpodidbinding: orders"))
	if err != nil {
		t.Fatal(err)
	}
	if names := containers(p); !slices.Contains(names, "svidecar") || !strings.Contains(fmt.Sprint(p.Spec.InitContainers), "bbbbbbbb-bbbb") {
		t.Errorf("containers %v, want the sidecar with its identity", names)
	}
	if p, err = create(t, ns, pod("p", "", "aadpodidbinding: orders, tier: System")); err != nil || slices.Contains(containers(p), "svidecar") {
		t.Errorf("an excepted pod has containers %v: %v", containers(p), err)
	}
	shared.Do(t, "delete", "azureidentity", "orders", "--namespace", ns)
	wait(t, "the identity to be gone", func() error {
		if _, err := create(t, ns, pod("p", "", "aadpodidbinding: orders")); err == nil || !strings.Contains(err.Error(), `AzureIdentity "orders"`) {
			return fmt.Errorf("the pod was not refused: %w", err)
		}
		return nil
	})
	if log := first.text(); strings.Contains(log, "forbidden") {
		t.Errorf("the webhook lacks a right:\n%s", first.tail())
	}
}

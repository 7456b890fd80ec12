//go:build e2e && linux

package kubernetes_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestDocumentedManifest applies the manifest of docs/operations.md as it stands, in a namespace whose Pod Security
// level is restricted. The test adds what azure-workload-identity's webhook adds, the images, and Entra.
func TestDocumentedManifest(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	items := documented(t, "## In Kubernetes")
	client := workloadIdentity(t, items)
	provideEntra(t, ns, federated(client, ns, "orders"))
	applyObjects(t, ns, items...)
	shared.WaitFor(t, ns, "deployment/orders", "condition=Available")

	pod := strings.TrimPrefix(strings.TrimSpace(shared.Do(t, "get", "pods", "--namespace", ns, "--selector", "app=orders", "--output", "name")), "pod/")
	if line, want := shared.WaitLog(t, ns, pod, "app", "{"), `"appid":"`+client+`"`; !strings.Contains(line, want) {
		t.Errorf("the app's first line is %s, want it to hold %s", line, want)
	}
	subject := "system:serviceaccount:" + ns + ":orders"
	if a := entraCalls(t, ns, pod).Assertions[client]; a.Subject != subject {
		t.Errorf("Entra was shown the subject %q, want %q", a.Subject, subject)
	}
	if out, err := shared.Exec(t, ns, pod, "svidecar", "/svidecar", "mint"); err != nil || !strings.Contains(out, subject) {
		t.Errorf("svidecar mint: %v in\n%s\nwant the subject %s", err, out, subject)
	}
}

// documented reads the first manifest below a heading of docs/operations.md.
func documented(t *testing.T, heading string) (items []object) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n"+heading+"\n")
	_, text, _ = strings.Cut(text, "\n```yaml\n")
	text, _, found := strings.Cut(text, "\n```\n")
	if !found {
		t.Fatalf("docs/operations.md has no manifest below %q", heading)
	}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var item object
		err := d.Decode(&item)
		if errors.Is(err, io.EOF) {
			return items
		}
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
}

// workloadIdentity does to the Deployment what azure-workload-identity's webhook does to its pods, and gives the client
// id that the service account is annotated with.
func workloadIdentity(t *testing.T, items []object) (client string) {
	t.Helper()
	for _, item := range items {
		switch item["kind"] {
		case "ServiceAccount":
			client = at[string](t, item, "metadata", "annotations", "azure.workload.identity/client-id")
		case "Deployment":
			spec := at[object](t, item, "spec", "template", "spec")
			spec["terminationGracePeriodSeconds"] = 1
			prepare(t, spec, client)
		}
	}
	if client == "" {
		t.Fatal("the manifest has no ServiceAccount with a client id")
	}
	return client
}

// prepare changes a pod's spec.
func prepare(t *testing.T, spec object, client string) {
	t.Helper()
	app, side := only(t, spec, "containers"), only(t, spec, "initContainers")
	app["image"], side["image"] = "e2e.invalid/app:e2e", "e2e.invalid/svidecar:e2e"
	env, _ := side["env"].([]any)
	for name, value := range map[string]string{
		"AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenantID, "AZURE_AUTHORITY_HOST": entraHost,
		"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token",
		"SVIDECAR_AUTHORITY_CA_FILE": entraCA,
	} {
		env = append(env, object{"name": name, "value": value})
	}
	side["env"] = env
	side["volumeMounts"] = []object{
		{"name": "azure-identity-token", "mountPath": "/var/run/secrets/azure/tokens", "readOnly": true},
		{"name": "entra-ca", "mountPath": "/etc/entra-ca", "readOnly": true},
	}
	spec["initContainers"] = append(list(t, entraContainer), side)
	spec["volumes"] = append(list(t, entraVolumes), object{"name": "azure-identity-token", "projected": object{"sources": []object{
		{"serviceAccountToken": object{"path": "azure-identity-token", "audience": audience, "expirationSeconds": 3600}},
	}}})
}

// only gives the one element of a list of objects.
func only(t *testing.T, spec object, name string) object {
	t.Helper()
	all, _ := spec[name].([]any)
	if len(all) != 1 {
		t.Fatalf("%s has %d elements, want 1", name, len(all))
	}
	o, ok := all[0].(object)
	if !ok {
		t.Fatalf("%s is a list of %T", name, all[0])
	}
	return o
}

func list(t *testing.T, text string) (items []object) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &items); err != nil {
		t.Fatal(err)
	}
	return items
}

// at follows keys into an object.
func at[V any](t *testing.T, o object, keys ...string) V {
	t.Helper()
	var next any = o
	for _, key := range keys {
		below, ok := next.(object)
		if !ok {
			t.Fatalf("%v has no %s", next, strings.Join(keys, "."))
		}
		next = below[key]
	}
	v, ok := next.(V)
	if !ok {
		t.Fatalf("%s is a %T", strings.Join(keys, "."), next)
	}
	return v
}

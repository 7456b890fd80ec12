//go:build e2e && linux

package kubernetes_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
	"github.com/svidecar/svidecar/exchange/entratest"
)

const account = "orders" // service account of the injected pods

// installation is the injector's, for pods that have Entra in them.
func installation() inject.Config {
	return inject.Config{
		Image: cluster.Ref("svidecar"), ImagePullPolicy: "Never", NativeSidecars: true,
		TenantID: tenantID, AuthorityHost: entraHost, CAConfigMap: "entra-ca",
	}
}

// workload is a pod of the app before injection: it knows nothing of the sidecar. Args are the app's.
func workload(t *testing.T, name string, args ...string) object {
	t.Helper()
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{"name": name, "annotations": object{"svidecar.io/inject": "true"}},
		"spec": object{
			"serviceAccountName": account, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1,
			"securityContext": object{"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": object{"type": "RuntimeDefault"}},
			"volumes":         list(t, entraVolumes),
			"initContainers":  list(t, entraContainer),
			"containers":      []object{appContainer("app", args...)},
		},
	}
}

func appContainer(name string, args ...string) object {
	return object{
		"name": name, "image": cluster.Ref("app"), "imagePullPolicy": "Never", "args": args,
		"securityContext": object{"allowPrivilegeEscalation": false, "capabilities": object{"drop": []string{"ALL"}}, "readOnlyRootFilesystem": true},
	}
}

func annotate(pod object, pairs map[string]string) object {
	meta := pod["metadata"].(object)
	for key, value := range pairs {
		meta["annotations"].(object)[key] = value
	}
	return pod
}

// settle makes the service account of the workloads, with the identity that it is annotated with, and their Entra.
func settle(t *testing.T, namespace string, more ...string) {
	t.Helper()
	apps := []entratest.App{federated(clientID, namespace, account)}
	for _, client := range more {
		apps = append(apps, federated(client, namespace, account))
	}
	provideEntra(t, namespace, apps...)
	applyObjects(t, namespace, object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{
		"name": account, "annotations": accountAnnotations(),
	}})
}

func accountAnnotations() map[string]string {
	return map[string]string{"azure.workload.identity/client-id": clientID}
}

// injected is the pod as the injector patches it.
func injected(t *testing.T, namespace string, labels map[string]string, pod object) (patched object, res inject.Result) {
	t.Helper()
	return injectedBy(t, func(*inject.Config) {}, namespace, labels, pod)
}

// injectedBy is injected by an installation with other settings.
func injectedBy(t *testing.T, change func(*inject.Config), namespace string, labels map[string]string, pod object) (patched object, res inject.Result) {
	t.Helper()
	cfg, raw := installation(), marshal(t, pod)
	change(&cfg)
	res, err := cfg.Mutate(inject.Input{
		Pod: raw, Namespace: namespace, NamespaceLabels: labels, ServiceAccountAnnotations: accountAnnotations(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !res.Injected {
		t.Fatalf("nothing was injected; warnings: %q", res.Warnings)
	}
	patch, err := jsonpatch.DecodePatch(res.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &patched); err != nil {
		t.Fatal(err)
	}
	return patched, res
}

// wantIdentity holds that a container's first line is a token of the client, and that Entra saw the pod's own service
// account for it.
func wantIdentity(t *testing.T, namespace, pod, container, client string) {
	t.Helper()
	want := `{"appid":"` + client + `","tid":"` + tenantID + `","aud":"https://vault.azure.net"}`
	if line := shared.WaitLog(t, namespace, pod, container, "{"); line != want {
		t.Errorf("the first line of %s is %s, want %s", container, line, want)
	}
	subject := "system:serviceaccount:" + namespace + ":" + account
	if a := entraCalls(t, namespace, pod).Assertions[client]; a.Subject != subject {
		t.Errorf("Entra was shown the subject %q for %s, want %q", a.Subject, client, subject)
	}
}

// TestInject holds that an unmodified app gets the token of its pod's identity in each mode, and that auto chooses one
// that the namespace admits. In redirect and address the app has no variable to go by: it asks the address that the SDK
// has built in.
func TestInject(t *testing.T) {
	shared.Node(t)
	for _, tt := range []struct {
		name, level string
		mode, want  inject.Mode
	}{
		{"redirect", "", inject.ModeRedirect, inject.ModeRedirect},
		{"address", "", inject.ModeAddress, inject.ModeAddress},
		{"env in a restricted namespace", "restricted", inject.ModeEnv, inject.ModeEnv},
		{"auto without a level", "", inject.ModeAuto, inject.ModeRedirect},
		{"auto in a privileged namespace", "privileged", inject.ModeAuto, inject.ModeRedirect},
		{"auto in a baseline namespace", "baseline", inject.ModeAuto, inject.ModeEnv},
		{"auto in a restricted namespace", "restricted", inject.ModeAuto, inject.ModeEnv},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns, labels := leveled(t, tt.level)
			settle(t, ns)
			pod, res := injected(t, ns, labels, annotate(workload(t, "orders"), map[string]string{"svidecar.io/mode": string(tt.mode)}))
			if res.Mode != tt.want {
				t.Fatalf("the mode is %s, want %s", res.Mode, tt.want)
			}
			_, variables := containerOf(t, pod, "containers", "app")["env"]
			if wantVariables := tt.want == inject.ModeEnv; variables != wantVariables {
				t.Fatalf("the app has variables: %v, want %v", variables, wantVariables)
			}
			began := time.Now()
			applyObjects(t, ns, pod)
			shared.WaitReady(t, ns, "pod/orders")
			t.Logf("the pod was ready after %v", time.Since(began).Round(10*time.Millisecond))
			wantIdentity(t, ns, "orders", "app", clientID)
			if log := shared.Logs(t, ns, "orders", "-c", "svidecar"); strings.Contains(log, "eyJ") {
				t.Error("the sidecar's log holds what looks like a token")
			}
		})
	}
}

// leveled is a namespace that enforces a Pod Security level, if any.
func leveled(t *testing.T, level string) (name string, labels map[string]string) {
	t.Helper()
	if level == "" {
		return shared.Namespace(t), nil
	}
	const key = "pod-security.kubernetes.io/enforce"
	return shared.Namespace(t, key+"="+level), map[string]string{key: level}
}

// containerOf finds a container of a pod that was read from JSON.
func containerOf(t *testing.T, pod object, list, name string) object {
	t.Helper()
	for _, c := range at[[]any](t, pod, "spec", list) {
		if c := c.(object); c["name"] == name {
			return c
		}
	}
	t.Fatalf("%s has no %s", list, name)
	return nil
}

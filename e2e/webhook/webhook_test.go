//go:build e2e && linux

package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

const client = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"

// pod is a manifest; annotations and labels are YAML flow maps.
func pod(name, annotations, labels string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {%s}, labels: {%s}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
  initContainers: [{name: setup, image: app.invalid/app, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
  containers: [{name: app, image: app.invalid/app, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
`, name, annotations, labels)
}

// create has the API server do everything to a pod but keep it. What kubectl says beside it are the warnings.
func create(t *testing.T, ns, manifest string) (corev1.Pod, error) {
	t.Helper()
	var p corev1.Pod
	out, err := shared.Kubectl(t, manifest, "create", "--namespace", ns, "--filename", "-", "--dry-run=server", "--output", "json")
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return p, nil
}

// containers are the names in their order, the init containers first.
func containers(p corev1.Pod) (names []string) {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		names = append(names, c.Name)
	}
	return names
}

// account gives a namespace's default service account an identity.
func account(t *testing.T, ns string) {
	t.Helper()
	shared.Do(t, "annotate", "serviceaccount", "default", "--namespace", ns, "azure.workload.identity/client-id="+client)
}

// TestWebhook holds what comes out of a real API server against what was asked for, in each mode.
func TestWebhook(t *testing.T) {
	install(t)
	open, restricted := shared.Namespace(t), shared.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	account(t, open)
	account(t, restricted)
	for _, tt := range []struct {
		name, namespace, annotations, labels string
		want                                 []string // containers
	}{
		{"not asked", open, "", "", []string{"setup", "app"}},
		{"refused by the user", open, `svidecar.io/inject: "false"`, "", []string{"setup", "app"}},
		{"auto where everything is allowed", open, `svidecar.io/inject: "true"`, "", []string{"svidecar-redirect", "svidecar", "setup", "app"}},
		{"auto where little is allowed", restricted, `svidecar.io/inject: "true"`, "", []string{"svidecar", "setup", "app"}},
		{"env", open, `svidecar.io/inject: "true", svidecar.io/mode: env`, "", []string{"svidecar", "setup", "app"}},
		{"redirect", open, `svidecar.io/inject: "true", svidecar.io/mode: redirect`, "", []string{"svidecar-redirect", "svidecar", "setup", "app"}},
		{"address", open, `svidecar.io/inject: "true", svidecar.io/mode: address`, "", []string{"svidecar-redirect", "svidecar", "setup", "app"}},
		{"as for azure-workload-identity's sidecar", open, `azure.workload.identity/inject-proxy-sidecar: "true"`, "", []string{"svidecar-redirect", "svidecar", "setup", "app"}},
		{"as for azure-workload-identity", open, "", `azure.workload.identity/use: "true"`, []string{"setup", "app"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := create(t, tt.namespace, pod("p", tt.annotations, tt.labels))
			if err != nil {
				t.Fatal(err)
			}
			if got := containers(p); !slices.Equal(got, tt.want) {
				t.Errorf("containers %v, want %v", got, tt.want)
			}
			for _, c := range p.Spec.InitContainers {
				if token := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return strings.HasPrefix(m.Name, "kube-api-access-") }); token != (c.Name == "setup") {
					t.Errorf("container %s has the API server's token: %v", c.Name, token)
				}
				if c.Name == "svidecar" && !hasEnv(c, "AZURE_CLIENT_ID", client) {
					t.Errorf("the sidecar does not have the service account's client id: %v", c.Env)
				}
			}
			if use := tt.labels != ""; use != hasEnv(p.Spec.Containers[0], "AZURE_CLIENT_ID", client) {
				t.Errorf("the app has AZURE_CLIENT_ID: %v, want %v", !use, use)
			}
		})
	}
}

func hasEnv(c corev1.Container, name, value string) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name && e.Value == value })
}

// TestPodLevelResources holds that a pod which has no more resources than its containers ask for is admitted with ours.
func TestPodLevelResources(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	const own = "{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}"
	manifest := strings.NewReplacer("spec:\n", "spec:\n  resources: "+own+"\n", "{name: app,", "{name: app, resources: "+own+",").Replace(pod("p", `svidecar.io/inject: "true"`, ""))
	p, err := create(t, ns, manifest)
	if err != nil {
		t.Fatal(err)
	}
	if p.Spec.Resources == nil || p.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("resources %v, quality of service %s: the API server does not know resources of pods", p.Spec.Resources, p.Status.QOSClass)
	}
	for _, c := range p.Spec.InitContainers[:2] {
		if r := c.Resources; len(r.Requests) > 0 || len(r.Limits) > 0 {
			t.Errorf("%s has %v", c.Name, r)
		}
	}
}

// TestRefusals holds that whoever creates a pod is told what is wrong with it.
func TestRefusals(t *testing.T) {
	install(t)
	ns, restricted := shared.Namespace(t), shared.Namespace(t, "pod-security.kubernetes.io/enforce=restricted")
	for _, tt := range []struct {
		name, namespace, annotations, labels string
		want                                 []string
	}{
		{"value", ns, `svidecar.io/inject: "yes"`, "", []string{"svidecar.io/inject", `"yes"`, "true or false"}},
		{"unknown annotation", ns, `svidecar.io/inject: "true", svidecar.io/mod: env`, "", []string{"svidecar.io/mod", "svidecar.io/mode"}},
		{"mirror of a static pod", ns, `svidecar.io/inject: "true", kubernetes.io/config.mirror: abc`, "", []string{"mirror of a static pod", "runs as its file says"}},
		{"mode", restricted, `svidecar.io/inject: "true", svidecar.io/mode: redirect`, "", []string{"NET_ADMIN", `"restricted"`, "auto or env"}},
		{"mistyped, where nothing asks", ns, `svidecar.io/Inject: "true"`, "", []string{"svidecar.io/Inject", "did you mean svidecar.io/inject"}},
		{"label", ns, "", `svidecar.io/inject: "true"`, []string{"label svidecar.io/inject", "make it one"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := create(t, tt.namespace, pod("p", tt.annotations, tt.labels))
			if err == nil {
				t.Fatal("the pod was admitted")
			}
			for _, want := range append(tt.want, `admission webhook "pods.svidecar.io" denied the request: `) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nhas no %s", err, want)
				}
			}
		})
	}
}

// TestAccountMadeWithPod holds that an account which is a moment old counts: the pod follows it as fast as can be.
func TestAccountMadeWithPod(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	http := apiClient(t)
	url := cluster.Server + "/api/v1/namespaces/" + ns + "/"
	for i := range 100 {
		account := fmt.Sprintf("account-%d", i)
		post(t, http, url+"serviceaccounts", fmt.Appendf(nil, `{"metadata": {"name": %q, "annotations": {"azure.workload.identity/client-id": %q}}}`, account, client))
		raw := bytes.Replace(body(t, `svidecar.io/inject: "true"`, ""), []byte(`"spec":{`), fmt.Appendf(nil, `"spec":{"serviceAccountName":%q,`, account), 1)
		var p corev1.Pod
		if err := json.Unmarshal(post(t, http, podsURL(ns), raw), &p); err != nil {
			t.Fatal(err)
		}
		if c := p.Spec.InitContainers[1]; !hasEnv(c, "AZURE_CLIENT_ID", client) {
			t.Fatalf("pod %d: the sidecar does not have the client id of its new account: %v", i, c.Env)
		}
	}
}

// TestWebhookDown holds that a pod which asks is refused while nobody answers, and that any other is none the wiser.
func TestWebhookDown(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	first.kill()
	defer func() {
		first = start(t, 0)
		first.waitReady(t) // long before it gets the lease of the one that was killed
		if _, err := create(t, ns, pod("p", `svidecar.io/inject: "true"`, "")); err != nil {
			t.Error(err)
		}
	}()
	if _, err := create(t, ns, pod("p", `svidecar.io/inject: "true"`, "")); err == nil || !strings.Contains(err.Error(), `failed calling webhook "pods.svidecar.io"`) {
		t.Errorf("a pod that asks: %v; want a refusal because nobody answers", err)
	}
	if _, err := create(t, ns, pod("p", "other.example/key: value", "app: web")); err != nil {
		t.Errorf("a pod that asks for nothing: %v", err)
	}
}

// TestPolicy holds that the API server by itself refuses a pod that asks for the sidecar and comes without: here in a
// namespace that the webhook is not called for.
func TestPolicy(t *testing.T) {
	install(t)
	const ns = "kube-system"
	wait(t, "the account", func() error {
		_, err := shared.Kubectl(t, "", "create", "serviceaccount", "default", "--namespace", ns, "--dry-run=server")
		if err == nil {
			shared.Do(t, "create", "serviceaccount", "default", "--namespace", ns)
		}
		return nil
	})
	for _, tt := range []struct {
		name, annotations string
		refused           bool
	}{
		{"asks", `svidecar.io/inject: "true"`, true},
		{"asks as for azure-workload-identity", `azure.workload.identity/inject-proxy-sidecar: "true"`, true},
		{"asks in another way", `svidecar.io/inject: "True"`, true},
		{"is marked as done", `svidecar.io/injected: redirect`, true},
		{"does not ask", `svidecar.io/inject: "false", azure.workload.identity/inject-proxy-sidecar: "true"`, false},
		{"has no annotation", "", false},
	} {
		_, err := create(t, ns, pod("p", tt.annotations, ""))
		if refused := err != nil && strings.Contains(err.Error(), "has none"); refused != tt.refused || (err != nil) != tt.refused {
			t.Errorf("%s: %v; want it refused: %v", tt.name, err, tt.refused)
		}
	}
	// Something that another webhook put first would run before the redirection.
	mixed := func(mode string, names ...string) string {
		var list []string
		for _, name := range append(names, "setup") {
			list = append(list, "{name: "+name+", image: app.invalid/app}")
		}
		return "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {svidecar.io/inject: \"true\", svidecar.io/injected: " + mode + "}}, " +
			"spec: {initContainers: [" + strings.Join(list, ", ") + "], containers: [{name: app, image: app.invalid/app}]}}"
	}
	for manifest, refused := range map[string]bool{
		mixed("redirect", "svidecar-redirect", "svidecar"):      false,
		mixed("redirect", "z", "svidecar-redirect", "svidecar"): true,
		mixed("address", "svidecar-redirect", "z", "svidecar"):  true,
		mixed("env", "z", "svidecar"):                           false,
	} {
		if _, err := create(t, ns, manifest); (err != nil) != refused || refused && !strings.Contains(err.Error(), "something stands before") {
			t.Errorf("%s: %v; want it refused: %v", manifest, err, refused)
		}
	}
	for _, container := range []string{"svidecar", "azwi-proxy"} {
		manifest := strings.Replace(pod("p", `azure.workload.identity/inject-proxy-sidecar: "true"`, ""), "{name: app,", "{name: "+container+",", 1)
		if _, err := create(t, ns, manifest); err != nil {
			t.Errorf("with container %s: %v", container, err)
		}
	}
}

// TestWarnings holds that kubectl shows what the pod's author should know.
func TestWarnings(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	path := t.TempDir() + "/pod.yaml"
	write(t, path, pod("p", `svidecar.io/inject: "true", svidecar.io/mode: env, svidecar.io/skip-containers: nobody`, ""))
	if out := complaints(t, "create", "--namespace", ns, "--filename", path, "--dry-run=server"); !strings.Contains(out, "Warning: svidecar: annotation svidecar.io/skip-containers names") {
		t.Errorf("kubectl says %q", out)
	}
}

package inject_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4" // the one that the API server applies patches with
	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/deploy/inject"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata and the tables of docs/kubernetes.md")

const (
	tenant  = "11111111-1111-1111-1111-111111111111"
	tenant2 = "22222222-2222-2222-2222-222222222222"
	client  = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	client2 = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
	header  = "PODSECRETPODSECRETPODSECRE"
)

func config() inject.Config {
	return inject.Config{
		Image: "registry.example.com/svidecar:v1", NativeSidecars: true, TenantID: tenant,
		NewSecret: func() string { return header },
	}
}

// object is a JSON object.
type object = map[string]any

// podWith is a pod with these annotations and one container, which change may
// change further.
func podWith(t testing.TB, annotations map[string]string, change func(spec object)) []byte {
	t.Helper()
	spec := object{"containers": []any{object{"name": "app", "image": "app:v1"}}}
	if change != nil {
		change(spec)
	}
	pod := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "p", "annotations": annotations}, "spec": spec}
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// on are the annotations that inject in mode env, and more in pairs.
func on(more ...string) map[string]string {
	m := map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": "env"}
	for i := 0; i+1 < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func mustMutate(t testing.TB, cfg inject.Config, in inject.Input) inject.Result {
	t.Helper()
	res, err := cfg.Mutate(in)
	if err != nil {
		t.Fatalf("Mutate: %v", err)
	}
	return res
}

// patched is the pod after the patch, as the API server makes it.
func patched(t testing.TB, raw, patch []byte) []byte {
	t.Helper()
	if patch == nil {
		return raw
	}
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatalf("DecodePatch(%s): %v", patch, err)
	}
	out, err := p.Apply(raw)
	if err != nil {
		t.Fatalf("applying %s\nto %s: %v", patch, raw, err)
	}
	return out
}

// decoded is the pod as Kubernetes' own types, which must know every field.
func decoded(t testing.TB, raw []byte) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&pod); err != nil {
		t.Fatalf("%v: %.200s", err, raw)
	}
	return &pod
}

// injected mutates, patches and decodes.
func injected(t testing.TB, cfg inject.Config, in inject.Input) (*corev1.Pod, inject.Result) {
	t.Helper()
	res := mustMutate(t, cfg, in)
	return decoded(t, patched(t, in.Pod, res.Patch)), res
}

// named finds a container.
func named(t testing.TB, pod *corev1.Pod, name string) corev1.Container {
	t.Helper()
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("the pod has no container %q", name)
	return corev1.Container{}
}

// reference is what kubelet replaces in a value.
var reference = regexp.MustCompile(`\$\$|\$\([^)]*\)`)

// environ is a container's environment as kubelet makes it from plain values: of
// $$ one dollar is left, and $(NAME) is expanded.
func environ(c corev1.Container) map[string]string {
	env := map[string]string{}
	for _, v := range c.Env {
		env[v.Name] = reference.ReplaceAllStringFunc(v.Value, func(s string) string {
			if s == "$$" {
				return "$"
			}
			return "expanded"
		})
	}
	return env
}

// pairs is the form of os.Environ.
func pairs(env map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func names(containers []corev1.Container) []string {
	var list []string
	for _, c := range containers {
		list = append(list, c.Name)
	}
	return list
}

// wantWarnings leaves out that there is no default identity, which most of the tests' pods have not.
func wantWarnings(t *testing.T, got []string, want ...string) {
	t.Helper()
	got = slices.DeleteFunc(slices.Clone(got), func(w string) bool { return strings.Contains(w, "requests that name no identity") })
	if len(got) != len(want) {
		t.Fatalf("%d warnings, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], "svidecar: ") || !strings.Contains(got[i], want[i]) || strings.Contains(got[i], "\n") {
			t.Errorf("warning %q, want one line with %q", got[i], want[i])
		}
	}
}

package inject_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/inject"
)

// TestAgain: mutating what was mutated does nothing, with another secret and
// after the installation has changed as well.
func TestAgain(t *testing.T) {
	samples(t, func(name string, cfg inject.Config, in inject.Input) {
		t.Run(name, func(t *testing.T) {
			first := mustMutate(t, cfg, in)
			in.Pod = patched(t, in.Pod, first.Patch)
			cfg.NewSecret = func() string { return "another-secret-of-another-call" }
			cfg.Image = "mirror.example.com:5000/svidecar@sha256:0"
			second := mustMutate(t, cfg, in)
			if second.Patch != nil {
				t.Errorf("the second patch is %s", second.Patch)
			}
			if second.Mode != first.Mode || !second.Injected || !slices.Equal(first.Warnings, second.Warnings) {
				t.Errorf("the second call says %+v, the first %+v", second, first)
			}
		})
	})
}

// TestContainersOfOtherWebhooks: what came in between gets its variables, and
// our containers come first again.
func TestContainersOfOtherWebhooks(t *testing.T) {
	samples(t, func(name string, cfg inject.Config, in inject.Input) {
		t.Run(name, func(t *testing.T) {
			in.Pod = patched(t, in.Pod, mustMutate(t, cfg, in).Patch)
			in.Pod = withLate(t, in.Pod)
			pod, res := injected(t, cfg, in)
			late := []string{"late", "late-init"}
			if res.Mode == inject.ModeEnv {
				app := environ(named(t, pod, "app"))
				for _, name := range late {
					if env := environ(named(t, pod, name)); env["IDENTITY_ENDPOINT"] != app["IDENTITY_ENDPOINT"] || env["IDENTITY_HEADER"] != header {
						t.Errorf("%s has %v", name, env)
					}
				}
			}
			want := []string{"svidecar-redirect", "svidecar", "late-init"}
			if res.Mode == inject.ModeEnv {
				want = want[1:]
			}
			if !cfg.NativeSidecars {
				want = []string{"svidecar-redirect", "late-init"}
			}
			if got := names(pod.Spec.InitContainers)[:len(want)]; !slices.Equal(got, want) {
				t.Errorf("init containers %q, want %q first", got, want)
			}
			if first := pod.Spec.Containers[0].Name; !cfg.NativeSidecars && first != "svidecar" {
				t.Errorf("the first container is %q, which nothing holds back", first)
			}
			in.Pod = patched(t, in.Pod, res.Patch)
			if third := mustMutate(t, cfg, in); third.Patch != nil {
				t.Errorf("the third patch is %s", third.Patch)
			}
		})
	})
}

// withLate puts a container before all others of each list.
func withLate(t *testing.T, raw []byte) []byte {
	t.Helper()
	var pod object
	if err := json.Unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	spec := pod["spec"].(object)
	for list, name := range map[string]string{"initContainers": "late-init", "containers": "late"} {
		old, _ := spec[list].([]any)
		spec[list] = append([]any{object{"name": name, "image": "late"}}, old...)
	}
	out, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestUnknownFieldsStay: nothing of the pod is lost or rewritten but what the
// patch names. Kubernetes' types of this version know none of these fields.
func TestUnknownFieldsStay(t *testing.T) {
	change := func(spec object) {
		spec["fieldOfTheFuture"] = object{"a": []any{json.Number("1e400"), json.Number("1.0"), nil, "\u2028<&>"}}
		spec["securityContext"] = object{"future": true, "sysctls": []any{object{"name": "a", "value": "b"}}}
		spec["volumes"] = []any{object{"name": "v", "future": object{}}}
		spec["initContainers"] = []any{object{"name": "i", "future": json.Number("123456789012345678901234567890")}}
		spec["containers"] = []any{object{"name": "c", "future": []any{}, "env": []any{object{"name": "NO_PROXY", "value": "a", "future": 1}}}}
	}
	for _, mode := range []string{"env", "redirect", "address"} {
		t.Run(mode, func(t *testing.T) {
			raw := podWith(t, map[string]string{"svidecar.io/inject": "true", "svidecar.io/mode": mode}, change)
			before := leaves(t, raw)
			after := leaves(t, patched(t, raw, mustMutate(t, config(), inject.Input{Pod: raw}).Patch))
			for leaf, n := range before {
				if after[leaf] < n && leaf != `value="a"` {
					t.Errorf("%s was lost", leaf)
				}
			}
		})
	}
}

// leaves counts the values of a document, numbers as they are written, by their
// nearest key.
func leaves(t *testing.T, raw []byte) map[string]int {
	t.Helper()
	seen := map[string]int{}
	var walk func(key string, raw json.RawMessage)
	walk = func(key string, raw json.RawMessage) {
		var o map[string]json.RawMessage
		var l []json.RawMessage
		switch {
		case json.Unmarshal(raw, &o) == nil && o != nil:
			for k, v := range o {
				walk(k, v)
			}
			seen[key+" {}"]++
		case json.Unmarshal(raw, &l) == nil && l != nil:
			for _, v := range l {
				walk(key, v)
			}
			seen[key+" []"]++
		default:
			var s string
			if json.Unmarshal(raw, &s) == nil && string(raw) != "null" {
				raw = json.RawMessage(fmt.Sprintf("%q", s))
			}
			seen[key+"="+string(raw)]++
		}
	}
	walk("", raw)
	return seen
}

// TestPatchIsMinimal: only what is added stands in the patch.
func TestPatchIsMinimal(t *testing.T) {
	raw := podWith(t, on(), containers(app("NO_PROXY", "a")))
	var ops []struct{ Op, Path string }
	if err := json.Unmarshal(mustMutate(t, config(), inject.Input{Pod: raw}).Patch, &ops); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, op := range ops {
		got = append(got, op.Op+" "+op.Path)
	}
	want := []string{
		"add /spec/initContainers", "add /spec/volumes", "add /spec/volumes/-", "add /metadata/annotations/svidecar.io~1injected",
		"add /spec/containers/0/env/-", "add /spec/containers/0/env/-", "add /spec/containers/0/env/-", "add /spec/containers/0/env/-", "add /spec/containers/0/env/-",
		"add /spec/containers/0/env/0/value", "add /spec/containers/0/env/-",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

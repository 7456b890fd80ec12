package inject_test

import (
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/svidecar/svidecar/deploy/inject"
)

// FuzzMutate holds of any pod whatever: no panic; a refusal is one line; a patch
// applies, and a second call has nothing to add.
func FuzzMutate(f *testing.F) {
	samples(f, func(_ string, _ inject.Config, in inject.Input) { f.Add(in.Pod, true, byte(0)) })
	for i, seed := range []string{
		`{"spec":{}}`, `{"metadata":null,"spec":{"initContainers":null,"containers":[]}}`,
		`{"spec":{"containers":[{"name":"a","env":null},{"name":"a","env":[{"name":"NO_PROXY"},{"name":"NO_PROXY","value":"*"}]}]}}`,
		`{"metadata":{"annotations":{"svidecar.io/injected":"env"}},"spec":{"containers":[{"name":"svidecar"},{"name":"svidecar"}],"initContainers":[{"name":"svidecar-redirect"},{"name":"x"}]}}`,
		`{"metadata":{"annotations":{"svidecar.io/injected":"address","svidecar.io/run-as-user":"2"}},"spec":{"securityContext":{"runAsUser":1e400,"sysctls":null}}}`,
		`{"metadata":{"labels":{"azure.workload.identity/use":"true"}},"spec":{"volumes":[{"name":"azure-identity-token"}],"containers":[{"volumeMounts":[{}]}]}}`,
		`{"metadata":{"annotations":{"svidecar.io/identities":"[{\"clientId\":\"aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa\",\"default\":true}]","svidecar.io/prefetch":"$(a)"}},"spec":{"containers":[{"ports":[{"containerPort":"8000"}]}]}}`,
		`{"spec":{"a/b~c":1,"containers":[{"env":[{"name":"MSI_SECRET","valueFrom":{}}],"envFrom":[{}]}]}}`,
	} {
		f.Add([]byte(seed), i%2 == 0, byte(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, native bool, mode byte) {
		cfg := config()
		cfg.NativeSidecars = native
		cfg.Mode = []inject.Mode{inject.ModeAuto, inject.ModeEnv, inject.ModeRedirect, inject.ModeAddress}[mode%4]
		in := inject.Input{Pod: raw, Namespace: "n", Identities: []inject.Identity{{ClientID: client}}}
		res, err := cfg.Mutate(in)
		if err != nil {
			if err.Error() == "" || strings.Contains(err.Error(), "\n") || res.Patch != nil {
				t.Errorf("Mutate(%s) = %s, %q; want one line and no patch", raw, res.Patch, err)
			}
			return
		}
		if res.Patch == nil {
			return
		}
		p, err := jsonpatch.DecodePatch(res.Patch)
		if err != nil {
			t.Fatalf("DecodePatch(%s): %v", res.Patch, err)
		}
		in.Pod, err = p.Apply(raw)
		if err != nil || !json.Valid(in.Pod) {
			t.Fatalf("applying %s to %s gives %s: %v", res.Patch, raw, in.Pod, err)
		}
		if again, err := cfg.Mutate(in); err != nil || again.Patch != nil {
			t.Errorf("Mutate again: %s, %v\nfirst %s\nof %s", again.Patch, err, res.Patch, raw)
		}
	})
}

// FuzzAnnotation holds of any value of any annotation: it is refused in a line
// that names the annotation, or what comes out is a sidecar that would start.
func FuzzAnnotation(f *testing.F) {
	for _, bad := range badAnnotations {
		f.Add(bad.name, bad.value)
	}
	f.Add("svidecar.io/identities", `[{"clientId":"`+client+`","allowedResources":["https://a"]}]`)
	f.Fuzz(func(t *testing.T, key, value string) {
		if !strings.HasPrefix(key, "svidecar.io/") && !strings.HasPrefix(key, "azure.workload.identity/") || key == "svidecar.io/mode" {
			return
		}
		in := inject.Input{Pod: podWith(t, on(key, value), nil)}
		res, err := config().Mutate(in)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "svidecar.io/") && !strings.Contains(err.Error(), "azure.workload.identity/") {
				t.Errorf("%s=%q is refused with %q", key, value, err)
			}
			return
		}
		if res.Patch == nil {
			return
		}
		checkSettings(t, named(t, decoded(t, patched(t, in.Pod, res.Patch)), "svidecar"))
	})
}

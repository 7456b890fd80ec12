package inject_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/svidecar/svidecar/deploy/inject"
)

// installations are those of the golden files.
var installations = map[string]func(*inject.Config){
	"env":      func(c *inject.Config) { c.Mode = inject.ModeEnv },
	"redirect": func(c *inject.Config) { c.Mode = inject.ModeRedirect },
	"address":  func(c *inject.Config) { c.Mode, c.Scrape = inject.ModeAddress, true },
	"classic":  func(c *inject.Config) { c.Mode, c.NativeSidecars = inject.ModeRedirect, false },
}

// samples are the pods under testdata in each installation.
func samples(t testing.TB, each func(name string, cfg inject.Config, in inject.Input)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("pods %q, %v; want 2", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range installations {
			cfg := config()
			change(&cfg)
			each(strings.TrimSuffix(filepath.Base(file), ".json")+"-"+name, cfg, inject.Input{
				Pod: raw, Namespace: "shop", ServiceAccountAnnotations: map[string]string{"azure.workload.identity/client-id": client},
			})
		}
	}
}

// TestGolden shows whole patched pods. Their keys are sorted, so what the patch
// leaves alone is compared elsewhere.
func TestGolden(t *testing.T) {
	samples(t, func(name string, cfg inject.Config, in inject.Input) {
		t.Run(name, func(t *testing.T) {
			res := mustMutate(t, cfg, in)
			out := patched(t, in.Pod, res.Patch)
			checkSettings(t, named(t, decoded(t, out), "svidecar"))
			var got bytes.Buffer
			if err := json.Indent(&got, out, "", "  "); err != nil {
				t.Fatal(err)
			}
			for _, w := range res.Warnings {
				fmt.Fprintf(&got, "\n# %s", w)
			}
			got.WriteByte('\n')
			golden(t, filepath.Join("testdata", name+".golden"), got.Bytes())
			again := mustMutate(t, cfg, in)
			if !bytes.Equal(res.Patch, again.Patch) || !slices.Equal(res.Warnings, again.Warnings) {
				t.Errorf("two calls differ:\n%s\n%s", res.Patch, again.Patch)
			}
		})
	})
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

// TestPodSecurity judges the patched pods by the library that the API server
// judges them by.
func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	judge := func(raw []byte, level api.Level) string {
		pod := decoded(t, raw)
		r := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
		if r.Allowed {
			return ""
		}
		return r.ForbiddenDetail()
	}
	samples(t, func(name string, cfg inject.Config, in inject.Input) {
		t.Run(name, func(t *testing.T) {
			if fault := judge(in.Pod, api.LevelRestricted); fault != "" {
				t.Fatalf("the pod was not restricted before: %s", fault)
			}
			out := patched(t, in.Pod, mustMutate(t, cfg, in).Patch)
			fault := judge(out, api.LevelRestricted)
			switch {
			case cfg.Mode == inject.ModeEnv && fault != "":
				t.Errorf("mode env is not restricted: %s", fault)
			case cfg.Mode != inject.ModeEnv && fault == "":
				t.Errorf("mode %s is restricted: the injector may choose it anywhere", cfg.Mode)
			}
			// All that baseline forbids is the one capability.
			if fault := judge(out, api.LevelBaseline); cfg.Mode != inject.ModeEnv &&
				(!strings.Contains(fault, `container "svidecar-redirect" must not include "NET_ADMIN"`) || strings.Contains(fault, ";") || strings.Contains(fault, "forbidden sysctls")) {
				t.Errorf("baseline forbids more than NET_ADMIN: %s", fault)
			}
		})
	})
}

// TestPodSecurityOfSPIFFE: the CSI driver's volume passes too.
func TestPodSecurityOfSPIFFE(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/plain.json")
	if err != nil {
		t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte(`"svidecar.io/inject": "true"`), []byte(`"svidecar.io/inject": "true", "svidecar.io/source": "spiffe"`), 1)
	pod, _ := injected(t, config(), inject.Input{Pod: raw, NamespaceLabels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}})
	if pod.Spec.Volumes[0].CSI == nil {
		t.Fatalf("volumes %+v, want the CSI driver's", pod.Spec.Volumes)
	}
	r := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if !r.Allowed {
		t.Error(r.ForbiddenDetail())
	}
}

package inject_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/deploy/inject"
)

// TestPodLevelResources: what the pod has for all containers is not exceeded by
// ours, unless an annotation wants it.
func TestPodLevelResources(t *testing.T) {
	for _, tt := range []struct {
		name, pod   string // kinds and quantities of the pod's resources
		annotations []string
		want        string // the sidecar's
	}{
		{"none", "", nil, "cpu 10m memory 32Mi/128Mi"},
		{"requests", "requests cpu requests memory", nil, ""},
		{"limits", "limits cpu limits memory", nil, ""},
		{"cpu alone", "requests cpu", nil, "memory 32Mi/128Mi"},
		{"memory alone", "limits memory", nil, "cpu 10m"},
		{"annotation", "requests cpu requests memory", []string{"svidecar.io/memory-request", "40Mi"}, "memory 40Mi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resources := object{}
			words := strings.Fields(tt.pod)
			for i := 0; i+1 < len(words); i += 2 {
				if resources[words[i]] == nil {
					resources[words[i]] = object{}
				}
				resources[words[i]].(object)[words[i+1]] = "1Gi"
			}
			change := func(spec object) {
				if len(resources) > 0 {
					spec["resources"] = resources
				}
			}
			pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, on(append(tt.annotations, "svidecar.io/mode", "redirect")...), change)})
			for _, name := range []string{"svidecar", "svidecar-redirect"} {
				got := ""
				for _, kind := range []string{"cpu", "memory"} {
					r := named(t, pod, name).Resources
					request, limit := r.Requests.Name(corev1.ResourceName(kind), "").String(), r.Limits.Name(corev1.ResourceName(kind), "").String()
					if request != "0" {
						got += fmt.Sprintf(" %s %s", kind, request)
					}
					if limit != "0" {
						got += "/" + limit
					}
				}
				if got = strings.TrimSpace(got); got != tt.want {
					t.Errorf("%s has %q, want %q", name, got, tt.want)
				}
			}
		})
	}
}

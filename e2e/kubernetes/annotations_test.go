//go:build e2e && linux

package kubernetes_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/deploy/inject"
)

// sampleAnnotations has every annotation with values that are allowed, and others that it needs.
var sampleAnnotations = []struct {
	name, value string
	also        map[string]string
}{
	{"svidecar.io/inject", "true", nil},
	{"svidecar.io/mode", "auto", nil},
	{"svidecar.io/mode", "env", nil},
	{"svidecar.io/mode", "redirect", nil},
	{"svidecar.io/mode", "address", nil},
	{"svidecar.io/client-id", secondClient, nil},
	{"svidecar.io/tenant-id", "contoso.onmicrosoft.com", nil},
	{"svidecar.io/identities", `[{"clientId":"` + clientID + `","default":true,"allowedResources":["https://a/$(HOME)"]}]`, nil},
	{"svidecar.io/source", "file", nil},
	{"svidecar.io/source", "spiffe", nil},
	{"svidecar.io/spiffe-id", "spiffe://example.com/a", map[string]string{"svidecar.io/source": "spiffe"}},
	{"svidecar.io/spiffe-hint", "internal", map[string]string{"svidecar.io/source": "spiffe"}},
	{"svidecar.io/audience", "api://own", nil},
	{"svidecar.io/region", "westeurope", nil},
	{"svidecar.io/prefetch", "https://a,https://b", nil},
	{"svidecar.io/ready-requires-token", "true", map[string]string{"svidecar.io/prefetch": "https://a", "svidecar.io/mode": "redirect"}},
	{"svidecar.io/require-api-version", "true", nil},
	{"svidecar.io/log-level", "debug", nil},
	{"svidecar.io/port", "9000", nil},
	{"svidecar.io/ops-port", "9001", nil},
	{"svidecar.io/scrape", "true", nil},
	{"svidecar.io/skip-containers", "app", map[string]string{"svidecar.io/mode": "env"}},
	{"svidecar.io/run-as-user", "2147483647", nil},
	{"svidecar.io/cpu-request", "20m", nil},
	{"svidecar.io/cpu-request", "none", nil},
	{"svidecar.io/memory-request", "0.1Gi", nil},
	{"svidecar.io/memory-request", "none", nil},
	{"svidecar.io/cpu-limit", "1.5", nil},
	{"svidecar.io/cpu-limit", "none", nil},
	{"svidecar.io/memory-limit", "100M", nil},
	{"svidecar.io/memory-limit", "none", nil},
	{"azure.workload.identity/inject-proxy-sidecar", "true", nil},
	{"azure.workload.identity/proxy-sidecar-port", "9000", nil},
	{"azure.workload.identity/service-account-token-expiration", "86400", nil},
	{"azure.workload.identity/skip-containers", "app", nil},
}

// TestAnnotationsAdmitted holds that the API server admits what the injector makes of each annotation, with and
// without the label for which it adds a token to the app's own containers, and drops no field of it as unknown.
func TestAnnotationsAdmitted(t *testing.T) {
	shared.API(t)
	ns := shared.Namespace(t)
	shared.Do(t, "create", "serviceaccount", account, "--namespace", ns)
	for _, tt := range sampleAnnotations {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			for _, use := range []bool{false, true} {
				pod := annotate(annotate(workload(t, "orders"), tt.also), map[string]string{tt.name: tt.value})
				if use {
					pod["metadata"].(object)["labels"] = object{"azure.workload.identity/use": "true"}
				}
				patched, _ := injected(t, ns, nil, pod)
				_, err := shared.Kubectl(t, string(marshal(t, patched)), "create", "--namespace", ns, "--dry-run=server", "--validate=strict", "--filename", "-")
				if err != nil {
					t.Errorf("with the label: %v: %v", use, err)
				}
			}
		})
	}
}

// TestSampleAnnotationsAreAllThere: who adds an annotation adds what the API server is to admit of it.
func TestSampleAnnotationsAreAllThere(t *testing.T) {
	want := map[string]bool{}
	for _, a := range inject.Annotations() {
		if !strings.HasSuffix(a.Name, "/injected") { // it is for the injector to write
			want[a.Name] = true
		}
	}
	have := map[string]bool{}
	for _, s := range sampleAnnotations {
		have[s.name] = true
	}
	if !maps.Equal(want, have) {
		t.Errorf("samples of %q, want of %q", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)))
	}
}

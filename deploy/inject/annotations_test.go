package inject_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/deploy/inject"
)

const spiffe = "svidecar.io/source=spiffe"

// badAnnotations has every annotation with values that are refused, and what the
// refusal says beside the name.
var badAnnotations = []struct{ name, value, want string }{
	{"svidecar.io/inject", "yes", `"yes" is not allowed: it may be true or false`},
	{"svidecar.io/inject", "", `"" is not allowed: it may be true or false`},
	{"svidecar.io/mode", "iptables", `"iptables" is not allowed: it may be auto, env, redirect, address`},
	{"svidecar.io/mode", "ENV", `"ENV" is not allowed: it may be auto, env, redirect, address`},
	{"svidecar.io/client-id", "orders", `"orders" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef`},
	{"svidecar.io/client-id", "", `"" is not allowed: it may be a GUID`},
	{"svidecar.io/tenant-id", "common", `"common" stands for many tenants`},
	{"svidecar.io/identities", "orders", `"orders" is no JSON list`},
	{"svidecar.io/identities", "{}", `"{}" is no JSON list`},
	{"svidecar.io/identities", "null", `"null" lists no identity: add one, or remove the annotation`},
	{"svidecar.io/identities", "[]", `"[]" lists no identity`},
	{"svidecar.io/identities", "[] []", `goes on after the list`},
	{"svidecar.io/identities", `["x"]`, `entry 1: it is no object with clientId, tenantId, objectId, resourceId, default, allowedResources`},
	{"svidecar.io/identities", `[{"clientid":"x"}]`, `entry 1: key "clientid" is unknown: it may be clientId, tenantId`},
	{"svidecar.io/identities", `[{"clientId":"x","clientId":"y"}]`, `entry 1: key "clientId" is there twice: keep one`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","default":"yes"}]`, `entry 1: its values are not text, default not true or false`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","allowedResources":[]}]`, `entry 1: key "allowedResources" has no value: give one, or leave the key out`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","tenantId":null}]`, `entry 1: key "tenantId" has no value`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","tenantId":""}]`, `entry 1: key "tenantId" has no value`},
	{"svidecar.io/identities", `[{"clientId":"x"}]`, `identities[0].client-id: "x" is not a GUID`},
	{"svidecar.io/identities", `[{"objectId":"` + client + `"}]`, `identities[0] (from annotation svidecar.io/identities): no client-id: add that`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","allowedResources":["a,b"]}]`, `identities[0].allowed-resources: entry 1: is empty or holds a comma`},
	{"svidecar.io/identities", `[{"clientId":"` + client + `","default":true},{"clientId":"` + client2 + `","default":true}]`, `is the default already: mark one of them only`},
	{"svidecar.io/source", "local", `"local" is not allowed: it may be file, spiffe`},
	{"svidecar.io/spiffe-id", "a b", `"a b" holds white space`},
	{"svidecar.io/spiffe-id", "spiffe://example.com/a", `contradicts source`},
	{"svidecar.io/spiffe-hint", "a b", `"a b" is no hint`},
	{"svidecar.io/audience", "a b", `"a b" holds white space`},
	{"svidecar.io/region", "West Europe", `"West Europe" is not a region`},
	{"svidecar.io/prefetch", "https://a, https://b", `entry 2: " https://b" is empty or holds white space`},
	{"svidecar.io/prefetch", "orders=https://a", `"orders=https://a" names no identity of the list`},
	{"svidecar.io/ready-requires-token", "1", `"1" is neither true nor false`},
	{"svidecar.io/ready-requires-token", "true", `needs --prefetch too`},
	{"svidecar.io/require-api-version", "on", `"on" is neither true nor false`},
	{"svidecar.io/log-level", "loud", `"loud" is none of debug, info, warn, error`},
	{"svidecar.io/port", "0", `"0" is not allowed: it may be a port from 1 to 65535`},
	{"svidecar.io/port", "65536", `"65536" is not allowed`},
	{"svidecar.io/port", "-1", `"-1" is not allowed`},
	{"svidecar.io/port", "+8000", `"+8000" is not allowed`},
	{"svidecar.io/port", "08000", `"08000" is not allowed`},
	{"svidecar.io/port", " 8000", `" 8000" is not allowed`},
	{"svidecar.io/port", "http", `"http" is not allowed`},
	{"svidecar.io/ops-port", "70000", `"70000" is not allowed: it may be a port from 1 to 65535`},
	{"svidecar.io/ops-port", "8000", `"8000" is not allowed: it may be any port but that of the tokens`},
	{"svidecar.io/scrape", "yes", `"yes" is not allowed: it may be true or false`},
	{"svidecar.io/skip-containers", "a,b", `"a,b" is not allowed: it may be names of containers, separated by ";"`},
	{"svidecar.io/skip-containers", "a;;b", `"a;;b" is not allowed`},
	{"svidecar.io/run-as-user", "0", `"0" is not allowed: it may be a number from 1 to 2147483647`},
	{"svidecar.io/run-as-user", "2147483648", `"2147483648" is not allowed`},
	{"svidecar.io/cpu-request", "10 m", `"10 m" is not allowed: it may be a quantity, or none`},
	{"svidecar.io/cpu-request", "-1", `"-1" is not allowed`},
	{"svidecar.io/memory-request", "64MB", `"64MB" is not allowed`},
	{"svidecar.io/memory-request", "1Gi", `memory-request 1Gi is above svidecar.io/memory-limit 128Mi: set both`},
	{"svidecar.io/cpu-limit", "0", `"0" is not allowed`},
	{"svidecar.io/cpu-limit", "5m", `cpu-request 10m is above svidecar.io/cpu-limit 5m: set both`},
	{"svidecar.io/memory-limit", "None", `"None" is not allowed`},
	{"svidecar.io/sidecar", "true", `it is unknown: there are inject, mode, client-id`},
	{"svidecar.io/clientid", client, `it is unknown: did you mean svidecar.io/client-id?`},
	{"svidecar.io/Mode", "env", `it is unknown: did you mean svidecar.io/mode?`},
	{"azure.workload.identity/proxy-sidecar-port", "70000", `"70000" is not allowed: it may be a port from 1 to 65535`},
	{"azure.workload.identity/proxy-sidecar-port", "-1", `"-1" is not allowed`},
	{"azure.workload.identity/service-account-token-expiration", "3599", `"3599" is not allowed: it may be seconds, from 3600 to 86400`},
	{"azure.workload.identity/service-account-token-expiration", "86401", `"86401" is not allowed`},
	{"azure.workload.identity/service-account-token-expiration", "1h", `"1h" is not allowed`},
	{"azure.workload.identity/skip-containers", "", `"" is not allowed`},
}

func TestAnnotationsAreRefused(t *testing.T) {
	for _, tt := range badAnnotations {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			in := inject.Input{Pod: podWith(t, on(tt.name, tt.value), nil)}
			res, err := config().Mutate(in)
			if err == nil {
				t.Fatalf("Mutate gave no error, and %s", res.Patch)
			}
			wantRefusal(t, err, tt.want)
			if !strings.Contains(err.Error(), tt.name) && !strings.Contains(err.Error(), "svidecar.io/cpu-request…") {
				t.Errorf("the refusal does not name %s: %v", tt.name, err)
			}
			if res.Patch != nil || res.Injected {
				t.Errorf("a refused pod has a patch: %s", res.Patch)
			}
		})
	}
}

func wantRefusal(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", want)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", err, want)
	}
}

// TestRefusalsAreBounded: a pod with ten thousand wrong annotations is refused in
// as many words as one with forty.
func TestRefusalsAreBounded(t *testing.T) {
	annotations := map[string]string{}
	for i := range 10000 {
		annotations[fmt.Sprintf("svidecar.io/x%d", i)] = ""
	}
	_, err := config().Mutate(inject.Input{Pod: podWith(t, annotations, nil)})
	wantRefusal(t, err, "and there may be more")
	if n := len(err.Error()); n > 64<<10 {
		t.Errorf("the refusal has %d bytes", n)
	}
}

// TestBadAnnotationsAreAllThere: who adds an annotation adds what it refuses.
func TestBadAnnotationsAreAllThere(t *testing.T) {
	// These two are judged elsewhere: TestTriggers, TestMarkOfOurs.
	elsewhere := []string{"azure.workload.identity/inject-proxy-sidecar", "svidecar.io/injected"}
	for _, a := range inject.Annotations() {
		tested := slices.ContainsFunc(badAnnotations, func(b struct{ name, value, want string }) bool { return b.name == a.Name })
		if tested == slices.Contains(elsewhere, a.Name) {
			t.Errorf("%s: tested for refusals: %v", a.Name, tested)
		}
	}
}

func TestAllProblemsAreNamedAtOnce(t *testing.T) {
	_, err := config().Mutate(inject.Input{Pod: podWith(t, on("svidecar.io/port", "x", "svidecar.io/client-id", "y", "svidecar.io/scrape", "z"), nil)})
	for _, want := range []string{"svidecar.io/port", "svidecar.io/client-id", "svidecar.io/scrape"} {
		wantRefusal(t, err, want)
	}
}

// TestAnnotationsReachTheSidecar: what is written becomes a variable of the
// sidecar, which its own parser reads.
func TestAnnotationsReachTheSidecar(t *testing.T) {
	for _, tt := range []struct {
		name, value, variable, want string
		also                        []string
	}{
		{name: "svidecar.io/client-id", value: strings.ToUpper(client), variable: "SVIDECAR_CLIENT_ID", want: strings.ToUpper(client)},
		{name: "svidecar.io/tenant-id", value: "contoso.onmicrosoft.com", variable: "SVIDECAR_TENANT_ID", want: "contoso.onmicrosoft.com"},
		{name: "svidecar.io/identities", value: `[{"clientId":"` + client + `","default":true,"allowedResources":["https://a/$(HOME)"]}]`, variable: "SVIDECAR_IDENTITIES",
			want: `[{"client-id":"` + client + `","default":true,"allowed-resources":["https://a/$(HOME)"]}]`},
		{name: "svidecar.io/source", value: "spiffe", variable: "SVIDECAR_SOURCE", want: "spiffe"},
		{name: "svidecar.io/source", value: "file", variable: "SVIDECAR_FEDERATED_TOKEN_FILE", want: "/var/run/secrets/svidecar/token"},
		{name: "svidecar.io/spiffe-id", value: "spiffe://example.com/a", variable: "SVIDECAR_SUBJECT", want: "spiffe://example.com/a", also: []string{spiffe}},
		{name: "svidecar.io/spiffe-hint", value: "internal", variable: "SVIDECAR_SPIFFE_HINT", want: "internal", also: []string{spiffe}},
		{name: "svidecar.io/audience", value: "api://own", variable: "SVIDECAR_AUDIENCE", want: "api://own"},
		{name: "svidecar.io/region", value: "westeurope", variable: "SVIDECAR_REGION", want: "westeurope"},
		{name: "svidecar.io/prefetch", value: "https://a,https://b", variable: "SVIDECAR_PREFETCH", want: "https://a,https://b"},
		{name: "svidecar.io/ready-requires-token", value: "true", variable: "SVIDECAR_READY_REQUIRES_TOKEN", want: "true", also: []string{"svidecar.io/prefetch=https://a"}},
		{name: "svidecar.io/require-api-version", value: "true", variable: "SVIDECAR_REQUIRE_API_VERSION", want: "true"},
		{name: "svidecar.io/log-level", value: "debug", variable: "SVIDECAR_LOG_LEVEL", want: "debug"},
		{name: "svidecar.io/port", value: "9000", variable: "SVIDECAR_LISTEN", want: "127.0.0.1:9000", also: []string{"azure.workload.identity/proxy-sidecar-port=9009"}},
		{name: "azure.workload.identity/proxy-sidecar-port", value: "9000", variable: "SVIDECAR_LISTEN", want: "127.0.0.1:9000"},
		{name: "svidecar.io/ops-port", value: "9001", variable: "SVIDECAR_OPS_LISTEN", want: "127.0.0.1:9001"},
		{name: "svidecar.io/scrape", value: "true", variable: "SVIDECAR_OPS_LISTEN", want: ":8001"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			annotations := on(tt.name, tt.value)
			for _, a := range tt.also {
				key, value, _ := strings.Cut(a, "=")
				annotations[key] = value
			}
			pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, annotations, nil)})
			sidecar := named(t, pod, "svidecar")
			if got := environ(sidecar)[tt.variable]; got != tt.want {
				t.Errorf("%s=%q, want %q", tt.variable, got, tt.want)
			}
			checkSettings(t, sidecar)
		})
	}
}

func TestResources(t *testing.T) {
	for _, tt := range []struct {
		name        string
		annotations []string
		want        string
	}{
		{"defaults", nil, "requests cpu=10m memory=32Mi limits memory=128Mi"},
		{"given", []string{"svidecar.io/cpu-request", "20m", "svidecar.io/memory-request", "48Mi", "svidecar.io/cpu-limit", "1", "svidecar.io/memory-limit", "0.5Gi"},
			"requests cpu=20m memory=48Mi limits cpu=1 memory=0.5Gi"},
		{"none", []string{"svidecar.io/cpu-request", "none", "svidecar.io/memory-request", "none", "svidecar.io/cpu-limit", "none", "svidecar.io/memory-limit", "none"},
			"requests limits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := mustMutate(t, config(), inject.Input{Pod: podWith(t, on(tt.annotations...), nil)})
			if got := resourcesOf(t, res.Patch); got != tt.want {
				t.Errorf("resources %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExpiration(t *testing.T) {
	const key = "azure.workload.identity/service-account-token-expiration"
	for _, tt := range []struct {
		name, pod, account string
		want               int64
	}{
		{"neither", "", "", 3600},
		{"service account", "", "7200", 7200},
		{"pod", "86400", "", 86400},
		{"pod over service account", "4000", "7200", 4000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			annotations, account := on(), map[string]string{}
			if tt.pod != "" {
				annotations[key] = tt.pod
			}
			if tt.account != "" {
				account[key] = tt.account
			}
			pod, _ := injected(t, config(), inject.Input{Pod: podWith(t, annotations, nil), ServiceAccountAnnotations: account})
			if got := *pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds; got != tt.want {
				t.Errorf("expirationSeconds is %d, want %d", got, tt.want)
			}
		})
	}
	_, err := config().Mutate(inject.Input{Pod: podWith(t, on(), nil), ServiceAccountAnnotations: map[string]string{key: "60"}})
	wantRefusal(t, err, `annotation `+key+` of the service account: "60" is not allowed: it may be seconds, from 3600 to 86400`)
}

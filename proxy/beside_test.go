package proxy_test

import (
	"strings"
	"testing"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/proxy"
)

// TestBeside: docs/protocol.md, "Beside the token".
func TestBeside(t *testing.T) {
	instance, err := imds.ParseInstance([]byte(`{"compute":{"location":"westeurope"}}`))
	if err != nil {
		t.Fatal(err)
	}
	bare, filled := start(t, nil), start(t, func(cfg *proxy.Config) { cfg.Instance = instance })
	strict := start(t, func(cfg *proxy.Config) { cfg.Instance, cfg.RequireAPIVersion = instance, true })
	for _, tt := range []struct {
		name            string
		r               *running
		target, headers string
		status          int
		says            string
	}{
		{"info, no Metadata", bare, "/metadata/identity/info?api-version=2018-02-01", "", 400, "Required metadata header"},
		{"info, forwarded", bare, "/metadata/identity/info", metadata + "X-Forwarded-For: 10.0.0.1\r\n", 400, "X-Forwarded-For"},
		{"info, a body", bare, "/metadata/identity/info", metadata + "Content-Length: 1\r\n\r\nx", 400, "body"},
		{"info, two readings", bare, "/metadata/identity/info?a;b", metadata, 400, "raw ';'"},
		{"info, no version", strict, "/metadata/identity/info", metadata, 400, "api-version"},
		{"info, deeper", bare, "/metadata/identity/info/x", metadata, 404, "serves"},
		{"versions, no Metadata", bare, "/metadata/versions", "", 400, "Required metadata header"},
		{"instance, no Metadata", bare, "/metadata/instance?api-version=2020-06-01", "", 400, "Required metadata header"},
		{"instance, refused", bare, "/metadata/instance?api-version=2020-06-01", metadata, 403, "--instance-metadata-file"},
		{"below instance, refused", bare, "/metadata/instance/compute/location?format=text", metadata, 403, "access_denied"},
		{"instance, no version", strict, "/metadata/instance", metadata, 400, "api-version"},
		{"instance, a leaf as JSON", filled, "/metadata/instance/compute/location", metadata, 400, "format=text"},
		{"instance, not there", filled, "/metadata/instance/network", metadata, 404, "nothing at this path"},
		{"instance, format", filled, "/metadata/instance?format=xml", metadata, 400, "format"},
		{"attested", filled, "/metadata/attested/document?api-version=2020-09-01", metadata, 404, "serves"},
		{"scheduled events", filled, "/metadata/scheduledevents?api-version=2020-07-01", metadata, 404, "serves"},

		{"info", bare, "/metadata/identity/info?api-version=2018-02-01", metadata, 200, `{"tenantId":"` + tenant + `"}`},
		{"info, slashes and case", bare, "//Metadata/identity/INFO/", metadata, 200, `{"tenantId":"` + tenant + `"}`},
		{"info, strict", strict, "/metadata/identity/info?api-version=2018-02-01", metadata, 200, tenant},
		{"versions", strict, "/metadata/versions", metadata, 200, `{"apiVersions":["2018-02-01","2019-08-01",`},
		{"instance", filled, "/metadata/instance?api-version=2020-06-01", metadata, 200, `{"compute":{"location":"westeurope"}}`},
		{"below instance", filled, "/metadata/instance/compute/?api-version=2020-06-01", metadata, 200, `{"location":"westeurope"}`},
		{"a leaf", filled, "/metadata/instance/Compute/location?api-version=2020-06-01&format=text", metadata, 200, "westeurope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := get(t, tt.r, tt.target, tt.headers)
			if got.StatusCode != tt.status || !strings.Contains(got.body, tt.says) || got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %d %v %s, want %d that says %q", got.StatusCode, got.Header, got.body, tt.status, tt.says)
			}
		})
	}
	for _, target := range []string{"/metadata/versions", "/metadata/identity/info", "/metadata/instance"} {
		got := raw(t, filled.addr, "POST "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+metadata+"Content-Length: 0\r\n\r\n")
		if got.StatusCode != 405 || got.Header.Get("Allow") != "GET" {
			t.Errorf("POST %s: %d, Allow %q, want 405, GET", target, got.StatusCode, got.Header.Get("Allow"))
		}
	}
	for _, r := range []*running{bare, filled, strict} {
		if keys := r.tokens.asked(); len(keys) > 0 {
			t.Errorf("what is beside the token asked for tokens: %v", keys)
		}
	}
}

func TestTenant(t *testing.T) {
	const other = "other.example"
	one, two := proxy.Identity{ClientID: first, Tenant: tenant}, proxy.Identity{ClientID: second, Tenant: other}
	for name, tt := range map[string]struct {
		cfg  proxy.PolicyConfig
		want string
	}{
		"none":             {proxy.PolicyConfig{Default: -1}, ""},
		"two tenants":      {proxy.PolicyConfig{Identities: []proxy.Identity{one, two}, Default: -1}, ""},
		"another tenant":   {proxy.PolicyConfig{Identities: []proxy.Identity{one}, Default: -1, AnyClientTenant: other}, ""},
		"default":          {proxy.PolicyConfig{Identities: []proxy.Identity{one, two}, Default: 1}, other},
		"one":              {proxy.PolicyConfig{Identities: []proxy.Identity{one, one}, Default: -1}, tenant},
		"any client id":    {proxy.PolicyConfig{Default: -1, AnyClientTenant: other}, other},
		"case of a domain": {proxy.PolicyConfig{Identities: []proxy.Identity{two}, Default: -1, AnyClientTenant: "OTHER.example"}, other},
	} {
		if got, err := policy(t, tt.cfg).Tenant(); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: Tenant = %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

// TestNMI: what old probes and dashboards look for; labels are of fixed sets,
// whatever a client writes.
func TestNMI(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.NMIMetrics, cfg.Namespace = true, "shop" })
	if got := raw(t, r.ops, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); got.StatusCode != 200 || got.body != "Active" {
		t.Errorf("/healthz: %d %q, want 200 Active", got.StatusCode, got.body)
	}
	get(t, r, imdsTarget+"&client_id="+second, metadata)
	get(t, r, "/metadata/identity/oauth2/token?resource="+bearer, metadata)
	get(t, r, "/metadata/instance/"+bearer, metadata)
	get(t, r, "/"+bearer, metadata)
	const name = "aadpodidentity_nmi_operations_duration_seconds_count"
	want := []string{
		name + `{namespace="shop",operation_type="/metadata/identity/oauth2/token",resource="https://vault.azure.net",status_code="200"} 1`,
		name + `{namespace="shop",operation_type="/metadata/identity/oauth2/token",resource="other",status_code="200"} 1`,
		name + `{namespace="shop",operation_type="/metadata/instance",resource="other",status_code="403"} 1`,
		name + `{namespace="shop",operation_type="other",resource="other",status_code="404"} 1`,
	}
	var body string
	for range 100 { // the count follows the reply
		body = raw(t, r.ops, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body
		missing := 0
		for _, line := range want {
			if !strings.Contains(body, line+"\n") {
				missing++
			}
		}
		if missing == 0 {
			break
		}
	}
	for _, line := range want {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if strings.Contains(body, bearer) {
		t.Error("a label is what a client wrote")
	}
	if plain := start(t, nil); strings.Contains(raw(t, plain.ops, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").body, "aadpodidentity") {
		t.Error("the metric is there unasked")
	}
}

package proxy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/proxy"
)

func TestNewPolicyRefuses(t *testing.T) {
	for name, cfg := range map[string]proxy.PolicyConfig{
		"default beyond the list": {Default: 0},
		"no client id":            {Default: -1, Identities: []proxy.Identity{{Tenant: tenant}}},
		"no tenant":               {Default: -1, Identities: []proxy.Identity{{ClientID: first}}},
	} {
		if _, err := proxy.NewPolicy(cfg); err == nil {
			t.Errorf("%s: NewPolicy accepts it", name)
		}
	}
}

func TestResolve(t *testing.T) {
	const vault, vaultScope = "https://vault.azure.net", "https://vault.azure.net/.default"
	byClient := func(v string) imds.Selector { return imds.Selector{Kind: imds.ByClientID, Name: "client_id", Value: v} }
	byObject := func(v string) imds.Selector { return imds.Selector{Kind: imds.ByObjectID, Name: "object_id", Value: v} }
	byResource := func(v string) imds.Selector {
		return imds.Selector{Kind: imds.ByResourceID, Name: "msi_res_id", Value: v}
	}
	list := twoIdentities()
	noDefault := twoIdentities()
	noDefault.Default = -1
	open := proxy.PolicyConfig{Identities: []proxy.Identity{{ClientID: first, Tenant: tenant}}, AnyClientTenant: tenant}
	empty := proxy.PolicyConfig{Default: -1, AnyClientTenant: tenant}
	tenants := proxy.PolicyConfig{Default: -1, Identities: []proxy.Identity{{ClientID: first, Tenant: tenant}, {ClientID: first, Tenant: "other"}}}
	secondVault := exchange.Key{Tenant: tenant, ClientID: second, Scope: vaultScope}
	firstVault := exchange.Key{Tenant: tenant, ClientID: first, Scope: vaultScope}
	for _, tt := range []struct {
		name     string
		cfg      proxy.PolicyConfig
		sel      imds.Selector
		resource string
		want     exchange.Key
		outcome  imds.Outcome
		says     string
	}{
		{"unknown client id", list, byClient("99999999-2222-4333-8444-555555555555"), vault, exchange.Key{}, imds.IdentityNotFound, "Identity not found"},
		{"object id of nobody", list, byObject(first), vault, exchange.Key{}, imds.IdentityNotFound, "Identity not found"},
		{"object id as client id", list, byClient(objectID), vault, exchange.Key{}, imds.IdentityNotFound, "Identity not found"},
		{"client id as resource id", list, byResource(first), vault, exchange.Key{}, imds.IdentityNotFound, "Identity not found"},
		{"resource id of nobody", list, byResource(resourceID + "x"), vault, exchange.Key{}, imds.IdentityNotFound, "Identity not found"},
		{"no default", noDefault, imds.Selector{}, vault, exchange.Key{}, imds.IdentityNotFound, "no default"},
		{"one client id in two tenants", tenants, byClient(first), vault, exchange.Key{}, imds.IdentityNotFound, "several"},
		{"no list, object id", open, byObject(objectID), vault, exchange.Key{}, imds.IdentityNotFound, "select by client_id"},
		{"no list, no GUID", open, byClient("my-app"), vault, exchange.Key{}, imds.IdentityNotFound, "not a GUID"},
		{"no list, path in client id", open, byClient("../../" + second[6:]), vault, exchange.Key{}, imds.IdentityNotFound, "not a GUID"},
		{"no list, no default", empty, imds.Selector{}, vault, exchange.Key{}, imds.IdentityNotFound, "no default"},
		{"resource not allowed", list, byClient(second), "https://graph.microsoft.com", exchange.Key{}, imds.AccessDenied, "allowed-resources"},
		{"resource that Scope does not take for the allowed one", list, byClient(second), vault + "/.DEFAULT", exchange.Key{}, imds.AccessDenied, "allowed-resources"},
		{"resource that begins well", list, byClient(second), "https://vault.azure.net.evil.example", exchange.Key{}, imds.AccessDenied, "allowed-resources"},

		{"default", list, imds.Selector{}, vault, firstVault, imds.OK, ""},
		{"client id", list, byClient(second), vault, secondVault, imds.OK, ""},
		{"client id, upper case", list, byClient(strings.ToUpper(second)), vault, secondVault, imds.OK, ""},
		{"object id, upper case", list, byObject(strings.ToUpper(objectID)), vault, secondVault, imds.OK, ""},
		{"resource id, upper case", list, byResource(strings.ToUpper(resourceID)), vault, secondVault, imds.OK, ""},
		{"allowed with a slash", list, byClient(second), vault + "/", exchange.Key{Tenant: tenant, ClientID: second, Scope: vault + "//.default"}, imds.OK, ""},
		{"allowed as a scope", list, byClient(second), vaultScope, secondVault, imds.OK, ""},
		{"allowed, listed with a slash", list, byClient(second), "https://Storage.azure.com", exchange.Key{Tenant: tenant, ClientID: second, Scope: "https://Storage.azure.com/.default"}, imds.OK, ""},
		{"no list, default", open, imds.Selector{}, vault, firstVault, imds.OK, ""},
		{"no list, any client id", open, byClient(strings.ToUpper(second)), vault, secondVault, imds.OK, ""},
		{"no list, no default, any client id", empty, byClient(second), vault, secondVault, imds.OK, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := policy(t, tt.cfg).Resolve(imds.Request{Protocol: imds.IMDS, Resource: tt.resource, Selector: tt.sel})
			var refusal *imds.Refusal
			if errors.As(err, &refusal) != (tt.outcome != imds.OK) || got != tt.want {
				t.Fatalf("Resolve = %+v, %v; want %+v, outcome %v", got, err, tt.want, tt.outcome)
			}
			if refusal != nil && (refusal.Outcome != tt.outcome || !strings.Contains(refusal.Description, tt.says)) {
				t.Errorf("refusal %v, want %v that says %q", refusal, tt.outcome, tt.says)
			}
		})
	}
}

// TestPolicyShowsNoBearer: a value that was sent as a selector by mistake is not
// quoted at length, since it may be a secret.
func TestPolicyShowsNoBearer(t *testing.T) {
	for _, cfg := range []proxy.PolicyConfig{twoIdentities(), {Default: -1, AnyClientTenant: tenant}} {
		_, err := policy(t, cfg).Resolve(imds.Request{Resource: "a", Selector: imds.Selector{Kind: imds.ByClientID, Name: "client_id", Value: bearer}})
		if err == nil || strings.Contains(err.Error(), bearer) || strings.Contains(err.Error(), bearer[20:]) {
			t.Errorf("Resolve says %v", err)
		}
	}
}

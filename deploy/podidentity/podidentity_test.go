package podidentity_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/deploy/podidentity"
)

const (
	clientA = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	clientB = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
	arm     = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
)

type object = map[string]any

// manifest is an object of a kind, and whoever is given more than its spec gets
// it merged: keys and values in pairs.
func manifest(kind, name string, spec object, more []any) object {
	namespace, name, _ := strings.Cut(name, "/")
	for i := 0; i+1 < len(more); i += 2 {
		spec[more[i].(string)] = more[i+1]
	}
	return object{"kind": kind, "metadata": object{"namespace": namespace, "name": name}, "spec": spec}
}

func identity(name, client string, more ...any) object {
	_, last, _ := strings.Cut(name, "/")
	return manifest("AzureIdentity", name, object{"resourceID": arm + last, "clientID": client}, more)
}

func binding(name, azureIdentity, selector string) object {
	return manifest("AzureIdentityBinding", name, object{"azureIdentity": azureIdentity, "selector": selector}, nil)
}

func exception(name string, labels object) object {
	return manifest("AzurePodIdentityException", name, object{"podLabels": labels}, nil)
}

// namespaced is an identity for pods of its own namespace.
func namespaced(id object, value string) object {
	id["metadata"].(object)["annotations"] = object{"aadpodidentity.k8s.io/Behavior": value}
	return id
}

func objects(t *testing.T, manifests []object) podidentity.Objects {
	t.Helper()
	var all podidentity.Objects
	for _, m := range manifests {
		if err := all.Add(m); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestResolveRefuses(t *testing.T) {
	for _, tt := range []struct {
		name       string
		manifests  []object
		namespaced bool
		want       []string
	}{
		{name: "identity that is not there", manifests: []object{binding("team/b", "orders", "x")}, want: []string{"team/b", `"orders"`, "create it"}},
		{name: "identity of another namespace than the binding", manifests: []object{identity("other/orders", clientA), binding("team/b", "orders", "x")}, want: []string{"team/b", `"orders"`}},
		{name: "service principal with secret", manifests: []object{identity("team/orders", clientA, "type", 1), binding("team/b", "orders", "x")}, want: []string{"team/orders", "type 1", "federate"}},
		{name: "service principal with certificate", manifests: []object{identity("team/orders", clientA, "Type", 2), binding("team/b", "orders", "x")}, want: []string{"type 2", "federate"}},
		{name: "unknown type", manifests: []object{identity("team/orders", clientA, "type", 3), binding("team/b", "orders", "x")}, want: []string{"type 3"}},
		{name: "no resource id", manifests: []object{identity("team/orders", clientA, "resourceID", ""), binding("team/b", "orders", "x")}, want: []string{`resourceID ""`, "/subscriptions/"}},
		{name: "resource id of something else", manifests: []object{identity("team/orders", clientA, "resourceID", "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v"), binding("team/b", "orders", "x")}, want: []string{"virtualMachines"}},
		{name: "no client id", manifests: []object{identity("team/orders", ""), binding("team/b", "orders", "x")}, want: []string{"no clientID"}},
		{name: "client id in braces", manifests: []object{identity("team/orders", "{"+clientA+"}"), binding("team/b", "orders", "x")}, want: []string{"no GUID"}},
		{name: "identity for its own namespace", manifests: []object{namespaced(identity("other/orders", clientA), "Namespaced"), binding("other/b", "orders", "x")}, want: []string{"own namespace only"}},
		{name: "another namespace's alone, and broken", manifests: []object{binding("other/b", "gone", "x")}, want: []string{"other/b", `"gone"`, "left out", "namespace team"}},
		{name: "one of two", manifests: []object{identity("team/orders", clientA), identity("team/bad", "nothing"), binding("team/a", "orders", "x"), binding("team/b", "bad", "x")}, want: []string{"team/bad", "no GUID"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := objects(t, tt.manifests)
			res, err := all.Resolve(podidentity.Pod{Namespace: "team", Labels: map[string]string{"aadpodidbinding": "x"}}, tt.namespaced)
			if err == nil {
				t.Fatalf("Resolve = %+v, want an error", res)
			}
			for _, want := range append(tt.want, "aadpodidbinding") {
				if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("Resolve: %q, want one line with %q", err, want)
				}
			}
		})
	}
}

func TestResolve(t *testing.T) {
	orders := inject.Identity{ClientID: clientA, ResourceID: arm + "orders", Default: true}
	for _, tt := range []struct {
		name       string
		manifests  []object
		labels     string // of the pod, besides the binding's; "-" for none at all
		namespaced bool
		want       []inject.Identity
		excepted   bool
		warn       []string // one for each warning
	}{
		{name: "no label", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x")}, labels: "-"},
		{name: "no binding", manifests: []object{identity("team/orders", clientA)}, warn: []string{"selector of no"}},
		{name: "selector in another case", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "X")}, warn: []string{"selector of no"}},
		{name: "selector that is empty", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "")}, warn: []string{"selector of no"}},
		{name: "one", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x")}, want: []inject.Identity{orders}},
		{name: "one with a tenant", manifests: []object{identity("team/orders", clientA, "tenantID", "t"), binding("team/b", "orders", "x")},
			want: []inject.Identity{{ClientID: clientA, TenantID: "t", ResourceID: arm + "orders", Default: true}}},
		{name: "capitals, as before 1.6", manifests: []object{
			manifest("AzureIdentity", "team/orders", object{"Type": 0, "ResourceID": arm + "orders", "ClientID": clientA}, nil),
			manifest("AzureIdentityBinding", "team/b", object{"AzureIdentity": "orders", "Selector": "x"}, nil)}, want: []inject.Identity{orders}},
		{name: "resource id in another case", manifests: []object{identity("team/orders", clientA, "resourceID", "/SUBSCRIPTIONS/s/resourceGroups/g/providers/microsoft.managedidentity/userassignedidentities/o"), binding("team/b", "orders", "x")},
			want: []inject.Identity{{ClientID: clientA, ResourceID: "/SUBSCRIPTIONS/s/resourceGroups/g/providers/microsoft.managedidentity/userassignedidentities/o", Default: true}}},
		{name: "two, in the order of their bindings", manifests: []object{identity("team/orders", clientA), identity("team/bills", clientB), binding("team/z", "orders", "x"), binding("team/a", "bills", "x")},
			want: []inject.Identity{{ClientID: clientB, ResourceID: arm + "bills"}, {ClientID: clientA, ResourceID: arm + "orders"}}},
		{name: "one by two bindings", manifests: []object{identity("team/orders", clientA), binding("team/a", "orders", "x"), binding("team/b", "orders", "x")}, want: []inject.Identity{orders}},
		{name: "one by two objects", manifests: []object{identity("team/orders", clientA), identity("team/same", strings.ToUpper(clientA)), binding("team/a", "orders", "x"), binding("team/b", "same", "x")}, want: []inject.Identity{orders}},
		{name: "another namespace's", manifests: []object{identity("other/orders", clientA), binding("other/b", "orders", "x")}, want: []inject.Identity{orders}, warn: []string{"another namespace"}},
		{name: "another namespace's, namespaced", manifests: []object{identity("other/orders", clientA), binding("other/b", "orders", "x")}, namespaced: true, warn: []string{"selector of no"}},
		{name: "one name in two namespaces", manifests: []object{identity("team/orders", clientB), identity("other/orders", clientA), binding("team/a", "orders", "x"), binding("other/b", "orders", "x")},
			want: []inject.Identity{orders}, warn: []string{"another namespace", "the first counts"}},
		{name: "beside another namespace's binding of nothing", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x"), binding("a/b", "gone", "x"), binding("z/b", "gone", "x")},
			want: []inject.Identity{orders}, warn: []string{"AzureIdentityBinding a/b", "AzureIdentityBinding z/b"}},
		{name: "beside another namespace's identity that is none, of the same name", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x"), identity("a/orders", "nothing"), binding("a/b", "orders", "x")},
			want: []inject.Identity{orders}, warn: []string{"AzureIdentity a/orders"}},
		{name: "left out", manifests: []object{identity("team/orders", clientA, "auxiliaryTenantIDs", []any{"a"}, "adEndpoint", "https://login.example"), binding("team/b", "orders", "x")},
			want: []inject.Identity{orders}, warn: []string{"auxiliaryTenantIDs", "adEndpoint"}},
		{name: "excepted by one label of two", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x"), exception("team/e", object{"app": "WEB", "tier": "back"})}, labels: "web",
			excepted: true, warn: []string{"team/e"}},
		{name: "exception of another namespace", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x"), exception("other/e", object{"app": "web"})}, labels: "web", want: []inject.Identity{orders}},
		{name: "exception of other labels", manifests: []object{identity("team/orders", clientA), binding("team/b", "orders", "x"), exception("team/e", object{"app": "shop", "APP": "web"})}, labels: "web", want: []inject.Identity{orders}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := podidentity.Pod{Namespace: "team", Labels: map[string]string{"aadpodidbinding": "x", "app": tt.labels}}
			if tt.labels == "-" {
				delete(pod.Labels, "aadpodidbinding")
			}
			res, err := objects(t, tt.manifests).Resolve(pod, tt.namespaced)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, res.Identities); diff != "" || res.Excepted != tt.excepted || len(res.Warnings) != len(tt.warn) {
				t.Fatalf("excepted %v, warnings %q, identities (-want +got):\n%s", res.Excepted, res.Warnings, diff)
			}
			for i, want := range tt.warn {
				if !strings.Contains(res.Warnings[i], want) {
					t.Errorf("warning %q, want %q in it", res.Warnings[i], want)
				}
			}
		})
	}
}

func TestAddRefuses(t *testing.T) {
	for _, tt := range []struct {
		object object
		want   string
	}{
		{object{"kind": "AzureAssignedIdentity"}, "AzureAssignedIdentity"},
		{identity("n/orders", clientA, "type", "zero"), "AzureIdentity n/orders"},
	} {
		if err := new(podidentity.Objects).Add(tt.object); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Add(%v): %v, want %q in it", tt.object, err, tt.want)
		}
	}
}

// FuzzResolve holds that no object in a cluster can end the webhook.
func FuzzResolve(f *testing.F) {
	f.Add(`{"metadata":{"name":"orders"},"spec":{"type":0,"clientID":"` + clientA + `","resourceID":"` + arm + `o","azureIdentity":"orders","selector":"x","podLabels":{"a":"b"}}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		var object map[string]any
		if json.Unmarshal([]byte(raw), &object) != nil || object == nil {
			return
		}
		var all podidentity.Objects
		for _, kind := range []string{podidentity.KindIdentity, podidentity.KindBinding, podidentity.KindException} {
			object["kind"] = kind
			_ = all.Add(object)
		}
		res, err := all.Resolve(podidentity.Pod{Labels: map[string]string{podidentity.Label: "x"}}, false)
		if err == nil && len(res.Identities) == 0 && len(res.Warnings) == 0 {
			t.Errorf("%s: no identity, and no word of it", raw)
		}
	})
}

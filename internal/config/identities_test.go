package config_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/internal/config"
)

const identitiesEnv = "SVIDECAR_IDENTITIES="

func TestIdentitiesOfTheEnvironment(t *testing.T) {
	resource := "/subscriptions/" + client + "/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n"
	want := []config.Identity{
		{
			Name: "orders", ClientID: client, TenantID: tenant2, ObjectID: client2, ResourceID: resource, Default: true,
			AllowedResources: []string{"https://a.example", "https://b.example"}, Source: "default",
		},
		{Name: client2, ClientID: client2, TenantID: tenant, Source: "default"},
	}
	for name, list := range map[string]string{
		"JSON": `[{"name":"orders","client-id":"` + client + `","tenant-id":"` + tenant2 + `","object-id":"` + client2 + `","resource-id":"` + resource +
			`","default":true,"allowed-resources":["https:\/\/a.example","https://b.example"]},{"client-id":"` + strings.ToUpper(client2) + `"}]`,
		"YAML": "- name: orders\n  client-id: " + client + "\n  tenant-id: " + tenant2 + "\n  object-id: " + client2 + "\n  resource-id: " + resource +
			"\n  default: true\n  allowed-resources: [https://a.example, https://b.example]\n- client-id: " + client2 + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := mustLoad(t, nil, with(minimal, identitiesEnv+list))
			if diff := cmp.Diff(want, c.Identities); diff != "" {
				t.Errorf("Identities (-want +got):\n%s", diff)
			}
			var out bytes.Buffer
			if err := c.Print(&out); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(out.String(), "  env SVIDECAR_IDENTITIES\n"); n != 8 {
				t.Errorf("Print names the variable %d times, want 8:\n%s", n, &out)
			}
		})
	}
}

// TestIdentitiesOfTheEnvironmentOutrankTheFile: nothing of the file's list is
// left, whose second entry would be the default.
func TestIdentitiesOfTheEnvironmentOutrankTheFile(t *testing.T) {
	inDir(t, map[string]string{"svidecar.yaml": "identities:\n- client-id: " + client + "\n  name: a\n- client-id: " + client2 + "\n  name: b\n  default: true\n"})
	c := mustLoad(t, []string{"--config=svidecar.yaml"}, with(minimal, identitiesEnv+`[{"client-id":"`+client+`"}]`))
	want := []config.Identity{{Name: client, ClientID: client, TenantID: tenant, Default: true, Source: "default"}}
	if diff := cmp.Diff(want, c.Identities); diff != "" {
		t.Errorf("Identities (-want +got):\n%s", diff)
	}
}

func TestLoadRefusesIdentitiesOfTheEnvironment(t *testing.T) {
	for _, tt := range []struct{ name, list, want string }{
		{"no list", `{"client-id":"` + client + `"}`, `env SVIDECAR_IDENTITIES: identities: wants a list with at least one entry: add one, or remove identities`},
		{"nothing but a comment", "# none", `env SVIDECAR_IDENTITIES: identities: wants a list with at least one entry: add one, or unset the variable`},
		{"empty list", "[]", `env SVIDECAR_IDENTITIES: identities: wants a list with at least one entry: add one, or remove identities`},
		{"not YAML", `[{"client-id":]`, `env SVIDECAR_IDENTITIES: not valid YAML: did not find expected node content (while parsing a flow node that begins on line 1): mend the line, or put its value in quotes`},
		{"alias", "[*a]", `env SVIDECAR_IDENTITIES: not valid YAML, or a tag, anchor or alias, which are not supported: mend the line, or put its value in quotes`},
		{"two documents", "[]\n---\n[]", `env SVIDECAR_IDENTITIES: a second document begins here: keep one, and remove the --- line`},
		{"unknown key", `[{"clientId":"` + client + `"}]`, `env SVIDECAR_IDENTITIES: identities[0]: unknown setting "clientId"; did you mean "client-id"?`},
		{"repeated key", `[{"name":"a","name":"b"}]`, `env SVIDECAR_IDENTITIES: identities[0]: "name" is given again, first on line 1: keep one`},
		{"bad value", `[{"client-id":"x"}]`, `env SVIDECAR_IDENTITIES: identities[0].client-id: "x" is not a GUID: write it like 12345678-90ab-cdef-1234-567890abcdef`},
		{"no client id", `[{"name":"a"}]`, `identities[0] (from env SVIDECAR_IDENTITIES): no client-id: add that of the application or managed identity`},
		{"two defaults", `[{"client-id":"` + client + `","default":true},{"client-id":"` + client2 + `","default":true}]`,
			`identities[1].default (from env SVIDECAR_IDENTITIES): identities[0] (from env SVIDECAR_IDENTITIES) is the default already: mark one of them only`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, nil, with(minimal, identitiesEnv+tt.list))
			wantError(t, err, tt.want)
		})
	}
}

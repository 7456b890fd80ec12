package imds_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/imds"
)

const (
	vault    = "https://vault.azure.net"
	clientID = "11111111-2222-4333-8444-555555555555"
	digest   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	resID    = "/subscriptions/0/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"
)

func TestParseRequestRefuses(t *testing.T) {
	for _, tt := range []struct{ name, query, says string }{
		{"empty", "", "'resource' is missing"},
		{"no resource", "api-version=2018-02-01", "'resource' is missing"},
		{"empty resource", "resource=", "'resource' is missing"},
		{"repeated resource", "resource=a&resource=a", "'resource' is repeated"},
		{"repeated resource, other case", "resource=a&RESOURCE=b", "'resource' is repeated"},
		{"repeated resource, one empty", "resource=&resource=b", "'resource' is repeated"},
		{"repeated resource, encoded name", "resource=a&%72esource=b", "'resource' is repeated"},
		{"space in resource", "resource=https://a+https://b", "without spaces"},
		{"encoded space in resource", "resource=https://a%20https://b", "without spaces"},
		{"newline in resource", "resource=https://a%0ahttps://b", "without spaces"},
		{"quote in resource", "resource=https://a%22", "without spaces"},
		{"backslash in resource", "resource=https:%5c%5ca", "without spaces"},
		{"not ASCII in resource", "resource=https://%C3%A4", "without spaces"},
		{"NUL in resource", "resource=a%00", "without spaces"},
		{"long resource", "resource=" + strings.Repeat("a", 1025), "at most 1024"},
		{"semicolon", "resource=a;resource=b", "raw ';'"},
		{"fragment", "resource=a#&client_id=b", "raw ';' or '#'"},
		{"malformed escape in value", "resource=%zz", "malformed %-escape"},
		{"malformed escape in name", "%zz=1&resource=a", "malformed %-escape"},
		{"malformed escape in an unknown parameter", "resource=a&x=%", "malformed %-escape"},
		{"repeated client_id", "resource=a&client_id=b&client_id=b", "\"client_id\" is repeated"},
		{"client_id and its alias", "resource=a&client_id=b&clientid=c", "\"clientid\" is repeated"},
		{"empty client_id and its alias", "resource=a&clientid=&client_id=c", "\"client_id\" is repeated"},
		{"object_id and its alias", "resource=a&object_id=b&principal_id=c", "\"principal_id\" is repeated"},
		{"msi_res_id and its alias", "resource=a&msi_res_id=b&mi_res_id=c", "\"mi_res_id\" is repeated"},
		{"repeated digest", "resource=a&token_sha256_to_refresh=" + digest + "&token_sha256_to_refresh=" + digest, "'token_sha256_to_refresh' is repeated"},
		{"repeated digest, one empty", "resource=a&token_sha256_to_refresh=&Token_SHA256_to_refresh=" + digest, "'token_sha256_to_refresh' is repeated"},
		{"short digest", "resource=a&token_sha256_to_refresh=00", "64 hexadecimal"},
		{"digest that is none", "resource=a&token_sha256_to_refresh=" + strings.Repeat("g", 64), "64 hexadecimal"},
		{"repeated bypass_cache", "resource=a&bypass_cache=true&bypass_cache=false", "'bypass_cache' is repeated"},
		{"two selectors", "resource=a&client_id=b&object_id=c", "both \"client_id\" and \"object_id\""},
		{"space in selector", "resource=a&client_id=b+c", "without spaces"},
		{"long selector", "resource=a&client_id=" + strings.Repeat("b", 513), "at most 512"},
		{"long query", "resource=a&x=" + strings.Repeat("b", 8<<10), "longer than 8192"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := imds.ParseRequest(imds.IMDS, tt.query)
			var refusal *imds.Refusal
			if !errors.As(err, &refusal) || refusal.Outcome != imds.InvalidRequest {
				t.Fatalf("ParseRequest(%q) = %v, %v; want an invalid request", tt.query, got, err)
			}
			if !strings.Contains(refusal.Description, tt.says) {
				t.Errorf("ParseRequest(%q) says %q, want %q in it", tt.query, refusal.Description, tt.says)
			}
			if got != (imds.Request{}) {
				t.Errorf("ParseRequest(%q) = %v beside its error", tt.query, got)
			}
		})
	}
}

func TestParseRequestAccepts(t *testing.T) {
	client := imds.Selector{Kind: imds.ByClientID, Name: "client_id", Value: clientID}
	object := imds.Selector{Kind: imds.ByObjectID, Name: "object_id", Value: clientID}
	for _, tt := range []struct {
		name, query string
		want        imds.Request
	}{
		{"as azidentity asks", "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net", imds.Request{Resource: vault, APIVersion: "2018-02-01"}},
		{"unencoded resource", "resource=https://vault.azure.net&api-version=2018-02-01", imds.Request{Resource: vault, APIVersion: "2018-02-01"}},
		{"no api-version", "resource=https://vault.azure.net", imds.Request{Resource: vault}},
		{"names in any case", "API-Version=1&Resource=https://vault.azure.net&CLIENT_ID=" + clientID, imds.Request{Resource: vault, APIVersion: "1", Selector: client}},
		{"trailing slash kept", "resource=https://vault.azure.net/", imds.Request{Resource: vault + "/"}},
		{"case of the resource kept", "resource=https://Vault.azure.net", imds.Request{Resource: "https://Vault.azure.net"}},
		{"GUID", "resource=" + clientID, imds.Request{Resource: clientID}},
		{"api scheme", "resource=api://app", imds.Request{Resource: "api://app"}},
		{"resource with a query", "resource=https%3A%2F%2Fa%3Fb%3Dc%26d", imds.Request{Resource: "https://a?b=c&d"}},
		{"encoded semicolon", "resource=https://a%3Bb", imds.Request{Resource: "https://a;b"}},
		{"unknown parameters", "resource=a&authority=x&claims=%7B%7D&xms_cc=cp1&a=b&=&&x", imds.Request{Resource: "a"}},
		{"plus in an unknown parameter", "a+b=c+d&resource=a", imds.Request{Resource: "a"}},
		{"a name that Unicode folds", "resource=a&cl%C4%B0ent_id=" + clientID + "&%E2%84%AAey=x", imds.Request{Resource: "a"}},
		{"digest", "resource=a&token_sha256_to_refresh=" + strings.ToUpper(digest), imds.Request{Resource: "a", Unwanted: digest}},
		{"empty digest", "resource=a&token_sha256_to_refresh=", imds.Request{Resource: "a"}},
		{"bypass_cache", "resource=a&bypass_cache=True", imds.Request{Resource: "a", BypassCache: true}},
		{"bypass_cache false", "resource=a&bypass_cache=false", imds.Request{Resource: "a"}},
		{"client_id", "resource=a&client_id=" + clientID, imds.Request{Resource: "a", Selector: client}},
		{"clientid", "resource=a&clientid=" + clientID, imds.Request{Resource: "a", Selector: client}},
		{"empty clientid", "resource=a&clientid=", imds.Request{Resource: "a"}},
		{"empty clientid beside another selector", "resource=a&clientid=&object_id=" + clientID, imds.Request{Resource: "a", Selector: object}},
		{"object_id", "resource=a&object_id=" + clientID, imds.Request{Resource: "a", Selector: object}},
		{"principal_id", "resource=a&principal_id=" + clientID, imds.Request{Resource: "a", Selector: object}},
		{"principalId", "resource=a&principalId=" + clientID, imds.Request{Resource: "a", Selector: object}},
		{"msi_res_id", "resource=a&msi_res_id=" + resID, imds.Request{Resource: "a", Selector: imds.Selector{Kind: imds.ByResourceID, Name: "msi_res_id", Value: resID}}},
		{"mi_res_id", "resource=a&mi_res_id=" + url.QueryEscape(resID), imds.Request{Resource: "a", Selector: imds.Selector{Kind: imds.ByResourceID, Name: "mi_res_id", Value: resID}}},
	} {
		for _, p := range imds.Protocols() {
			t.Run(tt.name+"/"+p.String(), func(t *testing.T) {
				tt.want.Protocol = p
				got, err := imds.ParseRequest(p, tt.query)
				if err != nil {
					t.Fatalf("ParseRequest(%q): %v", tt.query, err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("ParseRequest(%q) (-want +got):\n%s", tt.query, diff)
				}
			})
		}
	}
}

// FuzzParseRequest holds what is accepted to one reading: the standard
// library's parser, which is not ours, finds the same resource and at most one
// selector, and nothing that could become a second scope.
func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		"", "resource=" + vault, "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net&client_id=" + clientID,
		"resource=a;resource=b", "resource=a&%72ESOURCE=b", "resource=a&client_id=b&clientid=c", "resource=a+b", "resource=%00", "a=%", "&&&=",
		"resource=a&mi_res_id=" + resID,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, err := imds.ParseRequest(imds.IMDS, query)
		if err != nil {
			var refusal *imds.Refusal
			if !errors.As(err, &refusal) || refusal.Outcome.Status() != 400 || got != (imds.Request{}) {
				t.Fatalf("ParseRequest(%q) = %v, %v", query, got, err)
			}
			return
		}
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("ParseRequest accepts %q, the standard library does not: %v", query, err)
		}
		var resources, selectors []string
		for name, all := range values {
			switch strings.ToLower(name) {
			case "resource":
				resources = append(resources, all...)
			case "client_id", "clientid", "object_id", "objectid", "principal_id", "principalid", "msi_res_id", "mi_res_id":
				for _, v := range all {
					if v != "" {
						selectors = append(selectors, v)
					}
				}
			}
		}
		if len(resources) != 1 || resources[0] != got.Resource || strings.ContainsAny(got.Resource, " \t\r\n\"\\") {
			t.Errorf("ParseRequest(%q) reads resource %q, another parser %q", query, got.Resource, resources)
		}
		if len(selectors) > 1 || len(selectors) == 1 && selectors[0] != got.Selector.Value || len(selectors) == 0 && got.Selector != (imds.Selector{}) {
			t.Errorf("ParseRequest(%q) reads selector %v, another parser %q", query, got.Selector, selectors)
		}
	})
}

package imds_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/imds"
)

// TestParseFormRefuses: docs/protocol.md, "Requests": a POST has its parameters
// in the form and nowhere else.
func TestParseFormRefuses(t *testing.T) {
	for _, tt := range []struct{ name, query, form, says string }{
		{"nothing", "", "", "'resource' is missing"},
		{"resource in the query", "resource=a", "", `"resource" is in the query`},
		{"resource in both", "resource=a", "resource=a", `"resource" is in the query`},
		{"resource in both, encoded name", "%52esource=b", "resource=a", `"resource" is in the query`},
		{"selector in the query", "client_id=b", "resource=a", `"client_id" is in the query`},
		{"another selector in the query", "principalId=b", "resource=a", `"principalid" is in the query`},
		{"digest in the query", "token_sha256_to_refresh=" + digest, "resource=a", "is in the query"},
		{"bypass_cache in the query", "bypass_cache=true", "resource=a", "is in the query"},
		{"api-version in both", "api-version=1", "resource=a&API-Version=1", "'api-version' is repeated"},
		{"repeated in the form", "", "resource=a&resource=a", "'resource' is repeated"},
		{"two selectors", "", "resource=a&client_id=b&msi_res_id=/c", "both"},
		{"raw semicolon", "", "resource=a;client_id=b", "the form has a raw ';'"},
		{"raw semicolon in the query", "a;b", "resource=a", "the query has a raw ';'"},
		{"line end", "", "resource=a\r\n", "without spaces"},
		{"malformed escape", "", "resource=%a", "malformed %-escape"},
		{"malformed escape in the query", "%", "resource=a", "malformed %-escape"},
		{"long form", "", "resource=a&x=" + strings.Repeat("x", imds.MaxForm), "the form is longer than 16384"},
		{"long query", strings.Repeat("x", 8<<10+1), "resource=a", "the query is longer than 8192"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := imds.ParseForm(imds.CloudShell, tt.query, tt.form)
			var refusal *imds.Refusal
			if !errors.As(err, &refusal) || refusal.Outcome != imds.InvalidRequest || !strings.Contains(refusal.Description, tt.says) {
				t.Errorf("ParseForm(%q, %q) = %v, %v; want an invalid request that says %q", tt.query, tt.form, got, err, tt.says)
			}
			if got != (imds.Request{}) {
				t.Errorf("ParseForm(%q, %q) = %v beside its error", tt.query, tt.form, got)
			}
		})
	}
}

func TestParseFormAccepts(t *testing.T) {
	client := imds.Selector{Kind: imds.ByClientID, Name: "client_id", Value: clientID}
	for _, tt := range []struct {
		name, query, form string
		want              imds.Request
	}{
		{"as MSAL asks", "", "resource=https%3A%2F%2Fvault.azure.net", imds.Request{Resource: vault}},
		{"selector", "", "client_id=" + clientID + "&resource=a", imds.Request{Resource: "a", Selector: client}},
		{"version in the query", "api-version=1", "resource=a", imds.Request{Resource: "a", APIVersion: "1"}},
		{"version in the form", "", "resource=a&api-version=1", imds.Request{Resource: "a", APIVersion: "1"}},
		{"unknown parameters in both", "x=1&y", "resource=a&x=1", imds.Request{Resource: "a"}},
		{"digest", "", "resource=a&token_sha256_to_refresh=" + digest, imds.Request{Resource: "a", Unwanted: digest}},
	} {
		tt.want.Protocol = imds.CloudShell
		if got, err := imds.ParseForm(imds.CloudShell, tt.query, tt.form); err != nil || got != tt.want {
			t.Errorf("%s: ParseForm(%q, %q) = %v, %v; want %v", tt.name, tt.query, tt.form, got, err, tt.want)
		}
	}
}

// FuzzParseForm: what is accepted is found by the standard library in the form,
// and nothing of it in the query, so that a server which reads either or both
// reads the same.
func FuzzParseForm(f *testing.F) {
	for _, seed := range [][2]string{
		{"", "resource=" + vault}, {"api-version=1", "resource=a&client_id=" + clientID}, {"resource=a", "resource=b"},
		{"%72esource=a", "RESOURCE=b"}, {"", "resource=a;resource=b"}, {"x=%00", "resource=a%0a"}, {"=", "&resource=a&"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, query, form string) {
		got, err := imds.ParseForm(imds.CloudShell, query, form)
		if err != nil {
			var refusal *imds.Refusal
			if !errors.As(err, &refusal) || refusal.Outcome.Status() != 400 || got != (imds.Request{}) {
				t.Fatalf("ParseForm(%q, %q) = %v, %v", query, form, got, err)
			}
			return
		}
		inQuery, queryErr := url.ParseQuery(query)
		inForm, formErr := url.ParseQuery(form)
		if queryErr != nil || formErr != nil {
			t.Fatalf("ParseForm accepts (%q, %q), the standard library does not: %v, %v", query, form, queryErr, formErr)
		}
		if n := len(named(inQuery)); n > 0 {
			t.Errorf("ParseForm(%q, %q) = %v, but the query names %v too", query, form, got, named(inQuery))
		}
		want := []string{got.Resource}
		if got.Selector.Value != "" {
			want = append(want, got.Selector.Value)
		}
		if all := named(inForm); len(all) != len(want) || all[0] != want[0] || all[len(all)-1] != want[len(want)-1] {
			t.Errorf("ParseForm(%q, %q) = %v, but another parser reads %q", query, form, got, all)
		}
	})
}

// named are the values of resource and of selectors, in this order.
func named(values url.Values) (all []string) {
	var selectors []string
	for name, list := range values {
		for _, v := range list {
			switch strings.ToLower(name) {
			case "resource":
				all = append(all, v)
			case "client_id", "clientid", "object_id", "objectid", "principal_id", "principalid", "msi_res_id", "mi_res_id":
				if v != "" {
					selectors = append(selectors, v)
				}
			}
		}
	}
	return append(all, selectors...)
}

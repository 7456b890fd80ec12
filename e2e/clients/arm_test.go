//go:build e2e && linux

package clients_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/svidecar/svidecar/internal/emulation"
)

// arm stands in for Azure Resource Manager: each tenant has one subscription, with one
// resource group, and only the apps of the tests may see them.
type arm struct {
	server resourceServer
	mux    *http.ServeMux
}

func newARM(keySet func(context.Context, string) ([]byte, error), tenants ...string) *arm {
	a := &arm{mux: http.NewServeMux(), server: resourceServer{
		audiences: []string{
			"https://management.azure.com", "https://management.azure.com/",
			"https://management.core.windows.net", "https://management.core.windows.net/",
		},
		tenants: tenants, keySet: keySet,
	}}
	a.handle("GET /tenants", func(said bearer, _ *http.Request) (any, bool) {
		return list(map[string]any{"id": "/tenants/" + said.Tid, "tenantId": said.Tid, "displayName": "Dev", "tenantCategory": "Home"}), true
	})
	a.handle("GET /subscriptions", func(said bearer, _ *http.Request) (any, bool) {
		if !slices.Contains([]string{emulation.ClientID, chosenClient, bound}, said.AppID) {
			return list(), true
		}
		return list(subscription(said.Tid)), true
	})
	a.handle("GET /subscriptions/{id}", visible(func(said bearer, _ *http.Request) (any, bool) {
		return subscription(said.Tid), true
	}))
	a.handle("GET /subscriptions/{id}/{groups}", visible(func(said bearer, _ *http.Request) (any, bool) {
		return list(group(said.Tid)), true
	}))
	a.handle("GET /subscriptions/{id}/{groups}/{name}", visible(func(said bearer, r *http.Request) (any, bool) {
		return group(said.Tid), strings.EqualFold(r.PathValue("name"), groupName)
	}))
	return a
}

func (a *arm) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

var armVersion = regexp.MustCompile(`^20\d\d-\d\d-\d\d(-preview)?$`)

// handle lets in who has a good token and names a version.
func (a *arm) handle(pattern string, answer func(bearer, *http.Request) (any, bool)) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		said, err := a.server.admit(r)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="https://login.microsoftonline.com/common", error="invalid_token", error_description="`+err.Error()+`"`)
			reply(w, http.StatusUnauthorized, complaintOf("InvalidAuthenticationToken", err.Error()))
			return
		}
		if version := r.URL.Query().Get("api-version"); !armVersion.MatchString(version) {
			reply(w, http.StatusBadRequest, complaintOf("InvalidApiVersionParameter", fmt.Sprintf("the api-version %q is invalid", version)))
			return
		}
		body, found := answer(said, r)
		if !found {
			reply(w, http.StatusNotFound, complaintOf("ResourceNotFound", "there is no "+r.URL.Path))
			return
		}
		reply(w, http.StatusOK, body)
	})
}

// visible hides what is not the app's, and what is no resource group.
func visible(answer func(bearer, *http.Request) (any, bool)) func(bearer, *http.Request) (any, bool) {
	return func(said bearer, r *http.Request) (any, bool) {
		groups := r.PathValue("groups")
		if said.AppID != emulation.ClientID || r.PathValue("id") != subscriptionID(said.Tid) ||
			groups != "" && !strings.EqualFold(groups, "resourceGroups") {
			return nil, false
		}
		return answer(said, r)
	}
}

const groupName = "rg-app"

// subscriptionID is the tenant's with another first digit, so that the two are told
// apart.
func subscriptionID(tenant string) string { return "5" + tenant[1:] }

func list(values ...any) any {
	return map[string]any{"value": append([]any{}, values...), "count": map[string]any{"type": "Total", "value": len(values)}}
}

func subscription(tenant string) map[string]any {
	id := subscriptionID(tenant)
	return map[string]any{
		"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": tenant, "displayName": "Dev",
		"state": "Enabled", "authorizationSource": "RoleBased", "managedByTenants": []any{},
		"subscriptionPolicies": map[string]string{"locationPlacementId": "Public_2014-09-01", "quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
	}
}

// group says by a tag whose it is.
func group(tenant string) map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + subscriptionID(tenant) + "/resourceGroups/" + groupName, "name": groupName,
		"type": "Microsoft.Resources/resourceGroups", "location": "westeurope",
		"tags": map[string]string{"tenant": tenant}, "properties": map[string]string{"provisioningState": "Succeeded"},
	}
}

// strangerID is an app that the emulators know, and that has no role anywhere.
const strangerID = "c7a1f0de-52b4-4a39-9e86-10d3b5c9f742"

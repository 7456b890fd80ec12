//go:build e2e && linux

package clients_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/svidecar/svidecar/internal/emulation"
)

const vaultResource = "https://vault.azure.net"

// vaults stand in for Azure Key Vault: it tells who asks without a token which tenant
// and resource to get one for, and then looks at the token.
type vaults struct {
	tenants map[string]string // by host
	keySet  func(context.Context, string) ([]byte, error)
	mux     *http.ServeMux
	mu      sync.Mutex
	dances  map[string]int // challenges by path
}

func newVaults(keySet func(context.Context, string) ([]byte, error), tenants map[string]string) *vaults {
	v := &vaults{tenants: tenants, keySet: keySet, mux: http.NewServeMux(), dances: map[string]int{}}
	v.mux.HandleFunc("GET /secrets/{name}", v.secret)
	v.mux.HandleFunc("GET /secrets/{name}/{version...}", v.secret) // a client that wants the latest leaves it empty
	return v
}

// challenged says how often a secret was asked for without a token.
func (v *vaults) challenged(name string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dances[name]
}

var vaultVersion = regexp.MustCompile(`^(7\.\d|20\d\d-\d\d-\d\d)(-preview(\.\d)?)?$`)

func (v *vaults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if version := r.URL.Query().Get("api-version"); !vaultVersion.MatchString(version) {
		reply(w, http.StatusBadRequest, complaintOf("BadParameter", fmt.Sprintf("api-version %q is not supported", version)))
		return
	}
	v.mux.ServeHTTP(w, r)
}

// secret has a value for every name, which says whose it is.
func (v *vaults) secret(w http.ResponseWriter, r *http.Request) {
	tenant := v.tenants[r.Host]
	server := resourceServer{audiences: []string{vaultResource}, tenants: []string{tenant}, keySet: v.keySet}
	said, err := server.admit(r)
	if err != nil {
		v.challenge(w, r, tenant, err)
		return
	}
	if said.AppID != emulation.ClientID {
		reply(w, http.StatusForbidden, complaintOf("Forbidden", "Caller is not authorized to perform action on resource. Caller: appid="+said.AppID))
		return
	}
	name, now := r.PathValue("name"), time.Now().Unix()
	reply(w, http.StatusOK, map[string]any{
		"value": secretValue(tenant, name),
		"id":    "https://" + r.Host + "/secrets/" + name + "/0123456789abcdef0123456789abcdef",
		"attributes": map[string]any{
			"enabled": true, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90,
		},
		"tags": map[string]string{},
	})
}

func secretValue(tenant, name string) string { return "secret " + name + " of " + tenant }

func (v *vaults) challenge(w http.ResponseWriter, r *http.Request, tenant string, err error) {
	asked := `Bearer authorization="https://login.microsoftonline.com/` + tenant + `", resource="` + vaultResource + `"`
	if errors.Is(err, errNoBearer) {
		v.mu.Lock()
		v.dances[r.PathValue("name")]++
		v.mu.Unlock()
	} else {
		asked += `, error="invalid_token", error_description="` + err.Error() + `"`
	}
	w.Header().Set("WWW-Authenticate", asked)
	reply(w, http.StatusUnauthorized, complaintOf("Unauthorized", err.Error()))
}

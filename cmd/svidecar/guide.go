package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/emulation"
)

// direct are the addresses that must never be asked through a proxy: the
// request carries the secret, and the reply the token.
const direct = "127.0.0.1,localhost,169.254.169.254"

// withDirect adds what must be asked directly to a list of such names.
func withDirect(list string) string {
	if list = strings.Trim(list, ", "); list == "" || list == direct {
		return direct
	}
	return list + "," + direct
}

// guide tells people and programs where everything is.
type guide struct {
	cfg    *config.Config
	cloud  *emulation.Emulation
	url    string // of the token listener
	opsURL string
}

// variable is one that managed-identity clients read.
type variable struct{ name, value string }

// variables point every SDK that has a choice at the sidecar: App Service's
// pair, its older pair, the host that stands for 169.254.169.254, and
// Terraform's own.
func (g guide) variables() []variable {
	endpoint, header := g.url+"/msi/token", g.cfg.IdentityHeader.Reveal()
	return []variable{
		{"IDENTITY_ENDPOINT", endpoint},
		{"IDENTITY_HEADER", header},
		{"MSI_ENDPOINT", endpoint},
		{"MSI_SECRET", header},
		{"AZURE_POD_IDENTITY_AUTHORITY_HOST", g.url},
		{"ARM_MSI_ENDPOINT", g.url + "/metadata/identity/oauth2/token"},
		{"NO_PROXY", withDirect(os.Getenv("NO_PROXY"))},
		{"no_proxy", withDirect(os.Getenv("no_proxy"))},
	}
}

// print says how to ask for a token and how to point an app here.
func (g guide) print(w io.Writer) {
	set := "export %s=%s\n"
	if runtime.GOOS == "windows" {
		set = "$env:%s = '%s'\n"
	}
	fmt.Fprintf(w, `svidecar dev is ready. Ask for a token:

  curl -H Metadata:true '%s/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net'

Point an app here, or let "svidecar dev -- COMMAND" do it:

`, g.url)
	for _, v := range g.variables() {
		fmt.Fprintf(w, "  "+set, v.name, v.value)
	}
	fmt.Fprintf(w, `
identity   client id %s, tenant %s
assertion  issuer %s, subject %s
emulator   %s (controls: %s)
health     %s/readyz and /metrics

Tokens are signed by the emulator and work nowhere else. To see what it was
asked, and to make it fail: curl %s/
Ctrl-C ends it.

`, g.cloud.ClientID, g.cloud.TenantID, g.cloud.Issuer, emulation.Subject, g.cloud.Entra.URL(), g.cloud.Admin, g.opsURL, g.cloud.Admin)
}

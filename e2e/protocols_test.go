package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// allProtocols starts a sidecar that serves every protocol but Arc's, whose SDKs
// want a directory of the system's: see arc_linux_test.go.
func allProtocols(t *testing.T) (p *process, thumbprintFile string) {
	t.Helper()
	thumbprintFile = filepath.Join(t.TempDir(), "thumbprint")
	p, err := startDev("--protocols", "imds,appservice,azureml,cloudshell,servicefabric",
		"--servicefabric-listen", "127.0.0.1:0", "--servicefabric-thumbprint-file", thumbprintFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	})
	return p, thumbprintFile
}

// logged finds what the sidecar said of itself at the start.
func (p *process) logged(t *testing.T, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(pattern).FindStringSubmatch(p.log())
	if found == nil {
		t.Fatalf("the log does not match %s:\n%s", pattern, p.log())
	}
	return found[1]
}

// TestFurtherProtocols lets the SDKs find out by the variables of each platform
// which protocol to speak.
func TestFurtherProtocols(t *testing.T) {
	p, thumbprintFile := allProtocols(t)
	thumbprint, err := os.ReadFile(thumbprintFile)
	if err != nil {
		t.Fatal(err)
	}
	if said := p.logged(t, `Service Fabric.*thumbprint=(\S+)`); said != strings.TrimSpace(string(thumbprint)) {
		t.Errorf("the log says thumbprint %s, the file %s", said, thumbprint)
	}
	fabric := "https://" + p.logged(t, `Service Fabric.*address=(\S+)`) + "/metadata/identity/oauth2/token"
	for name, variables := range map[string]map[string]string{
		"azureml":       {"MSI_ENDPOINT": p.endpoint, "MSI_SECRET": p.header, "DEFAULT_IDENTITY_CLIENT_ID": p.clientID},
		"cloudshell":    {"MSI_ENDPOINT": p.endpoint},
		"servicefabric": {"IDENTITY_ENDPOINT": fabric, "IDENTITY_HEADER": p.header, "IDENTITY_SERVER_THUMBPRINT": string(thumbprint)},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range variables {
				t.Setenv(variable, value)
			}
			getByBoth(t, name)
		})
	}
	for name, wrong := range map[string]map[string]string{
		"azureml, wrong secret":           {"MSI_ENDPOINT": p.endpoint, "MSI_SECRET": "not-the-secret-of-this-sidecar"},
		"servicefabric, wrong secret":     {"IDENTITY_ENDPOINT": fabric, "IDENTITY_HEADER": "not-the-secret-of-this-sidecar", "IDENTITY_SERVER_THUMBPRINT": string(thumbprint)},
		"servicefabric, wrong thumbprint": {"IDENTITY_ENDPOINT": fabric, "IDENTITY_HEADER": p.header, "IDENTITY_SERVER_THUMBPRINT": strings.Repeat("00", 20)},
	} {
		t.Run(name, func(t *testing.T) {
			for variable, value := range wrong {
				t.Setenv(variable, value)
			}
			if result, err := msal(t, managedidentity.SystemAssigned()).AcquireToken(t.Context(), unique("wrong")); err == nil {
				t.Errorf("got a token that ends %v", result.ExpiresOn)
			}
		})
	}
}

// getByBoth asks through MSAL and through azidentity.
func getByBoth(t *testing.T, name string) {
	t.Helper()
	resource := unique("msal-" + name)
	client := msal(t, managedidentity.SystemAssigned())
	for _, source := range []managedidentity.TokenSource{managedidentity.TokenSourceIdentityProvider, managedidentity.TokenSourceCache} {
		result, err := client.AcquireToken(t.Context(), resource)
		if err != nil {
			t.Fatal(err)
		}
		requireAudience(t, result.AccessToken, resource)
		if got := result.Metadata.TokenSource; got != source {
			t.Errorf("the token came from %v, want %v: MSAL must cache what it was given", got, source)
		}
	}
	resource = unique("azidentity-" + name)
	token, err := ask(t, managedIdentity(t, &azidentity.ManagedIdentityCredentialOptions{}), resource)
	if err != nil {
		t.Fatal(err)
	}
	requireAudience(t, token.Token, resource)
}

func requireAudience(t *testing.T, token, resource string) {
	t.Helper()
	var claims struct {
		Audience string `json:"aud"`
	}
	if err := decodeClaims(token, &claims); err != nil || claims.Audience != resource {
		t.Errorf("the token is for %q, %v; want %s", claims.Audience, err, resource)
	}
}

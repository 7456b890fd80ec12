//go:build e2e && linux

package netns_test

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"

	"github.com/svidecar/svidecar/internal/emulation"
)

const tokenURL = "http://" + address + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="

// requireToken checks whose token it is and what for.
func requireToken(t *testing.T, token, resource string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("the token has %d parts, want 3", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		AppID    string `json:"appid"`
		Tenant   string `json:"tid"`
		Audience string `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.AppID != emulation.ClientID || claims.Tenant != emulation.TenantID || claims.Audience != resource {
		t.Errorf("the token is for %+v, want client id %s, tenant %s, resource %s", claims, emulation.ClientID, emulation.TenantID, resource)
	}
}

// requireReply checks a token reply as the tools that decode JSON see it.
func requireReply(t *testing.T, body, resource string) {
	t.Helper()
	var reply map[string]string
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	requireToken(t, reply["access_token"], resource)
	if reply["resource"] != resource || reply["token_type"] != "Bearer" {
		t.Errorf("the reply is for resource %q, token type %q", reply["resource"], reply["token_type"])
	}
}

// TestNamespaceIsClosed holds the promise of the package comment.
func TestNamespaceIsClosed(t *testing.T) {
	need(t)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 || links[0].Name != "lo" {
		t.Errorf("the links are %v, want lo alone", links)
	}
	for _, far := range []string{"192.0.2.1:80", "169.254.169.253:80", "169.254.1.1:80"} {
		if c, err := net.DialTimeout("tcp", far, time.Second); err == nil {
			_ = c.Close()
			t.Errorf("a connection to %s left the namespace", far)
		}
	}
}

func TestManagedIdentityCredential(t *testing.T) {
	need(t)
	dev(t)
	for name, id := range map[string]azidentity.ManagedIDKind{
		"system-assigned": nil,
		"client-id":       azidentity.ClientID(emulation.ClientID),
		"object-id":       azidentity.ObjectID(emulation.ObjectID),
		"resource-id":     azidentity.ResourceID(emulation.ResourceID),
	} {
		t.Run(name, func(t *testing.T) {
			cred, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: id})
			requireCredential(t, cred, err, "https://netns-azidentity-"+name+".example")
		})
	}
}

func TestDefaultAzureCredential(t *testing.T) {
	need(t)
	dev(t)
	for _, chosen := range []string{"", "prod", "ManagedIdentityCredential"} {
		t.Run("AZURE_TOKEN_CREDENTIALS="+chosen, func(t *testing.T) {
			if chosen != "" {
				t.Setenv("AZURE_TOKEN_CREDENTIALS", chosen)
			}
			cred, err := azidentity.NewDefaultAzureCredential(nil)
			requireCredential(t, cred, err, "https://netns-default"+chosen+".example")
		})
	}
}

func requireCredential(t *testing.T, cred azcore.TokenCredential, err error, resource string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	token, err := cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		t.Fatal(err)
	}
	requireToken(t, token.Token, resource)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the token came after %v", took)
	}
}

func TestMSAL(t *testing.T) {
	need(t)
	dev(t)
	for name, id := range map[string]managedidentity.ID{
		"system-assigned": managedidentity.SystemAssigned(),
		"client-id":       managedidentity.UserAssignedClientID(emulation.ClientID),
		"object-id":       managedidentity.UserAssignedObjectID(emulation.ObjectID),
		"resource-id":     managedidentity.UserAssignedResourceID(emulation.ResourceID),
	} {
		t.Run(name, func(t *testing.T) {
			client, err := managedidentity.New(id)
			if err != nil {
				t.Fatal(err)
			}
			resource := "https://netns-msal-" + name + ".example"
			result, err := client.AcquireToken(t.Context(), resource)
			if err != nil {
				t.Fatal(err)
			}
			requireToken(t, result.AccessToken, resource)
		})
	}
}

// TestCurl sends what Microsoft's documentation tells people to type.
func TestCurl(t *testing.T) {
	need(t, "curl")
	dev(t)
	const resource = "https://management.azure.com/"
	const missing = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`
	if got := run(t, nil, "curl", "-s", tokenURL+"https%3A%2F%2Fmanagement.azure.com%2F"); got != missing {
		t.Errorf("without the header: got %q, want %q", got, missing)
	}
	if got := run(t, nil, "curl", "-s", "-H", "Metadata: true", "-H", "X-Forwarded-For: 192.0.2.1", tokenURL+resource); strings.Contains(got, "access_token") {
		t.Errorf("a forwarded request was given a token: %q", got)
	}
	requireReply(t, run(t, nil, "curl", "-sf", tokenURL+"https%3A%2F%2Fmanagement.azure.com%2F", "-H", "Metadata: true"), resource)
}

// TestDevRunsCurl is dev's one-line form, at the real address.
func TestDevRunsCurl(t *testing.T) {
	need(t, "curl")
	const resource = "https://dev-curl.example"
	requireReply(t, run(t, nil, program, "dev", "--listen", address+":80", "--unsafe-listen", "--",
		"curl", "-sf", "-H", "Metadata: true", tokenURL+resource), resource)
}

// TestServe is what runs in a pod: a projected token, the webhook's variables,
// and the address.
func TestServe(t *testing.T) {
	need(t, "curl")
	cloud, err := emulation.Start(emulation.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	assertion, err := cloud.Source.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tokenFile, caFile := filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(tokenFile, []byte(assertion.Value.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(caFile, cloud.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, `"msg":"serving"`, []string{
		"AZURE_CLIENT_ID=" + cloud.ClientID, "AZURE_TENANT_ID=" + cloud.TenantID,
		"AZURE_FEDERATED_TOKEN_FILE=" + tokenFile, "AZURE_AUTHORITY_HOST=" + cloud.Entra.URL(),
		"SVIDECAR_AUTHORITY_CA_FILE=" + caFile,
		"SVIDECAR_LISTEN=" + address + ":80", "SVIDECAR_UNSAFE_LISTEN=true",
	}, "serve")
	run(t, nil, program, "wait")
	const resource = "https://served.example"
	requireReply(t, run(t, nil, "curl", "-sf", "-H", "Metadata: true", tokenURL+resource), resource)
	if !strings.Contains(p.log(), "unsafe-listen is on") {
		t.Error("serve did not warn that it listens where others may ask")
	}
}

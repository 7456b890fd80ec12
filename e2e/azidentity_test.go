package e2e_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// What dev says of its one identity.
const (
	objectID   = "8a4c2e60-7b1d-4f93-a5e8-0c9d3b6f7e12"
	resourceID = "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/dev/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"
	strangerID = "11111111-2222-3333-4444-555555555555"
)

// azidentityIDs are the ways in which azidentity names an identity.
func azidentityIDs() map[string]azidentity.ManagedIDKind {
	return map[string]azidentity.ManagedIDKind{
		"system-assigned": nil,
		"client-id":       azidentity.ClientID(sidecar.clientID),
		"shouted-id":      azidentity.ClientID(strings.ToUpper(sidecar.clientID)),
		"object-id":       azidentity.ObjectID(objectID),
		"resource-id":     azidentity.ResourceID(resourceID),
		"resource-id-az":  azidentity.ResourceID(strings.Replace(resourceID, "resourcegroups", "resourceGroups", 1)),
	}
}

// throughIMDS makes the credential as on a virtual machine.
func throughIMDS(t *testing.T, id azidentity.ManagedIDKind) azcore.TokenCredential {
	t.Helper()
	return managedIdentity(t, &azidentity.ManagedIdentityCredentialOptions{
		ID: id, ClientOptions: azcore.ClientOptions{Transport: redirected()},
	})
}

// throughAppService makes the credential as in App Service, with nothing of ours
// in it but the two variables.
func throughAppService(t *testing.T, id azidentity.ManagedIDKind) azcore.TokenCredential {
	t.Helper()
	useAppService(t)
	return managedIdentity(t, &azidentity.ManagedIdentityCredentialOptions{ID: id})
}

func managedIdentity(t *testing.T, opts *azidentity.ManagedIdentityCredentialOptions) azcore.TokenCredential {
	t.Helper()
	cred, err := azidentity.NewManagedIdentityCredential(opts)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

// azidentityWays are the protocols that azidentity speaks to the sidecar.
var azidentityWays = map[string]func(*testing.T, azidentity.ManagedIDKind) azcore.TokenCredential{
	"imds": throughIMDS, "appservice": throughAppService,
}

func ask(t *testing.T, cred azcore.TokenCredential, resource string) (azcore.AccessToken, error) {
	t.Helper()
	return cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
}

func TestManagedIdentityCredentialIsRefused(t *testing.T) {
	for way, credential := range azidentityWays {
		t.Run(way+"/unknown object id", func(t *testing.T) {
			cred := credential(t, azidentity.ObjectID(strangerID))
			began := time.Now()
			_, err := ask(t, cred, "https://stranger-"+way+".example")
			requirePrompt(t, err, began, "Identity not found")
		})
	}
	t.Run("appservice/wrong header", func(t *testing.T) {
		useAppService(t)
		t.Setenv("IDENTITY_HEADER", "not-the-secret-of-this-sidecar")
		cred := managedIdentity(t, nil)
		began := time.Now()
		_, err := ask(t, cred, "https://wrong-header.example")
		requirePrompt(t, err, began, "X-IDENTITY-HEADER")
	})
	if n := emulatorCalls(t).Scopes["https://wrong-header.example/.default"]; n != 0 {
		t.Errorf("a request without the secret caused %d exchanges", n)
	}
}

// TestDevKnowsEveryClientID: an app that names its own identity runs under dev
// without a word of configuration, and gets that identity's token.
func TestDevKnowsEveryClientID(t *testing.T) {
	for way, credential := range azidentityWays {
		token, err := ask(t, credential(t, azidentity.ClientID(strangerID)), unique("any-client-"+way))
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		var claims struct{ AppID string }
		if err := decodeClaims(token.Token, &claims); err != nil || claims.AppID != strangerID {
			t.Errorf("%s: appid = %q, %v; want %s", way, claims.AppID, err, strangerID)
		}
	}
}

func TestManagedIdentityCredential(t *testing.T) {
	for way, credential := range azidentityWays {
		for name, id := range azidentityIDs() {
			t.Run(way+"/"+name, func(t *testing.T) {
				resource := unique("azidentity-" + name + "-" + way)
				cred := credential(t, id)
				for range 2 { // the second comes from a cache, of whomever
					token, err := ask(t, cred, resource)
					if err != nil {
						t.Fatal(err)
					}
					requireEarned(t, token.Token, resource, token.ExpiresOn)
				}
			})
		}
	}
}

// TestDefaultAzureCredential goes through the chain of an app that names no
// credential at all, the probe of 169.254.169.254 included.
func TestDefaultAzureCredential(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T){
		"imds-probing-whole-chain": func(*testing.T) {},
		"imds-probing-production": func(t *testing.T) {
			t.Setenv("AZURE_TOKEN_CREDENTIALS", "prod")
		},
		"imds-without-probe": func(t *testing.T) {
			t.Setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
		},
		"imds-probing-client-id": func(t *testing.T) {
			t.Setenv("AZURE_CLIENT_ID", sidecar.clientID)
		},
		"appservice": func(t *testing.T) {
			useAppService(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			prepare(t)
			resource := unique("default-credential-" + name)
			cred, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
				ClientOptions: azcore.ClientOptions{Transport: redirected()},
			})
			if err != nil {
				t.Fatal(err)
			}
			probed := probes(t)
			began := time.Now()
			token, err := ask(t, cred, resource)
			if err != nil {
				t.Fatal(err)
			}
			requireEarned(t, token.Token, resource, token.ExpiresOn)
			if got, want := probes(t)-probed, strings.Contains(name, "probing"); (got == 1) != want {
				t.Errorf("the chain probed %d times; want it to probe: %v", got, want)
			}
			if took := time.Since(began); took > prompt {
				t.Errorf("the chain took %v to find the sidecar", took)
			}
		})
	}
}

// probes is how many requests without Metadata the sidecar has counted.
func probes(t *testing.T) int {
	t.Helper()
	resp, err := http.Get(sidecar.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^svidecar_requests_total{outcome="metadata_missing",protocol="imds"} (\d+)$`).FindSubmatch(body)
	if found == nil {
		t.Fatalf("no such count among the metrics:\n%s", body)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

package e2e_test

import (
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// msalIDs are the ways in which MSAL names an identity.
func msalIDs() map[string]managedidentity.ID {
	return map[string]managedidentity.ID{
		"system-assigned": managedidentity.SystemAssigned(),
		"client-id":       managedidentity.UserAssignedClientID(sidecar.clientID),
		"object-id":       managedidentity.UserAssignedObjectID(objectID),
		"resource-id":     managedidentity.UserAssignedResourceID(resourceID),
	}
}

// msalWays are the protocols that MSAL speaks to the sidecar. Its cache is
// shared by the whole process, so that each test needs a resource of its own.
var msalWays = map[string]func(*testing.T, managedidentity.ID) managedidentity.Client{
	"imds": func(t *testing.T, id managedidentity.ID) managedidentity.Client {
		t.Helper()
		return msal(t, id, managedidentity.WithHTTPClient(redirected()))
	},
	"appservice": func(t *testing.T, id managedidentity.ID) managedidentity.Client {
		t.Helper()
		useAppService(t)
		return msal(t, id)
	},
}

func msal(t *testing.T, id managedidentity.ID, opts ...managedidentity.ClientOption) managedidentity.Client {
	t.Helper()
	client, err := managedidentity.New(id, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestMSALIsRefused(t *testing.T) {
	for way, connect := range msalWays {
		t.Run(way+"/unknown object id", func(t *testing.T) {
			client := connect(t, managedidentity.UserAssignedObjectID(strangerID))
			began := time.Now()
			_, err := client.AcquireToken(t.Context(), "https://msal-stranger-"+way+".example")
			requirePrompt(t, err, began, "Identity not found")
		})
	}
	t.Run("appservice/wrong header", func(t *testing.T) {
		useAppService(t)
		t.Setenv("IDENTITY_HEADER", "not-the-secret-of-this-sidecar")
		client := msal(t, managedidentity.SystemAssigned())
		began := time.Now()
		_, err := client.AcquireToken(t.Context(), "https://msal-wrong-header.example")
		requirePrompt(t, err, began, "X-IDENTITY-HEADER")
	})
}

func TestMSAL(t *testing.T) {
	for way, connect := range msalWays {
		for name, id := range msalIDs() {
			t.Run(way+"/"+name, func(t *testing.T) {
				resource := unique("msal-" + name + "-" + way)
				client := connect(t, id)
				for _, source := range []managedidentity.TokenSource{managedidentity.TokenSourceIdentityProvider, managedidentity.TokenSourceCache} {
					result, err := client.AcquireToken(t.Context(), resource)
					if err != nil {
						t.Fatal(err)
					}
					requireEarned(t, result.AccessToken, resource, result.ExpiresOn)
					if got := result.Metadata.TokenSource; got != source {
						t.Errorf("the token came from %v, want %v: MSAL must cache what it was given", got, source)
					}
				}
			})
		}
	}
}

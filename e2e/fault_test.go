package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// TestAppSeesEntrasCode: what only a person can mend reaches the app's error at
// once, by name, through every client and protocol.
func TestAppSeesEntrasCode(t *testing.T) {
	const code = "AADSTS700016"
	for way, credential := range azidentityWays {
		for name, id := range map[string]azidentity.ManagedIDKind{"system": nil, "user": azidentity.ClientID(sidecar.clientID)} {
			t.Run("azidentity/"+way+"/"+name, func(t *testing.T) {
				resource := unique("refused-azidentity-" + way + "-" + name)
				setFault(t, resource, `{"aadsts":700016}`)
				cred := credential(t, id)
				began := time.Now()
				_, err := ask(t, cred, resource)
				requirePrompt(t, err, began, code)
			})
		}
	}
	for way, connect := range msalWays {
		t.Run("msal/"+way, func(t *testing.T) {
			resource := unique("refused-msal-" + way)
			setFault(t, resource, `{"aadsts":700016}`)
			client := connect(t, managedidentity.SystemAssigned())
			began := time.Now()
			_, err := client.AcquireToken(t.Context(), resource)
			requirePrompt(t, err, began, code)
		})
	}
}

// TestReplyToThrottling shows on the wire what clients act on.
func TestReplyToThrottling(t *testing.T) {
	for _, tt := range []struct {
		name, fault string
		status      int
		retryAfter  string
		code        string
	}{
		{"throttled", `{"status":429,"retry_after":"3","times":1}`, http.StatusTooManyRequests, "3", "too_many_requests"},
		{"throttled for a minute", `{"status":429,"retry_after":"60","times":1}`, http.StatusTooManyRequests, "20", "too_many_requests"},
		{"throttled without a time", `{"status":429,"times":1}`, http.StatusTooManyRequests, "1", "too_many_requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resource := unique("wire-" + url.PathEscape(tt.retryAfter))
			setFault(t, resource, tt.fault)
			resp := get(t, redirected(), resource)
			var body struct {
				Error string `json:"error"`
			}
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Retry-After"); resp.StatusCode != tt.status || got != tt.retryAfter || body.Error != tt.code {
				t.Errorf("got %s, Retry-After %q, error %q; want %d, %q, %q", resp.Status, got, body.Error, tt.status, tt.retryAfter, tt.code)
			}
		})
	}
}

// TestClientsOutliveFailures: what passes by itself costs the app some seconds
// and no error, because the reply makes the client's own retries do the work.
func TestClientsOutliveFailures(t *testing.T) {
	const patience = 10 * time.Second
	for name, fault := range map[string]string{
		"throttled":   `{"status":429,"retry_after":"1","times":1}`,
		"unavailable": `{"status":503,"times":2}`,
		"reset":       `{"reset":true,"times":1}`,
	} {
		t.Run("azidentity/"+name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			resource := unique("outlived-azidentity-" + name)
			setFault(t, resource, fault)
			cred := throughIMDS(t, nil)
			began := time.Now()
			if _, err := ask(t, cred, resource); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("recovery took %v", took)
			}
		})
		t.Run("msal/"+name, func(t *testing.T) {
			t.Parallel()
			resource := unique("outlived-msal-" + name)
			setFault(t, resource, fault)
			client := msal(t, managedidentity.SystemAssigned(), managedidentity.WithHTTPClient(redirected()))
			began := time.Now()
			if _, err := client.AcquireToken(t.Context(), resource); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("recovery took %v", took)
			}
		})
	}
}

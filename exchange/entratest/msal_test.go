package entratest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"
	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// msal makes a confidential client whose assertions newAttempt makes.
func msal(t *testing.T, f *fixture, client *http.Client, authority string, discover bool, change func(*attempt)) confidential.Client {
	t.Helper()
	cred := confidential.NewCredFromAssertionCallback(func(context.Context, confidential.AssertionRequestOptions) (string, error) {
		a := newAttempt(f)
		if change != nil {
			change(a)
		}
		return a.sign(), nil
	})
	c, err := confidential.New(authority, clientID, cred,
		confidential.WithHTTPClient(client), confidential.WithInstanceDiscovery(discover))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMSAL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		authority string // empty: the emulator's own address
		discover  bool
	}{
		{"without instance discovery", "", false},
		{"with instance discovery", "", true},
		{"as login.microsoftonline.com", "https://login.microsoftonline.com", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *entratest.Config) {
				c.Hosts = []string{"login.microsoftonline.com"}
				c.RefreshIn = 30 * time.Minute
			})
			authority := tt.authority
			if authority == "" {
				authority = f.entra.URL()
			}
			client := msal(t, f, toEmulator(t, f), authority+"/"+tenantID, tt.discover, nil)
			got, err := client.AcquireTokenByCredential(t.Context(), []string{vaultScope})
			if err != nil {
				t.Fatal(err)
			}
			_, claims := verifyByJWKS(t, f, got.AccessToken)
			if claims["aud"] != vault || claims["appid"] != clientID {
				t.Errorf("claims = %v", claims)
			}
			if life := time.Until(got.ExpiresOn); life < 59*time.Minute || life > time.Hour {
				t.Errorf("ExpiresOn is %v away, want about 1h", life)
			}
			if got.Metadata.RefreshOn.IsZero() {
				t.Error("RefreshOn is zero")
			}
			calls := f.entra.Calls()
			if (calls.Instance > 0) != tt.discover || calls.Discovery != 1 || calls.Token != 1 || calls.Successes != 1 {
				t.Errorf("Calls() = %+v", calls)
			}
		})
	}
}

// toEmulator returns a client that reaches the emulator under every name.
func toEmulator(t *testing.T, f *fixture) *http.Client {
	addr := strings.TrimPrefix(f.entra.URL(), "https://")
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: f.entra.CA().Pool()},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestMSALRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	client := msal(t, f, f.client, f.entra.URL()+"/"+tenantID, false, claim("sub", "spiffe://example.org/other"))
	_, err := client.AcquireTokenByCredential(t.Context(), []string{vaultScope})
	var call msalerrors.CallErr
	if !errors.As(err, &call) || call.Resp.StatusCode != http.StatusUnauthorized || !strings.Contains(err.Error(), "AADSTS700213") {
		t.Errorf("error = %v, want 401 with AADSTS700213", err)
	}
}

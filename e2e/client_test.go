package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Go reads the proxy variables once in a process, so what depends on them runs
// in an app of its own: this test binary, in a role.
const (
	roleAppService = "appservice" // knows IDENTITY_ENDPOINT and nothing else
	roleIMDS       = "imds"       // asks 169.254.169.254, redirected
)

// runClient is that app's main. It prints the token's audience.
func runClient(role string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resource := "https://client-" + role + ".example"
	opts := &azidentity.ManagedIdentityCredentialOptions{}
	switch role {
	case roleAppService:
		if os.Getenv("IDENTITY_ENDPOINT") == "" || os.Getenv("IDENTITY_HEADER") == "" {
			return complain(fmt.Errorf("role %s: the variables are not set", role))
		}
	case roleIMDS:
		for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET"} {
			_ = os.Unsetenv(name)
		}
		opts.ClientOptions = azcore.ClientOptions{
			Transport: redirectedTo(os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"), http.ProxyFromEnvironment),
		}
	default:
		return complain(fmt.Errorf("there is no role %q", role))
	}
	cred, err := azidentity.NewManagedIdentityCredential(opts)
	if err != nil {
		return complain(err)
	}
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		return complain(err)
	}
	var claims struct {
		Audience string `json:"aud"`
	}
	if err := decodeClaims(token.Token, &claims); err != nil {
		return complain(err)
	}
	fmt.Println(claims.Audience)
	return 0
}

// Command client asks for a token for each resource on standard input by one client
// of Go's. It never chooses the protocol: the client does, by its environment.
//
// Usage: client CLIENT SELECTOR [VALUE], or client versions. Each line of input gets
// one line of JSON: a token or an error. Status 3: the client has no such selector.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/go-autorest/autorest/adal"
	"github.com/hashicorp/go-azure-sdk/sdk/auth"
	"github.com/hashicorp/go-azure-sdk/sdk/environments"
)

// asker gets a token for a resource.
type asker func(ctx context.Context, resource string) (string, error)

// unsupported ends the program: the client has no such selector.
func unsupported() { os.Exit(3) }

var clients = map[string]func(selector, value string) (asker, error){
	"azidentity":             newAzidentity,
	"go-autorest/adal":       newADAL,
	"hashicorp/go-azure-sdk": newHashiCorp,
}

var modules = map[string]string{
	"azidentity":             "github.com/Azure/azure-sdk-for-go/sdk/azidentity",
	"go-autorest/adal":       "github.com/Azure/go-autorest/autorest/adal",
	"hashicorp/go-azure-sdk": "github.com/hashicorp/go-azure-sdk/sdk",
}

func newAzidentity(selector, value string) (asker, error) {
	options := &azidentity.ManagedIdentityCredentialOptions{ID: map[string]azidentity.ManagedIDKind{
		"client_id":   azidentity.ClientID(value),
		"object_id":   azidentity.ObjectID(value),
		"resource_id": azidentity.ResourceID(value),
	}[selector]}
	credential, err := azidentity.NewManagedIdentityCredential(options)
	return func(ctx context.Context, resource string) (string, error) {
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
		return token.Token, err
	}, err
}

func newADAL(selector, value string) (asker, error) {
	options := &adal.ManagedIdentityOptions{}
	switch selector {
	case "client_id":
		options.ClientID = value
	case "resource_id":
		options.IdentityResourceID = value
	case "object_id":
		unsupported()
	}
	tokens := map[string]*adal.ServicePrincipalToken{}
	return func(ctx context.Context, resource string) (token string, err error) {
		if tokens[resource] == nil {
			tokens[resource], err = adal.NewServicePrincipalTokenFromManagedIdentity(resource, options)
		}
		if err == nil {
			err = tokens[resource].EnsureFreshWithContext(ctx)
		}
		if err != nil {
			return "", err
		}
		return tokens[resource].OAuthToken(), nil
	}, nil
}

// newHashiCorp reads the variables that Terraform's provider does.
func newHashiCorp(selector, value string) (asker, error) {
	if selector != "system" && selector != "client_id" {
		unsupported()
	}
	authorizers := map[string]auth.Authorizer{}
	return func(ctx context.Context, resource string) (_ string, err error) {
		if authorizers[resource] == nil {
			authorizers[resource], err = auth.NewManagedIdentityAuthorizer(ctx, auth.ManagedIdentityAuthorizerOptions{
				Api:                             environments.NewApiEndpoint("test", resource, nil).WithResourceIdentifier(resource),
				ClientId:                        value,
				CustomManagedIdentityEndpoint:   os.Getenv("ARM_MSI_ENDPOINT"),
				CustomManagedIdentityAPIVersion: os.Getenv("ARM_MSI_API_VERSION"),
			})
		}
		if err != nil {
			return "", err
		}
		token, err := authorizers[resource].Token(ctx, nil)
		if err != nil {
			return "", err
		}
		return token.AccessToken, nil
	}, nil
}

func main() {
	if os.Args[1] == "versions" {
		_ = json.NewEncoder(os.Stdout).Encode(versions())
		return
	}
	args := append(os.Args[1:], "", "")
	ask, err := clients[args[0]](args[1], args[2])
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		reply := map[string]string{}
		var token string
		failed := err
		if failed == nil {
			token, failed = ask(context.Background(), lines.Text())
		}
		if failed != nil {
			reply["error"] = cmp.Or(failed.Error(), "an error without words")
		} else {
			reply["token"] = token
		}
		_ = json.NewEncoder(os.Stdout).Encode(reply)
	}
}

func versions() map[string]string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		fmt.Fprintln(os.Stderr, "client: no build information")
		os.Exit(1)
	}
	found := map[string]string{}
	for client, module := range modules {
		for _, dep := range info.Deps {
			if dep.Path == module {
				found[client] = dep.Version[1:]
			}
		}
	}
	return found
}

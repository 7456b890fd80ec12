// Command consumer gets what each line of standard input names, by a library of Go's
// that asks for tokens by itself.
//
// Usage: consumer CONSUMER, or consumer versions. Each line gets one line of JSON: a
// value or an error.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/hashicorp/go-azure-helpers/resourcemanager/commonids"
	"github.com/hashicorp/go-azure-sdk/resource-manager/resources/2025-04-01/resourcegroups"
	"github.com/hashicorp/go-azure-sdk/sdk/auth"
	"github.com/hashicorp/go-azure-sdk/sdk/environments"
)

var consumers = map[string]struct {
	module string
	get    func(ctx context.Context, line string) (string, error)
}{
	"azsecrets":              {"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets", getSecret},
	"hashicorp/go-azure-sdk": {"github.com/hashicorp/go-azure-sdk/resource-manager", getGroup},
}

// getSecret takes the secret's URL.
func getSecret(ctx context.Context, line string) (string, error) {
	address, err := url.Parse(line)
	if err != nil {
		return "", err
	}
	credential, err := azidentity.NewManagedIdentityCredential(nil)
	if err != nil {
		return "", err
	}
	client, err := azsecrets.NewClient("https://"+address.Host, credential, nil)
	if err != nil {
		return "", err
	}
	secret, err := client.GetSecret(ctx, strings.TrimPrefix(address.Path, "/secrets/"), "", nil)
	if err != nil {
		return "", err
	}
	return *secret.Value, nil
}

// getGroup takes a resource group's id, and gives its tag, if the subscription lists
// that group. It makes its clients as Terraform's provider does.
func getGroup(ctx context.Context, line string) (string, error) {
	id, err := commonids.ParseResourceGroupID(line)
	if err != nil {
		return "", err
	}
	client, err := newGroups(ctx)
	if err != nil {
		return "", err
	}
	all, err := client.ListComplete(ctx, commonids.NewSubscriptionID(id.SubscriptionId), resourcegroups.DefaultListOperationOptions())
	if err != nil {
		return "", err
	}
	if len(all.Items) != 1 || *all.Items[0].Name != id.ResourceGroupName {
		return "", fmt.Errorf("the subscription lists %v", all.Items)
	}
	found, err := client.Get(ctx, *id)
	if err != nil {
		return "", err
	}
	return (*found.Model.Tags)["tenant"], nil
}

func newGroups(ctx context.Context) (*resourcegroups.ResourceGroupsClient, error) {
	cloud := environments.AzurePublic()
	authorizer, err := auth.NewAuthorizerFromCredentials(ctx, auth.Credentials{
		Environment:                              *cloud,
		EnableAuthenticatingUsingManagedIdentity: true,
		CustomManagedIdentityEndpoint:            os.Getenv("ARM_MSI_ENDPOINT"),
	}, cloud.ResourceManager)
	if err != nil {
		return nil, err
	}
	client, err := resourcegroups.NewResourceGroupsClientWithBaseURI(cloud.ResourceManager)
	if err != nil {
		return nil, err
	}
	client.Client.SetAuthorizer(authorizer)
	return client, nil
}

func main() {
	if os.Args[1] == "versions" {
		_ = json.NewEncoder(os.Stdout).Encode(versions())
		return
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		reply := map[string]string{}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // HashiCorp's client wants a deadline
		value, err := consumers[os.Args[1]].get(ctx, lines.Text())
		cancel()
		if err != nil {
			reply["error"] = err.Error()
		} else {
			reply["value"] = value
		}
		_ = json.NewEncoder(os.Stdout).Encode(reply)
	}
}

func versions() map[string]string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		fmt.Fprintln(os.Stderr, "consumer: no build information")
		os.Exit(1)
	}
	found := map[string]string{}
	for name, c := range consumers {
		for _, dep := range info.Deps {
			if dep.Path == c.module {
				found[name] = dep.Version[1:]
			}
		}
	}
	return found
}

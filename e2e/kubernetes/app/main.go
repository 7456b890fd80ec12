// Command app is the workload of the cluster's tests: an app that knows managed identity by the Azure SDK and nothing
// else. It asks for a token again and again, each time as a process that has just started would, and prints whose it is.
// It never prints the token, and never ends by itself unless -once is given.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// line is what is printed for each attempt.
type line struct {
	AppID    string `json:"appid,omitempty"`
	Tenant   string `json:"tid,omitempty"`
	Audience string `json:"aud,omitempty"`
	Error    string `json:"error,omitempty"`
}

func main() {
	resource := flag.String("resource", "https://vault.azure.net", "what the tokens are for")
	client := flag.String("client-id", "", "identity to ask for; empty: the default one")
	every := flag.Duration("every", time.Second, "pause between attempts")
	once := flag.Bool("once", false, "end after one attempt, with status 1 if it failed")
	flag.Parse()
	for {
		got := attempt(*resource, *client)
		_ = json.NewEncoder(os.Stdout).Encode(got)
		switch {
		case !*once:
			time.Sleep(*every)
		case got.Error != "":
			os.Exit(1)
		default:
			return
		}
	}
}

// attempt asks with a credential of its own, since the SDK would answer further requests from memory.
func attempt(resource, client string) line {
	opts := &azidentity.ManagedIdentityCredentialOptions{}
	if client != "" {
		opts.ID = azidentity.ClientID(client)
	}
	cred, err := azidentity.NewManagedIdentityCredential(opts)
	if err != nil {
		return line{Error: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	if err != nil {
		return line{Error: err.Error()}
	}
	l, err := read(token.Token)
	if err != nil {
		return line{Error: err.Error()}
	}
	return l
}

// read gives the claims of a token, unverified: whether it is a good one is for the emulator to say.
func read(token string) (l line, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return line{}, errors.New("the token is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return line{}, errors.New("the token's payload is not base64url")
	}
	return l, json.Unmarshal(payload, &l)
}

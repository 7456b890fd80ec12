// Command whoami is an app as apps were written for aad-pod-identity: it knows managed identity by Azure's SDK, at
// 169.254.169.254, and nothing of svidecar. It prints whose tokens it gets, every ten seconds, and never the tokens.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

const (
	scope   = "https://vault.azure.net/.default"
	pause   = 10 * time.Second
	timeout = 30 * time.Second // of one attempt, with the SDK's own retries in it
)

// line is what is printed of each attempt.
type line struct {
	AppID    string `json:"appid,omitempty"`
	Tenant   string `json:"tid,omitempty"`
	Audience string `json:"aud,omitempty"`
	Error    string `json:"error,omitempty"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for {
		l, err := attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l = line{Error: err.Error()}
		}
		_ = json.NewEncoder(os.Stdout).Encode(l)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func attempt(ctx context.Context) (line, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	credential, err := azidentity.NewManagedIdentityCredential(nil)
	if err != nil {
		return line{}, err
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return line{}, err
	}
	return read(token.Token)
}

// read gives the claims of a token, which only whom it is for can verify.
func read(token string) (l line, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return line{}, errors.New("the token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return line{}, errors.New("the token's payload is not base64url")
	}
	if err := json.Unmarshal(payload, &l); err != nil {
		return line{}, errors.New("the token's payload is not JSON")
	}
	return l, nil
}

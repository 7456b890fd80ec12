package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/config"
)

// oneToken goes the way of a request for resource; name selects an identity of
// the list, else it is the default one.
func oneToken(ctx context.Context, cfg *config.Config, name, resource string) (exchange.Key, exchange.Token, error) {
	if resource == "" {
		return exchange.Key{}, exchange.Token{}, errors.New("--resource: it is missing: add, for instance, --resource https://vault.azure.net")
	}
	sc, err := newSidecar(cfg)
	if err != nil {
		return exchange.Key{}, exchange.Token{}, err
	}
	defer sc.close()
	key, err := sc.keyOf(name, resource)
	if err != nil {
		return exchange.Key{}, exchange.Token{}, err
	}
	token, err := sc.tokens.Token(ctx, key)
	return key, token, err
}

// keyOf is the key of a request for resource by an identity of the list, by name
// or client id; without a name by the default one.
func (sc *sidecar) keyOf(name, resource string) (exchange.Key, error) {
	query := url.Values{"resource": {resource}}
	if name != "" {
		query.Set("client_id", name)
	}
	for _, id := range sc.cfg.Identities {
		if id.Name == name {
			query.Set("client_id", id.ClientID)
		}
	}
	req, err := imds.ParseRequest(imds.IMDS, query.Encode())
	if err != nil {
		return exchange.Key{}, words(err)
	}
	key, err := sc.policy.Resolve(req)
	return key, words(err)
}

// words is a refusal without what only programs read.
func words(err error) error {
	if refusal := new(imds.Refusal); errors.As(err, &refusal) {
		return errors.New(refusal.Description)
	}
	return err
}

func describe(w io.Writer, key exchange.Key, token exchange.Token) error {
	_, err := fmt.Fprintf(w, "client id   %s\ntenant      %s\nscope       %s\nexpires on  %s (in %s)\n",
		key.ClientID, key.Tenant, key.Scope, token.ExpiresOn.UTC().Format(time.RFC3339), time.Until(token.ExpiresOn).Round(time.Second))
	return err
}

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

// oneToken goes the way of a request for resource without a selector.
func oneToken(ctx context.Context, cfg *config.Config, resource string) (exchange.Key, exchange.Token, error) {
	sc, err := newSidecar(cfg)
	if err != nil {
		return exchange.Key{}, exchange.Token{}, err
	}
	defer sc.close()
	req, err := imds.ParseRequest(imds.IMDS, url.Values{"resource": {resource}}.Encode())
	if refusal := new(imds.Refusal); errors.As(err, &refusal) {
		return exchange.Key{}, exchange.Token{}, fmt.Errorf("--resource: %s", refusal.Description)
	}
	key, err := sc.policy.Resolve(req)
	if err != nil {
		return exchange.Key{}, exchange.Token{}, err
	}
	token, err := sc.tokens.Token(ctx, key)
	return key, token, err
}

func describe(w io.Writer, key exchange.Key, token exchange.Token) error {
	_, err := fmt.Fprintf(w, "client id   %s\ntenant      %s\nscope       %s\nexpires on  %s (in %s)\n",
		key.ClientID, key.Tenant, key.Scope, token.ExpiresOn.UTC().Format(time.RFC3339), time.Until(token.ExpiresOn).Round(time.Second))
	return err
}

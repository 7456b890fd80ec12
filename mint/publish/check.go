package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// checkTimeout bounds the fetching of one document.
const checkTimeout = 10 * time.Second

// Check fetches the two documents from the issuer's URL, as a verifier does, and
// returns the kids of the keys that are served there, as their numbers make them. It
// follows no redirect, because Microsoft Entra ID is not known to. An error says
// what a verifier would not accept, and shows no more than 100 bytes of what was
// served.
func Check(ctx context.Context, client *http.Client, issuer string) (kids []string, err error) {
	base := strings.TrimSuffix(issuer, "/")
	discovery, err := fetch(ctx, client, base+"/"+discoveryFile)
	if err != nil {
		return nil, err
	}
	switch is := issuerOf(discovery); is {
	case issuer:
	case "":
		return nil, fmt.Errorf("publish: %s/%s is no discovery document: upload it, and nothing in its place", base, discoveryFile)
	default:
		return nil, fmt.Errorf("publish: %s/%s is of issuer %.100q, not %q: they must be equal byte for byte", base, discoveryFile, is, issuer)
	}
	keySet, err := fetch(ctx, client, base+"/"+keySetFile)
	if err != nil {
		return nil, err
	}
	keys, err := mint.ParseKeySet(keySet)
	if err != nil {
		return nil, fmt.Errorf("publish: %s/%s: %w: upload it again", base, keySetFile, err)
	}
	for _, key := range keys {
		kid, err := mint.KeyID(key)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		kids = append(kids, kid)
	}
	return kids, nil
}

func fetch(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	strict := *client
	strict.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := strict.Do(req)
	if err != nil {
		return nil, fmt.Errorf("publish: %w: check that the URL leads to the documents, with a certificate that everybody trusts", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("publish: GET %s: %s: upload the documents there, readable without sign-in", url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = errors.New("longer than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("publish: GET %s: %w", url, err)
	}
	return data, nil
}

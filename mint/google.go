package mint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Where Google's client libraries look for the metadata server, and what it and
// its clients write into each message to be told from others at that address.
const (
	googleHostVariable = "GCE_METADATA_HOST"
	googleHost         = "metadata.google.internal"
	googlePath         = "/computeMetadata/v1/instance/service-accounts/default/identity"
	googleFlavor       = "Metadata-Flavor"
)

// GoogleConfig configures [NewGoogle].
type GoogleConfig struct {
	// Host is the metadata server, with a port or without. Empty means what
	// GCE_METADATA_HOST says when NewGoogle is called, else
	// metadata.google.internal, which is 169.254.169.254.
	Host string

	// Audience is the aud claim to ask for, 1 to 600 printable ASCII characters,
	// as the cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Timeout bounds one request, 1 s to 1 min. Zero means 10 s.
	Timeout time.Duration
}

// NewGoogle returns a source for machines, pods and services of Google Cloud: ID
// tokens of their default service account, whose subject is its numeric id. It
// sends nothing yet. The metadata server is asked without TLS, which it does not
// have, and never by a proxy.
func NewGoogle(cfg GoogleConfig) (*Fetcher, error) {
	f, err := newFetcher("GoogleConfig", cfg.Audience, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	host, name := cfg.Host, "GoogleConfig.Host"
	if host == "" {
		host, name = os.Getenv(googleHostVariable), googleHostVariable
	}
	if host == "" {
		host = googleHost
	}
	if !isHostPort(host) {
		return nil, fmt.Errorf("mint: %s: %q is neither a host nor host:port: write it like %s", name, host, googleHost)
	}
	target := &url.URL{Scheme: "http", Host: host, Path: googlePath,
		RawQuery: "audience=" + url.QueryEscape(cfg.Audience) + "&format=full"}
	transport := newTransport(nil)
	transport.Proxy = nil // the token must not leave the machine on its way here
	f.from = fmt.Sprintf("Google's metadata server %q", host)
	f.advice = byPlatform("Google's own tokens are not like this: check what answers there")
	f.get = func(ctx context.Context) (string, *trouble) {
		req := newRequest(ctx, target)
		req.Header.Set(googleFlavor, "Google")
		reply, refused := ask(transport, req)
		if refused == nil {
			refused = reply.notGoogle()
		}
		if refused == nil {
			refused = reply.refusal("check that this machine, pod or service has a service account (404: it has none)")
		}
		if refused != nil {
			return "", refused
		}
		return strings.TrimSpace(string(reply.body)), nil
	}
	return f, nil
}

// notGoogle looks for the header that only Google's server sends. Without it the
// likeliest is that our own packet redirection or address caught the request.
func (a answer) notGoogle() *trouble {
	const elsewhere = "set --google-metadata-host, or the source's metadata-host, to where the real one is"
	switch {
	case a.header.Get(googleFlavor) == "Google":
		return nil
	case a.isOurs():
		return &trouble{problem: "svidecar itself answered: packet redirection, or an address on this machine, leads 169.254.169.254 to it",
			advice: "turn that off where Google's server is needed and point the apps to svidecar by IDENTITY_ENDPOINT, or " + elsewhere}
	case temporaryStatus(a.status):
		return nil // refusal says so
	}
	return &trouble{problem: fmt.Sprintf("the reply (HTTP %d) lacks the header Metadata-Flavor: Google, so it is another server's", a.status),
		advice: "use this source on Google Cloud only, or " + elsewhere}
}

// isOurs reports whether the body has the members of this program's own refusals
// (docs/protocol.md, "Errors").
func (a answer) isOurs() bool {
	var refusal struct {
		Error         *string `json:"error"`
		Description   *string `json:"error_description"`
		StatusCode    *int    `json:"statusCode"`
		CorrelationID *string `json:"correlationId"`
	}
	return json.Unmarshal(a.body, &refusal) == nil && refusal.Error != nil && refusal.Description != nil &&
		refusal.StatusCode != nil && *refusal.StatusCode == a.status && refusal.CorrelationID != nil
}

// isHostPort keeps a path, a user or another host out of the URL.
func isHostPort(s string) bool {
	u, err := url.Parse("http://" + s)
	return err == nil && u.Host == s && u.Hostname() != "" && !strings.HasSuffix(s, ":") &&
		!strings.ContainsFunc(s, func(r rune) bool { return notCompact(r) && !strings.ContainsRune(":[]", r) })
}

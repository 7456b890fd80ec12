package mint

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// audiencePlaceholder stands in a URL for the audience.
const audiencePlaceholder = "{{audience}}"

// URLConfig configures [NewURL].
type URLConfig struct {
	// URL is asked with GET. It is https, or http to a loopback address (no name,
	// which might resolve to another), and has a host, no user and no fragment. Behind the host {{audience}} stands for
	// the audience, percent-encoded; nothing else may stand in double braces.
	// Required.
	URL string

	// BearerFile holds what is sent as Authorization: Bearer, at most 64 KiB of
	// printable ASCII between white space. It is read anew for each request.
	// Empty means that nothing is sent.
	BearerFile string

	// Field is the member of the reply's JSON object that holds the token, or
	// names divided by dots for one inside other objects (data.token). Empty means
	// that the reply is the token.
	Field string

	// Audience is what the token's aud claim must hold, 1 to 600 printable ASCII
	// characters, as the cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Timeout bounds one request, 1 s to 1 min. Zero means 10 s.
	Timeout time.Duration

	// Roots verify the server. Nil means the system's.
	Roots *x509.CertPool
}

// NewURL returns a source for any issuer that gives a JWT to a GET request. It
// sends nothing yet. Of the URL errors show scheme and host, since the rest may
// be secret.
func NewURL(cfg URLConfig) (*Fetcher, error) {
	f, err := newFetcher("URLConfig", cfg.Audience, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	target, err := tokenURL(cfg.URL, cfg.Audience)
	if err != nil {
		return nil, fmt.Errorf("mint: URLConfig.URL: %w", err)
	}
	var path []string
	if cfg.Field != "" {
		path = strings.Split(cfg.Field, ".")
	}
	transport := newTransport(cfg.Roots)
	f.from = fmt.Sprintf("token URL %q", target.Scheme+"://"+target.Host)
	f.advice = byIssuer("put " + audiencePlaceholder + " where the URL wants the audience")
	f.get = func(ctx context.Context) (string, *trouble) {
		req := newRequest(ctx, target)
		if cfg.BearerFile != "" {
			bearer, refused := readBearer(cfg.BearerFile)
			if refused != nil {
				return "", refused
			}
			req.Header.Set("Authorization", "Bearer "+bearer.Reveal())
		}
		reply, refused := ask(transport, req)
		if refused == nil {
			refused = reply.refusal("check the URL, and the bearer that it wants")
		}
		if refused != nil {
			return "", refused
		}
		return member(reply.body, path)
	}
	return f, nil
}

// tokenURL checks raw and fills in the audience. It shows no part of raw: a
// password may be in it.
func tokenURL(raw, audience string) (*url.URL, error) {
	filled := strings.ReplaceAll(raw, audiencePlaceholder, url.QueryEscape(audience))
	if _, err := url.Parse(raw); err != nil { // one in the scheme or the host, too
		return nil, errors.New("not a URL: write it like https://host/path?audience=" + audiencePlaceholder)
	}
	u, err := url.Parse(filled)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("not a URL with a host: write it like https://host/path?audience=" + audiencePlaceholder)
	case strings.Contains(filled, "{{") || strings.Contains(filled, "}}"):
		return nil, errors.New("the only placeholder is " + audiencePlaceholder + ": correct what stands in double braces")
	case u.User != nil:
		return nil, errors.New("it holds a user or a password: put the credential into a bearer file")
	case strings.Contains(raw, "#"):
		return nil, errors.New("it has a fragment, which is never sent: remove what follows the #")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, errors.New("it is neither https nor http to a loopback address (127.0.0.1 or [::1]), so the token could be read on the way: use https")
	}
	return u, nil
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// readBearer reads the file whole. Its owner may be about to write it.
func readBearer(path string) (secret.Value, *trouble) {
	data, _, err := readRegular(path, maxFetched)
	if err != nil {
		return secret.Value{}, &trouble{problem: fmt.Sprintf("bearer file %q: %s", path, pathCause(err)), cause: err,
			advice: "check the path, that svidecar may read it, and what writes it"}
	}
	bearer := string(bytes.TrimSpace(data))
	if !bearerText(bearer) {
		return secret.Value{}, &trouble{problem: fmt.Sprintf("bearer file %q: empty, or not one word of printable ASCII", path),
			advice: "write the bare token into it, without \"Bearer\" before it"}
	}
	return secret.New(bearer), nil
}

// member finds the token in a reply: all of it, or at path within JSON objects.
func member(body []byte, path []string) (string, *trouble) {
	if len(path) == 0 {
		return string(bytes.TrimSpace(body)), nil
	}
	token := ""
	for i, name := range path {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil || object[name] == nil {
			return "", noMember(path)
		}
		body = object[name]
		if i == len(path)-1 && json.Unmarshal(body, &token) != nil {
			return "", noMember(path)
		}
	}
	return token, nil
}

func noMember(path []string) *trouble {
	name := strings.Join(path, ".")
	return &trouble{problem: fmt.Sprintf("the reply is no JSON object with a text at %s", shown(name)), cause: malformed("no JSON member " + shown(name)),
		advice: "check the field: the name of the JSON member that holds the token, or names divided by dots"}
}

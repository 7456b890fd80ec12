package mint

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// What GitHub Actions sets in a job that may ask for tokens (GitHub Docs, OpenID
// Connect reference).
const (
	githubURL   = "ACTIONS_ID_TOKEN_REQUEST_URL"
	githubToken = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

const githubPermission = "add \"permissions: id-token: write\" to the workflow's job"

// GitHubConfig configures [NewGitHub].
type GitHubConfig struct {
	// Audience is the aud claim to ask for, 1 to 600 printable ASCII characters,
	// as the cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Timeout bounds one request, 1 s to 1 min. Zero means 10 s.
	Timeout time.Duration

	// Roots verify the token service. Nil means the system's.
	Roots *x509.CertPool
}

// NewGitHub returns a source for the jobs of GitHub Actions, whose subject names
// the repository and the branch, tag or environment. It reads the job's variables
// ACTIONS_ID_TOKEN_REQUEST_URL, which must be https, and
// ACTIONS_ID_TOKEN_REQUEST_TOKEN now, and sends nothing.
func NewGitHub(cfg GitHubConfig) (*Fetcher, error) {
	f, err := newFetcher("GitHubConfig", cfg.Audience, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	address, jobToken := os.Getenv(githubURL), os.Getenv(githubToken)
	if address == "" || jobToken == "" {
		return nil, fmt.Errorf("mint: GitHub Actions: %s or %s is not set: %s, and run svidecar in a step of it", githubURL, githubToken, githubPermission)
	}
	target, err := githubTarget(address, cfg.Audience)
	if err != nil {
		return nil, err
	}
	if !bearerText(jobToken) {
		return nil, fmt.Errorf("mint: GitHub Actions: %s holds a character that no token has: leave it as the runner sets it", githubToken)
	}
	transport, bearer := newTransport(cfg.Roots), secret.New(jobToken)
	f.from = fmt.Sprintf("GitHub's token service %q", target.Host)
	f.advice = byPlatform("GitHub's own tokens are not like this: check what sets " + githubURL)
	f.get = func(ctx context.Context) (string, *trouble) {
		req := newRequest(ctx, target)
		req.Header.Set("Accept", "application/json")
		req.Header.Set("Authorization", "bearer "+bearer.Reveal())
		reply, refused := ask(transport, req)
		if refused == nil {
			refused = reply.refusal(githubPermission + "; the job's own token is good only while the job runs")
		}
		if refused != nil {
			return "", refused
		}
		return githubValue(reply.body)
	}
	return f, nil
}

// githubTarget adds the audience. The rest of the query is the runner's.
func githubTarget(address, audience string) (*url.URL, error) {
	target, err := url.Parse(address)
	switch {
	case err != nil || target.Host == "" || target.User != nil || target.Fragment != "":
		return nil, fmt.Errorf("mint: GitHub Actions: %s is no URL of a token service: leave it as the runner sets it", githubURL)
	case target.Scheme != "https":
		return nil, fmt.Errorf("mint: GitHub Actions: %s is not https, so its token could be read on the way: leave it as the runner sets it", githubURL)
	}
	if target.RawQuery != "" {
		target.RawQuery += "&"
	}
	target.RawQuery += "audience=" + url.QueryEscape(audience)
	return target, nil
}

func githubValue(body []byte) (string, *trouble) {
	var reply struct {
		Value string `json:"value"`
	}
	if json.Unmarshal(body, &reply) != nil || reply.Value == "" {
		return "", &trouble{problem: "its reply has no member value", advice: "check what sets " + githubURL,
			cause: malformed("no JSON member value")}
	}
	return reply.Value, nil
}

// newRequest is a GET without a body; target was parsed before.
func newRequest(ctx context.Context, target *url.URL) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		panic("mint: internal error: a URL that was parsed does not parse")
	}
	return req
}

package exchange

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	maxReply     = 1 << 20        // of any reply
	maxDiscovery = 64 << 10       // of a discovery document that is remembered
	discoveryTTL = 24 * time.Hour // until it is fetched again
)

// transportError is a rule of ours that a reply broke.
type transportError struct{ cause, fix string }

func (e *transportError) Error() string { return "exchange: " + e.cause }

// newHTTPClient returns the client that MSAL speaks through: HTTPS only, to the
// authority's host only, by HTTPS_PROXY if set, no redirects, bounded replies,
// connections reused.
func newHTTPClient(authority *url.URL, roots *x509.CertPool, region string) *http.Client {
	return &http.Client{
		Transport: &guarded{
			host:   authority.Host,
			region: region,
			next: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
				TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				TLSHandshakeTimeout:    5 * time.Second,
				MaxIdleConnsPerHost:    32,
				IdleConnTimeout:        90 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
				ForceAttemptHTTP2:      true,
				// A connection that died silently is noticed within
				// seconds, not when the system gives up on it.
				HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guarded holds every request of MSAL's to the rules, and remembers discovery
// documents, so that an exchange costs one request and MSAL's client can be made
// anew for each.
type guarded struct {
	host   string
	region string
	next   *http.Transport

	mu        sync.Mutex
	documents map[string]document // by URL; one for each configured tenant
}

type document struct {
	body    []byte
	fetched time.Time
}

// CloseIdleConnections implements what http.Client looks for.
func (g *guarded) CloseIdleConnections() { g.next.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if !g.allowed(req.URL) {
		return nil, &transportError{
			"the discovery document names another host as the token endpoint",
			"check the authority host, and look for a proxy that rewrites replies",
		}
	}
	if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/.well-known/openid-configuration") {
		return g.discover(req)
	}
	return g.send(req)
}

// allowed keeps assertions on the authority: the discovery document, which
// anyone in between may have written, must not choose where they go.
func (g *guarded) allowed(u *url.URL) bool {
	if u.Scheme != "https" {
		return false
	}
	if u.Host == g.host {
		return true
	}
	// A region's host is the authority's, or the public cloud's short one,
	// with the region's name before it.
	return g.region != "" && (u.Host == g.region+"."+g.host || u.Host == g.region+".login.microsoft.com")
}

func (g *guarded) send(req *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{resp.Body, maxReply}
	return resp, nil
}

// discover answers from memory for a day; after that it asks again, and keeps
// the old document while nothing better is to be had.
func (g *guarded) discover(req *http.Request) (*http.Response, error) {
	key := req.URL.String()
	g.mu.Lock()
	known, ok := g.documents[key]
	g.mu.Unlock()
	if ok && time.Since(known.fetched) < discoveryTTL {
		return known.reply(req), nil
	}
	resp, err := g.send(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		if ok {
			if err == nil {
				_ = resp.Body.Close()
			}
			return known.reply(req), nil
		}
		return resp, err
	}
	return g.remember(req, resp)
}

// remember keeps a document that is well formed, and passes it on.
func (g *guarded) remember(req *http.Request, resp *http.Response) (*http.Response, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDiscovery+1))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	var fields struct {
		Issuer   string `json:"issuer"`
		Endpoint string `json:"token_endpoint"`
	}
	endpoint := &url.URL{}
	if json.Unmarshal(body, &fields) == nil {
		endpoint, err = url.Parse(fields.Endpoint)
	}
	if err != nil || len(body) > maxDiscovery || fields.Issuer == "" || endpoint.Host == "" {
		return nil, &transportError{
			"the authority's discovery document is not in Entra's form",
			"look for a proxy, firewall or sign-in page between here and the authority host",
		}
	}
	doc := document{body: body, fetched: time.Now()}
	if g.allowed(endpoint) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.documents == nil {
			g.documents = map[string]document{}
		}
		g.documents[req.URL.String()] = doc
	}
	return doc.reply(req), nil
}

func (d document) reply(req *http.Request) *http.Response {
	return &http.Response{
		Status:        "200 OK",
		StatusCode:    http.StatusOK,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        http.Header{"Content-Type": {"application/json"}},
		Body:          io.NopCloser(bytes.NewReader(d.body)),
		ContentLength: int64(len(d.body)),
		Request:       req,
	}
}

// bounded ends a body that is longer than allowed with an error, where
// io.LimitReader would cut it silently.
type bounded struct {
	io.ReadCloser
	left int
}

var errTooLong = errors.New("exchange: reply over 1 MiB")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

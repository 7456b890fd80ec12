package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// newTransport returns what MSAL speaks through: HTTPS only, to the authority's
// host only, by HTTPS_PROXY if set, bounded replies, connections reused.
func newTransport(authority *url.URL, roots *x509.CertPool, region string) *guarded {
	base, cancel := context.WithCancel(context.Background())
	return &guarded{
		base: base, cancel: cancel,
		host:   hostOf(authority),
		region: region,
		next: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			OnProxyConnectResponse: refusedByProxy,
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
	}
}

// refusedByProxy explains a proxy that does not let us through; net/http would
// keep only the words of its status line.
func refusedByProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &transportError{
		fmt.Sprintf("the proxy %q refuses the way to the authority host with HTTP %d", proxy.Host, resp.StatusCode),
		"check HTTPS_PROXY, its credentials, and what the proxy allows",
	}
}

// checkProxy refuses settings of the environment that no request could use.
func checkProxy(authority *url.URL) error {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: authority})
	if err != nil {
		return errors.New("exchange: HTTPS_PROXY is not a URL such as http://proxy.example:3128")
	}
	if proxy != nil && !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, proxy.Scheme) {
		return fmt.Errorf("exchange: HTTPS_PROXY has the scheme %q: write a URL such as http://proxy.example:3128", proxy.Scheme)
	}
	return nil
}

// guarded holds every request of MSAL's to the rules, and remembers discovery
// documents, so that an exchange costs one request and MSAL's client can be made
// anew for each.
type guarded struct {
	host   string
	region string
	next   http.RoundTripper

	ahead atomic.Int64 // Entra's clock before ours, in nanoseconds

	base       context.Context // of refreshing; ended by close
	cancel     context.CancelFunc
	refreshing sync.WaitGroup

	mu        sync.Mutex
	documents map[string]document // by URL; one for each configured tenant
}

type document struct {
	status  int
	header  http.Header
	body    []byte
	fetched time.Time
	good    bool // and so remembered
}

// close ends what runs in the background and drops idle connections.
func (g *guarded) close() {
	g.cancel()
	g.refreshing.Wait()
	g.closeIdle()
}

func (g *guarded) closeIdle() {
	if next, ok := g.next.(interface{ CloseIdleConnections() }); ok {
		next.CloseIdleConnections()
	}
}

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

// microsoft are the hosts of Entra's clouds, old names included. A discovery
// document may name another one of them than was asked, that of the tenant's
// cloud for instance.
var microsoft = map[string]bool{
	"login.microsoftonline.com": true, "login.windows.net": true, "login.microsoft.com": true, "sts.windows.net": true,
	"login.microsoftonline.us": true, "login.usgovcloudapi.net": true,
	"login.partner.microsoftonline.cn": true, "login.chinacloudapi.cn": true,
}

// allowed keeps assertions on the authority: the discovery document, which
// anyone in between may have written, must not choose where they go.
func (g *guarded) allowed(u *url.URL) bool {
	host := hostOf(u)
	switch {
	case u.Scheme != "https":
		return false
	case host == g.host || microsoft[g.host] && microsoft[host]:
		return true
	}
	// A region's host is the authority's, or the public cloud's short one,
	// with the region's name before it.
	return g.region != "" && (host == g.region+"."+g.host || host == g.region+".login.microsoft.com")
}

// hostOf is u's host, without the port that https has anyway.
func hostOf(u *url.URL) string { return strings.ToLower(strings.TrimSuffix(u.Host, ":443")) }

func (g *guarded) send(req *http.Request) (*http.Response, error) {
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		// The connections beside the one that failed may be as dead, and
		// each would cost an exchange its whole time.
		g.closeIdle()
		return nil, err
	}
	g.observe(resp.Header.Get("Date"))
	resp.Body = &bounded{resp.Body, maxReply}
	return resp, nil
}

// observe compares a reply's Date, which has whole seconds, with our clock.
func (g *guarded) observe(date string) {
	if theirs, err := http.ParseTime(date); err == nil {
		g.ahead.Store(int64(theirs.Add(500 * time.Millisecond).Sub(time.Now().Round(0))))
	}
}

func (g *guarded) skew() time.Duration { return time.Duration(g.ahead.Load()) }

// discover answers from memory. A document over a day old is asked for again in
// the background, and replaced by one that is as good: no exchange waits for
// that, and none fails for it.
func (g *guarded) discover(req *http.Request) (*http.Response, error) {
	key := req.URL.String()
	g.mu.Lock()
	known, ok := g.documents[key]
	if ok && time.Since(known.fetched) >= discoveryTTL {
		known.fetched = time.Now() // one at a time; the next in a day
		g.documents[key] = known
		again := req.Clone(g.base) // ours, when the caller's has gone
		g.refreshing.Go(func() { g.refresh(again) })
	}
	g.mu.Unlock()
	if ok {
		return known.reply(req), nil
	}
	doc, err := g.fetch(req)
	if err != nil {
		return nil, err
	}
	if !doc.good {
		return doc.raw(req), nil // MSAL and classify make of it what they can
	}
	g.remember(key, doc)
	return doc.reply(req), nil
}

// refreshTimeout bounds the fetching of a document that nobody waits for.
const refreshTimeout = 10 * time.Second

func (g *guarded) refresh(req *http.Request) {
	ctx, cancel := context.WithTimeout(g.base, refreshTimeout)
	defer cancel()
	if doc, err := g.fetch(req.WithContext(ctx)); err == nil && doc.good {
		g.remember(req.URL.String(), doc)
	}
}

func (g *guarded) remember(key string, doc document) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.documents == nil {
		g.documents = map[string]document{}
	}
	g.documents[key] = doc
}

// fetch gets a document, good or not. A 200 that is none is an error: it is a
// sign-in page or the like.
func (g *guarded) fetch(req *http.Request) (document, error) {
	resp, err := g.send(req)
	if err != nil {
		return document{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDiscovery+1))
	if err != nil {
		return document{}, err
	}
	doc := document{status: resp.StatusCode, header: resp.Header, body: body, fetched: time.Now()}
	if doc.status != http.StatusOK {
		return doc, nil
	}
	if doc.good, err = g.judge(body); err != nil {
		return document{}, err
	}
	return doc, nil
}

// judge reports whether a document may be remembered.
func (g *guarded) judge(body []byte) (good bool, err error) {
	var fields struct {
		Issuer   string `json:"issuer"`
		Sign     string `json:"authorization_endpoint"`
		Endpoint string `json:"token_endpoint"`
	}
	endpoint := &url.URL{}
	if json.Unmarshal(body, &fields) == nil {
		endpoint, err = url.Parse(fields.Endpoint)
	}
	if err != nil || len(body) > maxDiscovery || fields.Issuer == "" || endpoint.Host == "" {
		return false, &transportError{
			"the authority's discovery document is not in Entra's form",
			"look for a proxy, firewall or sign-in page between here and the authority host",
		}
	}
	// What MSAL would refuse is not remembered: it would for a day.
	issuer, err := url.Parse(fields.Issuer)
	return err == nil && g.allowed(issuer) && fields.Sign != "" && g.allowed(endpoint), nil
}

func (d document) reply(req *http.Request) *http.Response {
	d.status, d.header = http.StatusOK, http.Header{"Content-Type": {"application/json"}}
	return d.raw(req)
}

// raw is the document as it came.
func (d document) raw(req *http.Request) *http.Response {
	return &http.Response{
		Status:        strconv.Itoa(d.status) + " " + http.StatusText(d.status),
		StatusCode:    d.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        d.header,
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

package mint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// newTransport is for a request every few minutes: no connection outlives it. Its
// RoundTrip follows no redirect, which could lead a credential elsewhere.
func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: refusedByProxy,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		MaxResponseHeaderBytes: maxFetched,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
}

// proxyError is a proxy's refusal, without the words of its reply.
type proxyError struct{ status int }

func (e *proxyError) Error() string { return fmt.Sprintf("the proxy answered HTTP %d", e.status) }

func refusedByProxy(_ context.Context, _ *url.URL, _ *http.Request, reply *http.Response) error {
	if reply.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{reply.StatusCode}
}

// answer is a reply that came whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends req once. The context of req bounds it, the body of the reply
// included.
func ask(transport *http.Transport, req *http.Request) (answer, *trouble) {
	req.Header.Set("User-Agent", "svidecar")
	reply, err := transport.RoundTrip(req)
	if err != nil {
		return answer{}, unreachable(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxFetched+1))
	switch {
	case err != nil:
		return answer{}, unreachable(err)
	case len(body) > maxFetched:
		return answer{}, &trouble{problem: "the reply is larger than 64 KiB", advice: "check the address: this is no token service"}
	}
	return answer{reply.StatusCode, reply.Header, body}, nil
}

// unreachable explains an error of net/http. Only texts that cannot hold any
// part of a reply are shown: a malformed one is quoted by others.
func unreachable(err error) *trouble {
	if proxy, ok := errors.AsType[*proxyError](err); ok {
		return &trouble{problem: proxy.Error(), temporary: temporaryStatus(proxy.status),
			advice: "check HTTPS_PROXY and NO_PROXY, and what the proxy allows"}
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &trouble{problem: "its certificate is not trusted (" + foreignText(cert.Err) + ")",
			advice: "add the certificate authority to those that svidecar trusts, or check the address"}
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &trouble{problem: "it does not speak TLS", advice: "check the address and its port"}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op != "proxyconnect" {
		return &trouble{problem: "unreachable (" + foreignText(op) + ")", temporary: true,
			advice: "check the address, the name's resolution, and the network policy of this machine or pod"}
	}
	return &trouble{problem: "the connection broke, or what answers there is no HTTP server", temporary: true,
		advice: "check the address, and a proxy in between"}
}

// temporaryStatus reports whether the same request may succeed later.
func temporaryStatus(status int) bool {
	return status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// refusal explains a status other than 200, and is nil for that. denied is the
// advice for 400 to 404, in which platforms differ.
func (a answer) refusal(denied string) *trouble {
	t := &trouble{problem: fmt.Sprintf("it answered HTTP %d", a.status), temporary: temporaryStatus(a.status)}
	switch {
	case a.status == http.StatusOK:
		return nil
	case a.status >= 300 && a.status < 400:
		t.problem += ", a redirect, which is not followed"
		t.advice = "check the address: the credential goes nowhere else"
	case t.temporary:
		t.advice = "it is asked again; if this lasts, look at its log or its status page"
	default:
		t.advice = denied
	}
	return t
}

// bearerText reports whether s can stand in an Authorization header (RFC 9110,
// section 5.5), so that a line break cannot add another one.
func bearerText(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

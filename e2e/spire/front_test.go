//go:build linux

package spire_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// front is the TLS server in front of the discovery provider.
type front struct {
	issuer string // URL
	client *http.Client
	// mended says that it took an empty authorization_endpoint out.
	mended atomic.Bool
	// asIs makes it pass the document on as it is.
	asIs atomic.Bool
}

// newFront listens before the provider's socket is there, so that the issuer's URL
// can be in SPIRE's configuration.
func newFront(t *testing.T, ca *entratest.CA, socket string) *front {
	t.Helper()
	cert, err := ca.Certificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	f := &front{
		issuer: "https://localhost:" + strconv.Itoa(port),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}},
	}
	quiet := log.New(io.Discard, "", 0) // the provider is asked before it is there
	server := &http.Server{ErrorLog: quiet, ReadHeaderTimeout: 5 * time.Second, Handler: &httputil.ReverseProxy{
		ErrorLog: quiet,
		Rewrite: func(r *httputil.ProxyRequest) { // the Host stays: the provider looks at it
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "provider"
		},
		Transport:      toSocket(socket),
		ModifyResponse: f.mend,
	}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() { _ = server.Close(); <-served; f.client.CloseIdleConnections() })
	return f
}

// mend leaves out an empty authorization_endpoint.
func (f *front) mend(resp *http.Response) error {
	if f.asIs.Load() || resp.StatusCode != http.StatusOK || !strings.HasSuffix(resp.Request.URL.Path, "/.well-known/openid-configuration") {
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var doc map[string]json.RawMessage
	if json.Unmarshal(body, &doc) == nil && string(doc["authorization_endpoint"]) == `""` {
		delete(doc, "authorization_endpoint")
		f.mended.Store(true)
		if body, err = json.Marshal(doc); err != nil {
			return err
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	return nil
}

// published are the kids in the key set.
func (f *front) published() (kids []string, err error) {
	body, err := ask(f.client, f.issuer, "/keys", nil)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []struct{ Kid string }
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, err
	}
	for _, key := range set.Keys {
		kids = append(kids, key.Kid)
	}
	return kids, nil
}

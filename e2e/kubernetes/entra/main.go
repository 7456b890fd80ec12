// Command entra is the Entra of a pod in the cluster's tests: the emulator of exchange/entratest, for pods that reach
// nothing outside. It knows the cluster's issuer by the documents that its API server publishes, given as files, and
// verifies service account tokens with them as Entra would. It never listens beyond loopback.
//
// With arguments it asks the one that runs in the pod, for probes and for tests by kubectl exec:
//
//	/entra GET /calls
//	/entra PUT /faults '{"scope":"*","fault":{"status":503}}'
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

const (
	authority = "127.0.0.1:8443" // Entra
	controls  = "127.0.0.1:8444" // the emulator's own
	documents = "/etc/entra"     // where the test has put its files
)

func main() {
	var err error
	switch args := os.Args[1:]; len(args) {
	case 0:
		err = serve(documents)
	case 2:
		err = ask(args[0], args[1], "")
	case 3:
		err = ask(args[0], args[1], args[2])
	default:
		err = errors.New("want no arguments, or METHOD PATH [BODY]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "entra:", err)
		os.Exit(1)
	}
}

// serve runs the emulator for as long as the process lives. The folder has apps.json, the certificate (tls.crt,
// tls.key), and the issuer's discovery.json and keys.json.
func serve(folder string) error {
	var apps []entratest.App
	data, err := os.ReadFile(filepath.Join(folder, "apps.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &apps); err != nil {
		return fmt.Errorf("apps.json: %w", err)
	}
	published, err := readIssuer(folder)
	if err != nil {
		return err
	}
	entra, err := entratest.New(entratest.Config{Apps: apps, IssuerClient: &http.Client{Transport: published}})
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- listenTLS(entra.Handler(), filepath.Join(folder, "tls")) }()
	go func() { ended <- listen(entra.AdminHandler()) }()
	return <-ended
}

func server(h http.Handler) *http.Server {
	var http1 http.Protocols // the emulator's faults need the bare connection
	http1.SetHTTP1(true)
	return &http.Server{Handler: h, Protocols: &http1, ReadHeaderTimeout: 5 * time.Second}
}

func listenTLS(h http.Handler, pair string) error {
	l, err := net.Listen("tcp", authority)
	if err != nil {
		return err
	}
	return server(h).ServeTLS(l, pair+".crt", pair+".key")
}

func listen(h http.Handler) error {
	l, err := net.Listen("tcp", controls)
	if err != nil {
		return err
	}
	return server(h).Serve(l)
}

// issuer answers for the URLs of the documents, and for no other.
type issuer map[string][]byte

func readIssuer(folder string) (issuer, error) {
	discovery, err := os.ReadFile(filepath.Join(folder, "discovery.json"))
	if err != nil {
		return nil, err
	}
	keys, err := os.ReadFile(filepath.Join(folder, "keys.json"))
	if err != nil {
		return nil, err
	}
	var d struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(discovery, &d); err != nil {
		return nil, fmt.Errorf("discovery.json: %w", err)
	}
	return issuer{d.Issuer + "/.well-known/openid-configuration": discovery, d.Keys: keys}, nil
}

// RoundTrip implements [http.RoundTripper].
func (i issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := i[r.URL.String()]
	if !ok || r.Method != http.MethodGet {
		return nil, fmt.Errorf("nothing is published at %s", r.URL)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: int64(len(body)),
		Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, nil
}

// ask sends a request to the controls and prints the reply.
func ask(method, path, body string) error {
	req, err := http.NewRequest(method, "http://"+controls+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return errors.New(resp.Status)
	}
	return nil
}

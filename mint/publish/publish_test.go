package publish_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/publish"
)

const (
	issuer    = "https://issuer.example/team"
	discovery = "/team/.well-known/openid-configuration"
	keySet    = "/team/openid/v1/jwks"
)

var signingKey = sync.OnceValues(func() (crypto.Signer, error) { return mint.GenerateKey(2048) })

func documents(t *testing.T) *mint.Issuer {
	t.Helper()
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	handler, err := mint.NewIssuer(mint.IssuerConfig{Issuer: issuer, Keys: []crypto.PublicKey{key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return handler
}

// start serves until the test ends, and returns the address.
func start(t *testing.T, cfg publish.Config) string {
	t.Helper()
	if cfg.Documents == nil {
		cfg.Documents = documents(t)
	}
	cfg.Issuer = issuer
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	server, err := publish.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return l.Addr().String()
}

func get(t *testing.T, client *http.Client, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestRefusesForeignHosts(t *testing.T) {
	addr := start(t, publish.Config{Hosts: []string{"inside.example:8443"}})
	for _, tt := range []struct {
		host string
		want int
	}{
		{"evil.example", http.StatusMisdirectedRequest},
		{"issuer.example.evil.example", http.StatusMisdirectedRequest},
		{addr, http.StatusMisdirectedRequest},
		{"issuer.example:8443", http.StatusMisdirectedRequest},
		{"inside.example", http.StatusMisdirectedRequest},
		{"issuer.example", http.StatusOK},
		{"Issuer.Example", http.StatusOK},
		{"inside.example:8443", http.StatusOK},
		{"issuer.example:443", http.StatusOK},
	} {
		resp, body := get(t, http.DefaultClient, "http://"+addr+discovery, tt.host)
		if resp.StatusCode != tt.want {
			t.Errorf("Host %q: HTTP %d %s, want %d", tt.host, resp.StatusCode, body, tt.want)
		}
		if refused := tt.want != http.StatusOK; refused && (strings.Contains(body, "jwks_uri") || resp.Header.Get("Cache-Control") != "no-store") {
			t.Errorf("Host %q: %v %s", tt.host, resp.Header, body)
		}
	}
}

func TestServesBothAndNothingElse(t *testing.T) {
	addr := start(t, publish.Config{})
	for path, want := range map[string]int{
		discovery: 200, keySet: 200, "/": 404, "/team": 404, "/.well-known/openid-configuration": 404, "/metrics": 404, keySet + "/": 404,
	} {
		if resp, body := get(t, http.DefaultClient, "http://"+addr+path, "issuer.example"); resp.StatusCode != want {
			t.Errorf("%s: HTTP %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
}

func TestReturnsWhenTheListenerEnds(t *testing.T) {
	server, err := publish.New(publish.Config{Documents: documents(t), Issuer: issuer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := server.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "publish: serving "+l.Addr().String()) {
		t.Errorf("Run on a closed listener = %v", err)
	}
}

// TestServerIsBounded: this listener may face the internet.
func TestServerIsBounded(t *testing.T) {
	server, err := publish.New(publish.Config{Documents: documents(t), Issuer: issuer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := publish.HTTPServer(server)
	for name, bound := range map[string]time.Duration{
		"ReadHeaderTimeout": h.ReadHeaderTimeout, "ReadTimeout": h.ReadTimeout, "WriteTimeout": h.WriteTimeout, "IdleTimeout": h.IdleTimeout,
	} {
		if bound <= 0 || bound > time.Minute {
			t.Errorf("%s is %v", name, bound)
		}
	}
	if h.MaxHeaderBytes <= 0 || h.MaxHeaderBytes > 16<<10 {
		t.Errorf("MaxHeaderBytes is %d", h.MaxHeaderBytes)
	}
}

// TestConnectionsAreBounded opens as many as there may be, and one more, which is
// answered when another one leaves.
func TestConnectionsAreBounded(t *testing.T) {
	addr := start(t, publish.Config{})
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	}()
	ask := func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "GET "+keySet+" HTTP/1.1\r\nHost: issuer.example\r\n\r\n"); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	for n := range publish.MaxConnections {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if open = append(open, conn); n == publish.MaxConnections-1 {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		}
	}
	waitFor(t, "the last of the connections", func() bool { return ask(open[len(open)-1]) == nil })
	more, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	if err := ask(more); err == nil {
		t.Error("one connection more than the bound is answered")
	}
	_ = open[0].Close()
	waitFor(t, "a place for one more", func() bool {
		_ = more.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := more.Read(make([]byte, 1))
		return err == nil
	})
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s", what)
		}
	}
}

// authority issues certificates for issuer.example.
type authority struct {
	key   *ecdsa.PrivateKey
	cert  *x509.Certificate
	roots *x509.CertPool
	made  int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &authority{key: key, cert: cert, roots: roots, made: 1}
}

// write puts a new certificate and its key into the two files.
func (a *authority) write(t *testing.T, certFile, keyFile string, life time.Duration) (serial int64) {
	t.Helper()
	a.made++
	template := &x509.Certificate{SerialNumber: big.NewInt(a.made), DNSNames: []string{"issuer.example"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(life)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		put(t, path, pem.EncodeToMemory(block))
	}
	return a.made
}

// put replaces a file by a rename, as renewers of certificates do.
func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// served is the serial number of the certificate that a new connection sees.
func served(t *testing.T, addr string, roots *x509.CertPool) int64 {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "issuer.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestCertificateIsReloaded(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first := ca.write(t, certFile, keyFile, 30*24*time.Hour)
	var log bytes.Buffer
	addr := start(t, publish.Config{CertFile: certFile, KeyFile: keyFile, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if got := served(t, addr, ca.roots); got != first {
		t.Fatalf("serves certificate %d, want %d", got, first)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.roots, ServerName: "issuer.example"}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}
	if resp, body := get(t, client, "https://"+addr+keySet, "issuer.example"); resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("HTTP/%d %d %s", resp.ProtoMajor, resp.StatusCode, body)
	}
	if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.roots, ServerName: "issuer.example", MaxVersion: tls.VersionTLS11}); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	good, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	second := ca.write(t, certFile, keyFile, time.Hour)
	if got := served(t, addr, ca.roots); got != second {
		t.Errorf("serves certificate %d after a renewal, want %d", got, second)
	}
	put(t, keyFile, good) // the key of another certificate
	if got := served(t, addr, ca.roots); got != second {
		t.Errorf("serves certificate %d with files that do not fit, want %d still", got, second)
	}
	ca.write(t, certFile, keyFile, -time.Hour)
	if got := served(t, addr, ca.roots); got != second {
		t.Errorf("serves certificate %d, which has ended, want %d still", got, second)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if got := served(t, addr, ca.roots); got != second {
		t.Errorf("serves certificate %d without a file, want %d still", got, second)
	}
	last := ca.write(t, certFile, keyFile, time.Hour)
	if got := served(t, addr, ca.roots); got != last {
		t.Errorf("serves certificate %d, want %d", got, last)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 3 || strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("%d complaints, want 3:\n%s", n, log.String())
	}
}

// TestEndOfCertificateIsTold: nobody else would say why Entra cannot fetch.
func TestEndOfCertificateIsTold(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	ca.write(t, certFile, keyFile, 24*time.Hour)
	var log bytes.Buffer
	addr := start(t, publish.Config{CertFile: certFile, KeyFile: keyFile, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		served(t, addr, ca.roots)
	}
	if n := strings.Count(log.String(), "level=WARN msg=\"the certificate ends soon"); n != 1 {
		t.Errorf("%d warnings, want 1:\n%s", n, log.String())
	}
}

func TestNewRefuses(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	ca.write(t, certFile, keyFile, -time.Minute)
	logger := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		name string
		cfg  publish.Config
		want string
	}{
		{"nothing", publish.Config{}, "are required"},
		{"no host", publish.Config{Documents: documents(t), Logger: logger, Issuer: "issuer.example"}, "is not a URL with a host"},
		{"no file", publish.Config{Documents: documents(t), Logger: logger, Issuer: issuer, CertFile: certFile + "x", KeyFile: keyFile}, "no such file"},
		{"key alone", publish.Config{Documents: documents(t), Logger: logger, Issuer: issuer, KeyFile: keyFile}, "go together"},
		{"swapped", publish.Config{Documents: documents(t), Logger: logger, Issuer: issuer, CertFile: keyFile, KeyFile: certFile}, "give a PEM chain"},
		{"ended", publish.Config{Documents: documents(t), Logger: logger, Issuer: issuer, CertFile: certFile, KeyFile: keyFile}, "ended at"},
	} {
		if _, err := publish.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
}

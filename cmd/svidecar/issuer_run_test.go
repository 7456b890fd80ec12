package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// behindProxy is a web server with the issuer's certificate, in front of a
// running issuer.
type behindProxy struct{ address string }

func (p *behindProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" || r.URL.Host != pageHost {
		return nil, fmt.Errorf("nobody serves %s", r.URL)
	}
	inner := r.Clone(r.Context())
	inner.URL.Scheme, inner.URL.Host, inner.Host = "http", p.address, pageHost
	return http.DefaultTransport.RoundTrip(inner)
}

// TestIssuerRotates runs an issuer and a sidecar on a directory whose key is a
// hundred days old. The issuer makes the next one, publishes it, and in time both
// sign with it and no exchange fails, although Entra keeps the key set for a while.
func TestIssuerRotates(t *testing.T) {
	t.Chdir(t.TempDir())
	proxy := &behindProxy{}
	w := startEntra(t, entratest.Config{IssuerClient: &http.Client{Transport: proxy}, KeyCacheTTL: 500 * time.Millisecond})
	if err := w.entra.AddCredential(pageClient, entratest.FederatedCredential{Issuer: "https://" + pageHost, Subject: "spiffe://example.com/orders", Audience: "api://AzureADTokenExchange"}); err != nil {
		t.Fatal(err)
	}
	w.once(t, "svidecar keys init --key-dir keys --issuer https://"+pageHost+" --publication-wait 2s")
	w.once(t, "svidecar keys export --key-dir keys site")
	age(t, "keys/keys.json", 100*24*time.Hour)
	old := kidIn(t, w.once(t, "svidecar keys list --key-dir keys"), "active")

	issuer, _ := background(t, w.env, strings.Fields("issuer --key-dir keys --issuer-listen 127.0.0.1:0 --rotate-every 2160h")...)
	proxy.address = issuer.await(t, `"msg":"publishing".*"address":"([^"]+)"`)[0]
	w.serve(t, "svidecar serve --source local --key-dir keys --subject spiffe://example.com/orders --tenant-id "+pageTenant+" --client-id "+pageClient)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	after := 0
	for n, deadline := 0, time.Now().Add(patience); after < 20; n++ {
		w.wantToken(t, fmt.Sprintf("https://%d.example.com", n)) // one exchange each
		if kid := w.entra.Assertions()[pageClient].KeyID; kid != old {
			after++
		}
		if time.Now().After(deadline) {
			t.Fatalf("the old key %s signs still:\n%s", old, w.once(t, "svidecar keys list --key-dir keys"))
		}
		<-tick.C
	}
	if calls := w.entra.Calls(); len(calls.Refusals) > 0 {
		t.Errorf("Entra refused %v", calls.Refusals)
	}
	w.log.await(t, `"msg":"signing key".*"state":"active"`)
	if list := w.once(t, "svidecar keys list --key-dir keys --json"); !strings.Contains(list, `"state": "retired"`) {
		t.Errorf("keys list --json says:\n%s", list)
	}
}

// TestServeMakesKeys: a sidecar makes a key in time too, which waits until
// somebody publishes it; the old one goes on.
func TestServeMakesKeys(t *testing.T) {
	t.Chdir(t.TempDir())
	w := startEntra(t, entratest.Config{})
	w.once(t, "svidecar keys init --key-dir keys --issuer https://"+pageHost)
	w.once(t, "svidecar keys export --key-dir keys site")
	age(t, "keys/keys.json", 100*24*time.Hour)
	old := kidIn(t, w.once(t, "svidecar keys list --key-dir keys"), "active")
	w.serve(t, "svidecar serve --source local --key-dir keys --rotate-every 2160h --subject spiffe://example.com/orders --tenant-id "+pageTenant+" --client-id "+pageClient)
	w.log.await(t, `"msg":"signing key".*"state":"pending"`)
	list := w.once(t, "svidecar keys list --key-dir keys")
	if kidIn(t, list, "active") != old || kidIn(t, list, "pending") == "" || strings.Count(list, "\n") != 3 {
		t.Errorf("keys list says, when %s was a hundred days old:\n%s", old, list)
	}
}

// TestKeysCheck asks a running issuer over HTTPS, before and after it knows of
// the next key.
func TestKeysCheck(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SSL_CERT_FILE is not read here")
	}
	t.Chdir(t.TempDir())
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"ca.pem": ca.PEM(), "tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	w := &pageWorld{env: []string{"SSL_CERT_FILE=ca.pem", "SVIDECAR_KEY_DIR=keys"}}
	w.once(t, "svidecar keys init --issuer https://"+address)
	out, end := background(t, w.env, "issuer", "--issuer-listen", address, "--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key")
	out.await(t, `"msg":"signing key".*"state":"active"`)
	if said := w.once(t, "svidecar keys check"); !strings.Contains(said, "serves all 1 keys") {
		t.Errorf("keys check says %s", said)
	}
	// A copy of the directory is not published by anybody.
	if err := os.CopyFS("copy", os.DirFS("keys")); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "SVIDECAR_KEY_DIR=copy")
	w.once(t, "svidecar keys rotate")
	check := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "svidecar", "keys", "check")
		cmd.Env = append(bare(), w.env...)
		said, err := cmd.CombinedOutput()
		return string(said), err
	}
	if said, err := check(); err == nil || !strings.Contains(said, "(pending) is not served: export and upload the documents") {
		t.Errorf("keys check with a key that is not served: %v, %s", err, said)
	}
	stolen := kidIn(t, w.once(t, "svidecar keys list"), "active")
	w.once(t, "svidecar keys retire --unsafe-now -- "+stolen)
	if said, err := check(); err == nil || !strings.Contains(said, "key "+stolen+" is served, and is not in the directory") {
		t.Errorf("keys check with a stolen key that is served still: %v, %s", err, said)
	}
	end()
}

// age moves all times of a directory into the past.
func age(t *testing.T, path string, by time.Duration) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var manifest map[string]any
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	for _, key := range manifest["keys"].([]any) {
		for name, value := range key.(map[string]any) {
			if when, err := time.Parse(time.RFC3339, value.(string)); err == nil {
				key.(map[string]any)[name] = when.Add(-by).Format(time.RFC3339)
			}
		}
	}
	if data, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

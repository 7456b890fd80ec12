//go:build e2e && linux

package clients_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// The stand-ins answer by the names of the real services, which /etc/hosts in here
// leads to loopback, so that no client has to be told of another cloud.
const (
	armHost           = "management.azure.com"
	addressVaultHost  = "address.vault.azure.net"
	variableVaultHost = "variable.vault.azure.net"
)

// hosts is /etc/hosts of the namespace.
const hosts = "127.0.0.1 localhost " + armHost + " " + addressVaultHost + " " + variableVaultHost + "\n"

// caFile is the variable by which a client's program learns whom to trust besides.
const caFile = "CLOUD_CA_FILE"

// startCloud runs the stand-ins until the end of the test. Each sidecar's tenant has a
// vault; the one management endpoint serves both tenants.
func startCloud(t *testing.T, dir string, address, variable *sidecar) *vaults {
	t.Helper()
	authority, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := authority.Certificate(armHost, addressVaultHost, variableVaultHost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "cloud.pem")
	if err := os.WriteFile(path, authority.PEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(caFile, path)
	keys := publishedKeys(address, variable)
	kept := newVaults(keys, map[string]string{addressVaultHost: address.tenant, variableVaultHost: variable.tenant})
	mux := http.NewServeMux()
	mux.Handle(armHost+"/", newARM(keys, address.tenant, variable.tenant))
	mux.Handle(addressVaultHost+"/", kept)
	mux.Handle(variableVaultHost+"/", kept)
	serveTLS(t, certificate, mux)
	return kept
}

// serveTLS serves at the port that https has, as the clients' URLs name none.
func serveTLS(t *testing.T, certificate tls.Certificate, handler http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}))
	}()
	t.Cleanup(func() { _ = server.Close(); <-ended })
}

// get is for documents that need no token.
func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// reply writes JSON as Azure's services do.
func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// complaintOf is the form that both services give their errors.
func complaintOf(code, message string) any {
	return map[string]any{"error": map[string]string{"code": code, "message": message}}
}

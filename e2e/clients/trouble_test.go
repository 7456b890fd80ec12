//go:build e2e && linux

package clients_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
)

// bound is an identity that the sidecar lets ask for one resource alone, and for that
// of the management endpoint, which the Azure CLI's login asks for.
const (
	bound        = "33333333-aaaa-4aaa-8aaa-333333333333"
	boundTo      = "https://bound.example"
	secretHeader = "the-secret-of-the-apps"
)

const troubleConfig = `tenant-id: %s
log-format: text
log-level: debug
identity-header-file: %q
authority-host: %s/
authority-ca-file: %q
shutdown-delay: 0s
identities:
  - {name: app, client-id: %s, default: true}
  - {name: bound, client-id: %s, allowed-resources: [%s, "https://management.core.windows.net/"]}
sources:
  - {name: own, kind: local, issuer: %q, subject: %q, key-file: %q}
`

// trouble is a sidecar as it is in a pod, and the Entra that it asks, which runs in
// this process: so faults are set by calls.
type trouble struct {
	cloud   *emulation.Emulation
	sidecar *sidecar
}

func newTrouble(t *testing.T) *trouble {
	t.Helper()
	dir := t.TempDir()
	keyFile, caFile, headerFile, config := filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "header"), filepath.Join(dir, "svidecar.yaml")
	cloud, err := emulation.Start(emulation.Config{TenantID: addressTenant, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	cloud.Admit(bound)
	text := fmt.Sprintf(troubleConfig, addressTenant, headerFile, cloud.Entra.URL(), caFile, cloud.ClientID, bound, boundTo, cloud.Issuer, emulation.Subject, keyFile)
	if err := errors.Join(
		os.WriteFile(config, []byte(text), 0o600),
		os.WriteFile(headerFile, []byte(secretHeader), 0o600),
		os.WriteFile(caFile, cloud.CA.PEM(), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	w := &trouble{cloud, &sidecar{
		args: []string{"serve", "--config", config}, ready: "msg=serving",
		tenant: addressTenant, emulator: cloud.Entra.URL(), url: "http://127.0.0.1:8000", header: secretHeader,
	}}
	startCloud(t, dir, w.sidecar, w.sidecar)
	w.sidecar.start(t)
	t.Cleanup(func() { w.sidecar.end(t) })
	if out, err := exec.Command(program, "redirect").CombinedOutput(); err != nil {
		t.Fatalf("svidecar redirect: %v\n%s", err, out)
	}
	return w
}

// setFault makes Entra misbehave for one resource, until another fault is set.
func (w *trouble) setFault(t *testing.T, resource string, fault entratest.Fault) {
	t.Helper()
	if err := w.cloud.Entra.SetFault(resource+"/.default", fault); err != nil {
		t.Error(err)
	}
}

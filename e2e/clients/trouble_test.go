//go:build e2e && linux

package clients_test

import (
	"fmt"
	"os/exec"
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

// trouble is a sidecar as it is in a pod, and the Entra that it asks, which runs in
// this process: so faults are set by calls.
type trouble struct {
	cloud   *emulation.Emulation
	sidecar *sidecar
}

func newTrouble(t *testing.T) *trouble {
	t.Helper()
	identities := fmt.Sprintf("  - {name: bound, client-id: %s, allowed-resources: [%s, \"https://management.core.windows.net/\"]}", bound, boundTo)
	s, cloud := prepareSidecar(t, addressTenant, "127.0.0.1:8000", identities, bound)
	w := &trouble{cloud, s}
	startCloud(t, t.TempDir(), w.sidecar, w.sidecar)
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

//go:build e2e && linux

package netns_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// refused runs svidecar to its end, and wants status 1 and one line that holds
// text.
func refused(t *testing.T, text string, args ...string) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	line := strings.TrimSpace(string(out))
	if err == nil || strings.Contains(line, "\n") || !strings.Contains(line, text) {
		t.Errorf("svidecar %s: %v, %q; want one line with %q", strings.Join(args, " "), err, line, text)
	}
}

// requireServed asks as real clients do, with nothing set in their environment.
func requireServed(t *testing.T, resource string) {
	t.Helper()
	requireReply(t, run(t, nil, "curl", "-sf", "-H", "Metadata: true", tokenURL+resource), resource)
	cred, err := azidentity.NewManagedIdentityCredential(nil)
	requireCredential(t, cred, err, resource)
}

// TestRedirect is what a pod does: the init container's command, then the
// sidecar on loopback with its startup probe, then an app that has the address
// built in.
func TestRedirect(t *testing.T) {
	need(t, "curl")
	refused(t, "health listener gives no proof", "redirect", "--verify")
	for range 2 {
		run(t, nil, program, "redirect")
	}
	defer run(t, nil, program, "redirect", "--remove")
	start(t, "Ctrl-C ends it", nil, "dev")
	run(t, nil, program, "redirect", "--verify")
	run(t, nil, program, "wait", "--redirected")
	requireServed(t, "https://netns-redirected.example")

	run(t, nil, program, "redirect", "--remove")
	refused(t, "do not reach the sidecar: connection refused", "redirect", "--verify")
	refused(t, "do not reach the sidecar: connection refused", "wait", "--redirected")
	run(t, nil, program, "redirect", "--to-port", "8001") // health
	refused(t, "do not reach the sidecar: HTTP 404", "redirect", "--verify")
	run(t, nil, program, "redirect")
	run(t, nil, program, "redirect", "--verify")
}

// TestRedirectByAddress begins without the address, and leaves it there, as it
// was found.
func TestRedirectByAddress(t *testing.T) {
	need(t, "curl")
	run(t, nil, program, "redirect", "--method", "address", "--remove")
	if out, err := exec.Command("curl", "-s", "-m", "1", tokenURL+"x").Output(); err == nil {
		t.Errorf("the address is still there: %s", out)
	}
	for range 2 {
		run(t, nil, program, "redirect", "--method", "address")
	}
	dev(t)
	run(t, nil, program, "redirect", "--method", "address", "--verify")
	requireServed(t, "https://netns-address.example")
}

package e2e_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/managedidentity"
)

// insideMount tells this test binary that /var/opt is its own.
const insideMount = "E2E_ARC_PROGRAM"

// TestArc runs TestArcInside where /var/opt is a file system of its own: the SDKs
// take keys from one directory alone, and this machine's is not ours.
func TestArc(t *testing.T) {
	if os.Getenv(insideMount) != "" {
		t.Skip("this is the inner run")
	}
	mount := `mount -t tmpfs none /var/opt && exec "$0" "$@"`
	for _, attributes := range []*syscall.SysProcAttr{
		{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}, // makes mounts private
		{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER, Unshareflags: syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	} {
		able := exec.Command("sh", "-c", `mount -t tmpfs none /var/opt`)
		able.SysProcAttr = attributes
		if able.Run() != nil {
			continue
		}
		inner := exec.Command("sh", "-c", mount, os.Args[0], "-test.run=^TestArcInside$", "-test.v")
		inner.Env = append(os.Environ(), insideMount+"="+program)
		inner.SysProcAttr = attributes
		out, err := inner.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestArcInside") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	t.Skip("no mount namespace is to be had here: no SDK has spoken Azure Arc's protocol")
}

func TestArcInside(t *testing.T) {
	if os.Getenv(insideMount) == "" {
		t.Skip("TestArc runs this, with a /var/opt of its own")
	}
	p, err := startDev("--protocols", "arc", "--arc-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("IDENTITY_ENDPOINT", "http://"+p.logged(t, `Azure Arc.*address=(\S+)`)+"/metadata/identity/oauth2/token")
	t.Setenv("IMDS_ENDPOINT", "http://127.0.0.1:1")
	getByBoth(t, "arc")
	for name, id := range map[string]managedidentity.ID{
		"client-id":   managedidentity.UserAssignedClientID(strings.ToUpper(p.clientID)),
		"object-id":   managedidentity.UserAssignedObjectID(objectID),
		"resource-id": managedidentity.UserAssignedResourceID(resourceID),
	} {
		// MSAL refuses a reply that does not echo the selector.
		resource := unique("arc-" + name)
		result, err := msal(t, id).AcquireToken(t.Context(), resource)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		requireAudience(t, result.AccessToken, resource)
	}
	if _, err := ask(t, managedIdentity(t, &azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ObjectID(strangerID)}), unique("stranger")); err == nil || !strings.Contains(err.Error(), "Identity not found") {
		t.Errorf("an unknown identity: %v", err)
	}
	if left, err := os.ReadDir("/var/opt/azcmagent/tokens"); err != nil || len(left) > 0 {
		t.Errorf("used keys are left: %v, %v", left, err)
	}
}

//go:build e2e && linux

package webhook_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// complaints are what kubectl prints beside its output.
func complaints(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("kubectl", append([]string{"--kubeconfig", shared.Kubeconfig()}, args...)...)
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v: %s", cmd, err, out.String())
	}
	return out.String()
}

// TestReplica holds that a second replica serves while the first has the lease, takes over, and ends in order.
func TestReplica(t *testing.T) {
	install(t)
	second := start(t, 100)
	defer second.kill()
	second.waitReady(t)
	if strings.Contains(second.text(), "starting cert rotator") {
		t.Error("both replicas renew the certificate")
	}
	end := make(chan time.Duration, 1)
	go func() { end <- second.end(t) }()
	wait(t, "the second replica to be unready", func() error {
		if code := status(second.health + "/readyz"); code == http.StatusOK {
			return fmt.Errorf("/readyz is %d", code)
		}
		return nil
	})
	if took := <-end; took < 4*time.Second {
		t.Errorf("it ended after %v: it has not served on until the API server saw it unready", took)
	}
}

// TestCertificateRenewed holds that a new certificate, and a new authority, are used without a restart, and that no pod
// is lost by it for long.
func TestCertificateRenewed(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	bundle := func() string {
		return shared.Do(t, "get", "mutatingwebhookconfiguration", name, "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}")
	}
	before := bundle()
	shared.Do(t, "patch", "secret", name, "--namespace", system, "--type=json", `--patch=[{"op":"remove","path":"/data"}]`)
	wait(t, "another authority", func() error {
		if bundle() == before {
			return fmt.Errorf("it is the one before")
		}
		return nil
	})
	begin := time.Now()
	wait(t, "pods to be injected again", func() error {
		_, err := create(t, ns, pod("p", `svidecar.io/inject: "true"`, ""))
		return err
	})
	t.Logf("the first pod was admitted %v after the new authority", time.Since(begin).Round(time.Millisecond))
	if first.count(t, "svidecar_webhook_certificate_expiry_timestamp_seconds") == "0" {
		t.Error("the metric of the certificate's end is 0")
	}
	if log := first.text(); strings.Contains(log, "PRIVATE KEY") {
		t.Error("the log has a private key")
	}
}

// TestPodIdentityNeedsDefinitions holds that the choice is refused where it can do nothing.
func TestPodIdentityNeedsDefinitions(t *testing.T) {
	install(t)
	r := start(t, 200, "--pod-identity=cluster")
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		r.kill()
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(r.text(), "no AzureIdentity") {
		t.Errorf("status %d, want 1:\n%s", code, r.text())
	}
}

// rss is the resident memory of a process in bytes.
func rss(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// cpu is the processor time that a process has had, from /proc/PID/stat, whose unit is a hundredth of a second.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text))
	user, err := strconv.Atoi(fields[13])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[14])
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

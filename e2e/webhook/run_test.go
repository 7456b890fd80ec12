//go:build e2e && linux

package webhook_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
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

// TestReplica ends the replica that is called, which has the lease, while pods are made, and has its Service lead to a
// second as Kubernetes would: once the first says that it is not ready. It holds that no pod is refused, that the second
// serves and takes the lease, and that the first serves on until it is no longer called.
func TestReplica(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	second := start(t, 100)
	defer second.kill()
	second.waitReady(t)
	if strings.Contains(second.text(), "starting cert rotator") {
		t.Error("both replicas renew the certificate")
	}
	leadTo(t, 100)
	defer func() {
		first = start(t, 0)
		first.waitReady(t)
		leadTo(t, 0)
		leadAway(t, 100)
		second.end(t)
	}()
	stop := traffic(t, ns)
	defer stop()
	end := make(chan time.Duration, 1)
	go func() { end <- first.end(t) }()
	wait(t, "the first replica to be unready", func() error {
		if code := status(first.health + "/readyz"); code == http.StatusOK {
			return fmt.Errorf("/readyz is %d", code)
		}
		return nil
	})
	leadAway(t, 0)
	if took := <-end; took < 4*time.Second {
		t.Errorf("it ended after %v: it has not served on until the API server saw it unready", took)
	}
	wait(t, "the second replica to take the lease", func() error {
		if !strings.Contains(second.text(), "starting cert rotator") {
			return errors.New("it has not")
		}
		return nil
	})
	made := stop()
	t.Logf("%d pods were made, of which the second replica was asked for %s", made, second.count(t, injectedPods))
	if made < 100 || second.count(t, injectedPods) == "0" {
		t.Errorf("%d pods were made, want a hundred, and some by the second replica", made)
	}
}

// untrusted is a configuration that the webhook may not write, and that lacks the authority.
const untrusted = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: untrusted}
webhooks:
- name: untrusted.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: svidecar-webhook, namespace: svidecar-system, path: /mutate/pods}}
  rules: [{apiGroups: [none.example.com], apiVersions: [v1], operations: [CREATE], resources: [nothing]}]
`

// TestReadyOnceTrusted holds that a replica is unready until the API server would believe its certificate.
func TestReadyOnceTrusted(t *testing.T) {
	install(t)
	shared.Apply(t, "", untrusted)
	t.Cleanup(func() { shared.Do(t, "delete", "mutatingwebhookconfiguration", "untrusted") })
	r := start(t, 200, "--configuration=untrusted")
	defer r.kill()
	wait(t, "the replica to serve", func() error {
		if !strings.Contains(r.text(), `"msg":"serving"`) {
			return errors.New("it does not")
		}
		return nil
	})
	if code := status(r.health + "/readyz"); code != http.StatusInternalServerError {
		t.Errorf("/readyz is %d before the authority is in the configuration, want 500", code)
	}
	if log := r.text(); !strings.Contains(log, "not ready: webhook: the configuration does not have the certificate's authority yet") {
		t.Errorf("the log does not say why it is unready:\n%s", r.tail())
	}
	authority := shared.Do(t, "get", "secret", name, "--namespace", system, "--output", `jsonpath={.data.ca\.crt}`)
	shared.Do(t, "patch", "mutatingwebhookconfiguration", "untrusted", "--type=json", "--patch", `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"`+authority+`"}]`)
	r.waitReady(t)
}

const injectedPods = `svidecar_webhook_pods_total{result="injected"}`

// traffic makes pods that ask for the sidecar, and holds that each gets it, until stop, which gives how many there were.
func traffic(t *testing.T, ns string) (stop func() int) {
	t.Helper()
	http, raw := apiClient(t), body(t, `svidecar.io/inject: "true"`, "")
	var made atomic.Int64
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		all.Go(func() {
			tick := time.NewTicker(25 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				var p corev1.Pod
				if err := json.Unmarshal(post(t, http, podsURL(ns), raw), &p); err != nil || !slices.Contains(containers(p), "svidecar") {
					t.Errorf("a pod was made with containers %v (%v)", containers(p), err)
					return
				}
				made.Add(1)
			}
		})
	}
	return sync.OnceValue(func() int {
		close(done)
		all.Wait()
		return int(made.Load())
	})
}

// TestCertificateRenewed holds that a new certificate, of a new authority, is served without a restart, and that the API
// server comes to trust it, and calls again, and that no pod is lost by it for long.
func TestCertificateRenewed(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	bundle := func() string {
		return shared.Do(t, "get", "mutatingwebhookconfiguration", name, "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}")
	}
	before, old := bundle(), served(t, "10.0.0.1:9443")
	shared.Do(t, "patch", "secret", name, "--namespace", system, "--type=json", `--patch=[{"op":"remove","path":"/data"}]`)
	wait(t, "another authority", func() error {
		if bundle() == before {
			return errors.New("it is the one before")
		}
		return nil
	})
	begin := time.Now()
	wait(t, "pods to be injected again", func() error {
		_, err := create(t, ns, pod("p", `svidecar.io/inject: "true"`, ""))
		return err
	})
	t.Logf("the first pod was admitted %v after the new authority", time.Since(begin).Round(time.Millisecond))
	wantCalledByNewName(t, ns)
	authority := roots(t, bundle())
	renewed := served(t, "10.0.0.1:9443")
	options := x509.VerifyOptions{Roots: authority, DNSName: name + "." + system + ".svc"}
	if _, err := renewed.Verify(options); err != nil {
		t.Errorf("the new authority did not sign what is served: %v", err)
	}
	if _, err := old.Verify(options); err == nil {
		t.Error("the new authority signed the certificate before too")
	}
	expiry, err := strconv.ParseFloat(first.count(t, "svidecar_webhook_certificate_expiry_timestamp_seconds"), 64)
	if err != nil || int64(expiry) != renewed.NotAfter.Unix() {
		t.Errorf("the metric of the certificate's end is %v (%v), want %d", expiry, err, renewed.NotAfter.Unix())
	}
	if log := first.text(); strings.Contains(log, "PRIVATE KEY") {
		t.Error("the log has a private key")
	}
}

// wantCalledByNewName renames the webhook in its configuration, and waits until the API server gives the webhook's
// refusal by that name. It has then seen the authority too, which was written before, and has reached the webhook with
// no other: it keeps no connection over a change of the authority.
func wantCalledByNewName(t *testing.T, ns string) {
	t.Helper()
	rename := func(to string) {
		shared.Do(t, "patch", "mutatingwebhookconfiguration", name, "--type=json", `--patch=[{"op":"replace","path":"/webhooks/0/name","value":"`+to+`"}]`)
	}
	rename("renewed.svidecar.io")
	defer rename("pods.svidecar.io")
	wait(t, "the webhook to be called with the new authority", func() error {
		_, err := create(t, ns, pod("p", `svidecar.io/inject: "yes"`, ""))
		if err == nil || !strings.Contains(err.Error(), `admission webhook "renewed.svidecar.io" denied the request: `) {
			return fmt.Errorf("a pod that the webhook refuses: %v", err)
		}
		return nil
	})
}

// served is the certificate that a listener shows.
func served(t *testing.T, address string) *x509.Certificate {
	t.Helper()
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", address, &tls.Config{InsecureSkipVerify: true}) // it is judged by who asks
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func roots(t *testing.T, bundle string) *x509.CertPool {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(bundle)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatalf("the bundle %q has no certificate: %v", bundle, err)
	}
	return pool
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
func rss(t *testing.T, pid int) int { return cluster.Memory(t, pid, "VmRSS") }

// peak is the most that it has been.
func peak(t *testing.T, r *replica) int { return cluster.Memory(t, r.cmd.Process.Pid, "VmHWM") }

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

//go:build e2e && linux

package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

type object = map[string]any

const (
	manifests = "../../deploy/manifests"
	system    = "svidecar-system"
	name      = "svidecar-webhook"
	tenant    = "22222222-2222-2222-2222-222222222222"
)

// replica is one svidecar-webhook.
type replica struct {
	cmd             *exec.Cmd
	done            chan struct{}
	health, metrics string // URLs
	mu              sync.Mutex
	log             bytes.Buffer
}

// Write collects the log.
func (r *replica) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *replica) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// tail is the end of the log.
func (r *replica) tail() string {
	lines := strings.SplitAfter(r.text(), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

func (r *replica) kill() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// end asks for an orderly end.
func (r *replica) end(t *testing.T) (took time.Duration) {
	t.Helper()
	begin := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
	case <-time.After(30 * time.Second):
		t.Fatalf("it has not ended after 30 s:\n%s", r.tail())
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with status %d:\n%s", code, r.tail())
	}
	return time.Since(begin)
}

// first is the replica that the API server calls, for all tests.
var (
	first   *replica
	once    sync.Once
	program string
)

// install applies the manifests as they stand, and starts a webhook where their Service leads.
func install(t *testing.T) {
	t.Helper()
	shared.API(t)
	once.Do(func() {
		shared.Do(t, "apply", "--filename", manifests)
		leadTo(t, 0)
		first = start(t, 0)
		first.waitReady(t)
		wait(t, "the authority in the configuration", func() error {
			if shared.Do(t, "get", "mutatingwebhookconfiguration", name, "--output", "jsonpath={.webhooks[0].clientConfig.caBundle}") == "" {
				return errors.New("there is none")
			}
			return nil
		})
	})
	if first == nil {
		t.Fatal("the webhook did not start")
	}
}

// leadTo leads the Service to one replica, on the node's own link: there is no controller that does. Each replica has a
// slice of its own, since their ports differ.
func leadTo(t *testing.T, shift int) {
	t.Helper()
	shared.Apply(t, system, fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: svidecar-webhook-%d, labels: {kubernetes.io/service-name: svidecar-webhook}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}]
ports: [{name: webhook, port: %d, protocol: TCP}]
`, shift, 9443+shift))
}

// leadAway ends that.
func leadAway(t *testing.T, shift int) {
	t.Helper()
	shared.Do(t, "delete", "endpointslice", "--namespace", system, fmt.Sprintf("svidecar-webhook-%d", shift))
}

// start runs a webhook with the Deployment's arguments, memory limit and service account. Its ports are moved up by shift; more
// arguments follow the Deployment's, and so outrank them.
func start(t *testing.T, shift int, more ...string) *replica {
	t.Helper()
	r := &replica{
		done:   make(chan struct{}),
		health: fmt.Sprintf("http://127.0.0.1:%d", 8081+shift), metrics: fmt.Sprintf("http://127.0.0.1:%d/metrics", 8080+shift),
	}
	args := append(container(t).Args, fmt.Sprintf("--listen=:%d", 9443+shift), fmt.Sprintf("--health-listen=:%d", 8081+shift), fmt.Sprintf("--metrics-listen=:%d", 8080+shift), "--tenant-id="+tenant)
	r.cmd = exec.Command(build(t), append(args, more...)...)
	r.cmd.Env = []string{"KUBECONFIG=" + kubeconfig(t), "PATH=", "TMPDIR=" + os.TempDir(), fmt.Sprintf("GOMEMLIMIT=%d", container(t).limit(t))}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
	}()
	return r
}

// build is once for all tests; the modules are there already.
func build(t *testing.T) string {
	t.Helper()
	if program != "" {
		return program
	}
	dir, err := os.MkdirTemp("", "svidecar-webhook-")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./cmd/"+name)
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	program = file
	return program
}

// deployed is what the Deployment says of the webhook's container.
type deployed struct {
	Args      []string
	Resources struct{ Limits struct{ Memory string } }
}

// limit is the memory in bytes that the container may have.
func (d deployed) limit(t *testing.T) int {
	t.Helper()
	q, err := resource.ParseQuantity(d.Resources.Limits.Memory)
	if err != nil {
		t.Fatal(err)
	}
	return int(q.Value())
}

func container(t *testing.T) deployed {
	t.Helper()
	file, err := os.Open(filepath.Join(manifests, "svidecar-webhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for d := yaml.NewDecoder(file); ; {
		var item struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct{ Containers []deployed }
				}
			}
		}
		if err := d.Decode(&item); errors.Is(err, io.EOF) {
			t.Fatal("the manifests have no Deployment")
		} else if err == nil && item.Kind == "Deployment" {
			return item.Spec.Template.Spec.Containers[0]
		}
	}
}

// kubeconfig has the rights of the webhook's service account, and no others.
func kubeconfig(t *testing.T) string {
	t.Helper()
	token := strings.TrimSpace(shared.Do(t, "create", "token", name, "--namespace", system, "--duration", "2h"))
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
		"clusters": []object{{"name": "e2e", "cluster": object{"server": cluster.Server, "certificate-authority": shared.Authority()}}},
		"users":    []object{{"name": name, "user": object{"token": token}}},
		"contexts": []object{{"name": "e2e", "context": object{"cluster": "e2e", "user": name}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "svidecar-webhook-")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// wait asks again until there is no error.
func wait(t *testing.T, what string, ready func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waiting for %s: %v; the webhook's log:\n%s", what, err, first.tail())
		}
	}
}

func (r *replica) waitReady(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for status(r.health+"/readyz") != http.StatusOK {
		select {
		case <-tick.C:
		case <-r.done:
			t.Fatalf("it has ended:\n%s", r.tail())
		case <-deadline:
			t.Fatalf("it is not ready after a minute:\n%s", r.tail())
		}
	}
}

// status is that of a GET, or zero.
func status(url string) int {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// count reads one sample of /metrics.
func (r *replica) count(t *testing.T, sample string) string {
	t.Helper()
	resp, err := http.Get(r.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(sample) + ` (\S+)$`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("/metrics has no %s", sample)
	}
	return string(m[1])
}

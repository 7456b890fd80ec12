//go:build e2e && linux

package kubernetes_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

// install installs the chart for the length of a test.
func install(t *testing.T) (namespace string) {
	t.Helper()
	ns := shared.Namespace(t)
	helm(t, "install", "svidecar", "../../deploy/chart", "--namespace", ns, "--set-json", "env="+apiServer, "--set", chartValues, "--set", "tenantId="+tenantID, "--wait", "--timeout", "90s")
	t.Cleanup(func() { helm(t, "uninstall", "svidecar", "--namespace", ns, "--wait") })
	return ns
}

// deployment has pods that ask for the sidecar, and that no node takes.
func deployment(t *testing.T, name string, replicas int) object {
	t.Helper()
	pod := workload(t, name)
	spec := pod["spec"].(object)
	spec["nodeSelector"] = object{"e2e.invalid/no": "node"}
	meta := at[object](t, pod, "metadata")
	delete(meta, "name")
	meta["labels"] = object{"app": name}
	return object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": name}, "spec": object{
		"replicas": replicas, "selector": object{"matchLabels": object{"app": name}}, "template": object{"metadata": meta, "spec": spec},
	}}
}

// awaitPods waits until a namespace has so many pods with a label app, and gives how many of them have the sidecar.
func awaitPods(t *testing.T, namespace, app string, n int) (withSidecar int) {
	t.Helper()
	shared.Eventually(t, func() error {
		out := shared.Do(t, "get", "pods", "--namespace", namespace, "--selector=app="+app, "--output", `jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.svidecar\.io/injected}{"\n"}{end}`)
		if got := strings.Count(out, "\n"); got != n {
			return fmt.Errorf("there are %d pods, want %d", got, n)
		}
		withSidecar = strings.Count(out, " redirect\n")
		return nil
	})
	return withSidecar
}

// TestUpgrade upgrades the chart below an app that asks for a token twenty times a second and never retries, and while
// a Deployment grows. No request is lost, and no pod is made without its sidecar: this cluster has room for one
// replica, so that for a while there is none, in which pods are refused and made later.
func TestUpgrade(t *testing.T) {
	shared.Node(t)
	system := install(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod, _ := injected(t, ns, nil, annotate(workload(t, "orders", "-every=50ms", "-timeout=1s", "-retry=false"), redirected))
	applyObjects(t, ns, pod)
	shared.WaitReady(t, ns, "pod/orders")
	wantIdentity(t, ns, "orders", "app", clientID)
	before := strings.Count(shared.Logs(t, ns, "orders", "-c", "app"), "\n")

	const replicas = 40
	applyObjects(t, ns, deployment(t, "growing", 1))
	awaitPods(t, ns, "growing", 1)
	first := shared.Do(t, "get", "pods", "--namespace", system, "--output", "jsonpath={.items[*].metadata.uid}")
	grown := make(chan error, 1)
	go func() {
		for n := 2; n <= replicas; n++ { // each takes a tenth of a second: it goes on from before the upgrade to its end
			if _, err := shared.Kubectl(t, "", "scale", "deployment", "growing", "--namespace", ns, "--replicas", strconv.Itoa(n)); err != nil {
				grown <- err
				return
			}
		}
		grown <- nil
	}()
	helm(t, "upgrade", "svidecar", "../../deploy/chart", "--namespace", system, "--reuse-values", "--set", "sidecar.logLevel=debug", "--wait", "--timeout", "90s")
	if err := <-grown; err != nil {
		t.Fatal(err)
	}
	if now := shared.Do(t, "get", "pods", "--namespace", system, "--output", "jsonpath={.items[*].metadata.uid}"); now == first {
		t.Error("the upgrade replaced no pod of the webhook")
	}
	if got := awaitPods(t, ns, "growing", replicas); got != replicas {
		t.Errorf("%d of %d pods have the sidecar", got, replicas)
	}
	if level := shared.Do(t, "get", "pods", "--namespace", ns, "--selector=app=growing", "--output", "jsonpath={.items[*].spec.initContainers[1].env[?(@.name==\"SVIDECAR_LOG_LEVEL\")].value}"); !strings.Contains(level, "debug") {
		t.Errorf("no pod was made by the upgraded webhook: levels are %q", level)
	}
	lines := strings.Split(strings.TrimSpace(shared.Logs(t, ns, "orders", "-c", "app")), "\n")
	if len(lines) <= before {
		t.Errorf("the app asked %d times during the upgrade", len(lines)-before)
	}
	for _, l := range lines {
		if !strings.Contains(l, `"appid":"`+clientID+`"`) {
			t.Errorf("the app was given %s", l)
		}
	}
	t.Logf("the app was answered %d times during the upgrade", len(lines)-before)
}

// TestScale has a Deployment grow to 200 pods at once, as its controller does that, and reports how long the API server
// waited for the webhook. It bounds memory alone: other programs share this machine.
func TestScale(t *testing.T) {
	shared.Node(t)
	system := install(t)
	const replicas, memory = 200, 64 << 20
	ns := shared.Namespace(t)
	settle(t, ns)
	before := calls(t)
	began := time.Now()
	applyObjects(t, ns, deployment(t, "orders", replicas))
	if got := awaitPods(t, ns, "orders", replicas); got != replicas {
		t.Errorf("%d of %d pods have the sidecar", got, replicas)
	}
	took := time.Since(began)
	for le, n := range calls(t) {
		if n -= before[le]; n > 0 && n < replicas || le == "0.005" || le == "+Inf" {
			t.Logf("the API server had the webhook's patch within %s s for %d pods", le, n)
		}
	}
	t.Logf("%d pods in %v", replicas, took.Round(10*time.Millisecond))
	name := strings.TrimPrefix(strings.TrimSpace(shared.Do(t, "get", "pods", "--namespace", system, "--output", "name")), "pod/")
	if rss := cluster.Memory(t, processOf(t, system, name, "/svidecar-webhook"), "VmRSS"); rss > memory {
		t.Errorf("the webhook holds %d MiB, want at most %d", rss>>20, memory>>20)
	} else {
		t.Logf("the webhook holds %d MiB", rss>>20)
	}
}

// calls are the API server's calls of the webhook, by the histogram's bounds.
func calls(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for line := range strings.Lines(shared.Do(t, "get", "--raw", "/metrics")) {
		if !strings.HasPrefix(line, "apiserver_admission_webhook_admission_duration_seconds_bucket{") || !strings.Contains(line, `name="pods.svidecar.io"`) || !strings.Contains(line, `rejected="false"`) {
			continue
		}
		_, rest, _ := strings.Cut(line, `le="`)
		le, _, _ := strings.Cut(rest, `"`)
		n, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
		if err != nil {
			t.Fatal(err)
		}
		found[le] += n
	}
	return found
}

//go:build e2e && linux

package webhook_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

// The webhook's bounds while pods come at once. The time is that of the 99th of a hundred, over what a pod takes that
// is not sent to the webhook, where there are as many processors as programs.
const (
	burst   = 200
	memory  = 64 << 20
	latency = 5 * time.Millisecond
)

// TestBurst creates pods at once. It bounds the memory, and reports the time: other programs share this machine.
func TestBurst(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	client := apiClient(t)
	url := cluster.Server + "/api/v1/namespaces/" + ns + "/pods?dryRun=All"
	plain, asking := body(t, ""), body(t, `svidecar.io/inject: "true"`)
	before := cpu(t, first.cmd.Process.Pid)
	for range 2 { // the first time opens connections
		without, with := create200(t, client, url, plain), create200(t, client, url, asking)
		t.Logf("%d pods at once: p50 %v, p99 %v; with the webhook p50 %v, p99 %v", burst, at(without, 50), at(without, 99), at(with, 50), at(with, 99))
	}
	var alone []time.Duration
	for _, raw := range [][]byte{plain, asking} {
		var took []time.Duration
		for range burst {
			took = append(took, one(t, client, url, raw))
		}
		slices.Sort(took)
		alone = append(alone, at(took, 50), at(took, 99))
	}
	t.Logf("one after another: p50 %v, p99 %v; with the webhook p50 %v, p99 %v (want the last at most %v above)", alone[0], alone[1], alone[2], alone[3], latency)
	t.Logf("the webhook took %v of processor time for each of %d pods", (cpu(t, first.cmd.Process.Pid)-before)/(3*burst), 3*burst)
	// What the API server counts as the call: there and back, and the patch.
	for line := range strings.Lines(shared.Do(t, "get", "--raw", "/metrics")) {
		if strings.HasPrefix(line, "apiserver_admission_webhook_admission_duration_seconds_") && strings.Contains(line, "pods.svidecar.io") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if n := rss(t, first.cmd.Process.Pid); n > memory {
		t.Errorf("the webhook holds %d MiB, want at most %d", n>>20, memory>>20)
	} else {
		t.Logf("the webhook holds %d MiB", n>>20)
	}
	for _, le := range []string{"0.001", "0.005", "0.025", "+Inf"} {
		t.Logf("answers within %s s: %s", le, first.count(t, `svidecar_webhook_duration_seconds_bucket{le="`+le+`"}`))
	}
}

func at(sorted []time.Duration, percent int) time.Duration {
	return sorted[len(sorted)*percent/100].Round(10 * time.Microsecond)
}

func apiClient(t *testing.T) *http.Client {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", shared.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func body(t *testing.T, annotations string) []byte {
	t.Helper()
	var p object
	if err := yaml.Unmarshal([]byte(pod("p", annotations, "")), &p); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// create200 gives how long each took, sorted.
func create200(t *testing.T, client *http.Client, url string, raw []byte) []time.Duration {
	t.Helper()
	took := make([]time.Duration, burst)
	var all sync.WaitGroup
	for i := range took {
		all.Go(func() { took[i] = one(t, client, url, raw) })
	}
	all.Wait()
	slices.Sort(took)
	return took
}

func one(t *testing.T, client *http.Client, url string, raw []byte) time.Duration {
	t.Helper()
	begin := time.Now()
	post(t, client, url, raw)
	return time.Since(begin)
}

// post creates an object, and gives what the API server made of it.
func post(t *testing.T, client *http.Client, url string, raw []byte) []byte {
	t.Helper()
	resp, err := client.Post(url, "application/json", bytes.NewReader(raw))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Errorf("%s: %v: %.300s", resp.Status, err, text)
	}
	return text
}

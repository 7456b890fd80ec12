//go:build e2e && linux

package webhook_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

// The webhook's bound while pods come at once, and how many those are.
const (
	burst  = 200
	memory = 64 << 20
)

var errNoSidecar = errors.New("the pod has no sidecar")

// TestBurst creates pods at once and one after another: those that nobody changes, those that the least webhook changes,
// and those that ours does. It bounds the memory, and reports the time: other programs share this machine.
func TestBurst(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	asking := body(t, `svidecar.io/inject: "true"`, "")
	startFloor(t, ns, asking)
	kinds := []struct {
		name string
		pod  []byte
	}{{"unchanged", body(t, "", "")}, {"the least webhook", body(t, "", `floor: "true"`)}, {"svidecar's webhook", asking}}
	client := apiClient(t)
	before := cpu(t, first.cmd.Process.Pid)
	const rounds = 3
	for round := range rounds {
		for _, k := range kinds {
			began := time.Now()
			took := create200(t, client, podsURL(ns), k.pod)
			if round > 0 { // the first opens connections
				t.Logf("%d at once, %s: p50 %v, p99 %v, and %v for each pod", burst, k.name, at(took, 50), at(took, 99), (time.Since(began) / burst).Round(time.Microsecond))
			}
		}
	}
	alone := make([][]time.Duration, len(kinds))
	for range burst { // by turns, so that whatever else runs here disturbs them alike
		for i, k := range kinds {
			alone[i] = append(alone[i], one(t, client, podsURL(ns), k.pod))
		}
	}
	for i, took := range alone {
		slices.Sort(took)
		t.Logf("one after another, %s: p50 %v, p99 %v", kinds[i].name, at(took, 50), at(took, 99))
	}
	t.Logf("the webhook took %v of processor time for each of %d pods", (cpu(t, first.cmd.Process.Pid)-before)/((rounds+1)*burst), (rounds+1)*burst)
	if n := rss(t, first.cmd.Process.Pid); n > memory {
		t.Errorf("the webhook holds %d MiB, want at most %d", n>>20, memory>>20)
	} else {
		t.Logf("the webhook holds %d MiB", n>>20)
	}
	for _, le := range []string{"0.001", "0.005", "0.025", "+Inf"} {
		t.Logf("answers within %s s: %s", le, first.count(t, `svidecar_webhook_duration_seconds_bucket{le="`+le+`"}`))
	}
}

// podsURL has the API server do everything to a pod but keep it.
func podsURL(ns string) string {
	return cluster.Server + "/api/v1/namespaces/" + ns + "/pods?dryRun=All"
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

func body(t *testing.T, annotations, labels string) []byte {
	t.Helper()
	var p object
	if err := yaml.Unmarshal([]byte(pod("p", annotations, labels)), &p); err != nil {
		t.Fatal(err)
	}
	return marshal(t, p)
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

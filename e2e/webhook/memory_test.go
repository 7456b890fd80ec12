//go:build e2e && linux

package webhook_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// worst is a review with as many values in its pod as the bytes allow. Once they are read they take far more room.
func worst(ns, list, unit string, size int) string {
	review := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"x","operation":"CREATE","resource":{"version":"v1","resource":"pods"},"namespace":"` + ns +
		`","object":{"metadata":{"annotations":{"svidecar.io/inject":"true","svidecar.io/mode":"env"}},"spec":{"` + list + `":[%s]}}}}`
	n := (size - len(review)) / len(unit)
	return fmt.Sprintf(review, strings.TrimSuffix(strings.Repeat(unit, n), ","))
}

// TestMemory holds that whoever reaches the port, with no credentials, cannot have a replica use more memory than its
// container may have, whatever is sent at once. The API server is one of them.
func TestMemory(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	r := start(t, 300)
	defer r.kill()
	r.waitReady(t)
	limit := container(t).limit(t)
	t.Logf("at the start: %d MiB of %d", peak(t, r)>>20, limit>>20)
	for _, tt := range []struct {
		what, body string
		times      int
	}{
		{"seven megabytes", worst(ns, "volumes", `{},`, 6900000), 1},
		{"large: empty objects", worst(ns, "volumes", `{},`, 3<<19), 8},
		{"large: objects", worst(ns, "volumes", `{"":0},`, 3<<19), 8},
		{"large: lists", worst(ns, "tolerations", `[],`, 3<<19), 8},
		{"large: containers", worst(ns, "containers", `{},`, 3<<19), 8},
		{"large: beside the pod", strings.Replace(worst(ns, "volumes", `{},`, 600), `"uid":"x"`, `"uid":"x","userInfo":{"groups":[`+strings.TrimSuffix(strings.Repeat(`"",`, 1<<20-1000), ",")+`]}`, 1), 8},
		{"as many values as may be", worst(ns, "volumes", `{"":"0123456"},`, 690_000), 8},
		{"small: objects", worst(ns, "volumes", `{"":0},`, 64<<10), 128},
		{"small: containers", worst(ns, "containers", `{},`, 64<<10), 128},
	} {
		send(tt.body, tt.times)
		t.Logf("%s, %d bytes, %d at once: %d MiB", tt.what, len(tt.body), tt.times, peak(t, r)>>20)
	}
	if n := peak(t, r); n > limit {
		t.Errorf("the webhook took %d MiB, and its container may have %d", n>>20, limit>>20)
	}
	select {
	case <-r.done:
		t.Errorf("it has ended:\n%s", r.tail())
	default:
	}
}

// send posts a review by so many connections at once. Whether one is answered, refused or cut off is all the same.
func send(body string, times int) {
	var all sync.WaitGroup
	for range times {
		all.Go(func() {
			client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} // as anybody can
			if resp, err := client.Post("https://127.0.0.1:9743/mutate/pods", "application/json", strings.NewReader(body)); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	all.Wait()
}

// TestLargePod holds that whoever creates a pod that is too large is told so by the API server.
func TestLargePod(t *testing.T) {
	install(t)
	ns := shared.Namespace(t)
	account(t, ns)
	for _, tt := range []struct{ name, spec, want string }{
		{"pod", `"nodeName":"` + strings.Repeat("x", 1700000) + `",`, "bytes of JSON, and may have 1572864: make it smaller"},
		{"values", `"tolerations":[` + strings.Repeat("{},", 60_000) + `{}],`, "values in its JSON, and may have 100000: make it smaller"},
		{"request", `"volumes":[` + strings.Repeat(`{"name":"a"},`, 200_000) + `{"name":"a"}],`, "svidecar cannot answer this request: it has"},
	} {
		raw := strings.Replace(string(body(t, `svidecar.io/inject: "true"`, "")), `"spec":{`, `"spec":{`+tt.spec, 1)
		resp, err := apiClient(t).Post(podsURL(ns), "application/json", strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusCreated || !strings.Contains(string(text), tt.want) {
			t.Errorf("%s, %d bytes: %s %.400s; want %q", tt.name, len(raw), resp.Status, text, tt.want)
		}
	}
}

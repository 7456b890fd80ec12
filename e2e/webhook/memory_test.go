//go:build e2e && linux

package webhook_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
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

// TestConnections holds how many there may be, and how many requests on each, with how much before the body.
func TestConnections(t *testing.T) {
	install(t)
	r := start(t, 300)
	defer r.kill()
	r.waitReady(t)
	const most = 128
	var open []*tls.Conn
	dial := func() (*tls.Conn, error) {
		dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err := dialer.DialContext(ctx, "tcp", "127.0.0.1:9743")
		if err != nil {
			return nil, err
		}
		return c.(*tls.Conn), nil
	}
	for range most {
		c, err := dial()
		if err != nil {
			t.Fatalf("after %d connections: %v", len(open), err)
		}
		open = append(open, c)
	}
	if c, err := dial(); err == nil {
		c.Close()
		t.Errorf("there may be more than %d connections", most)
	}
	framer := http2.NewFramer(open[0], open[0])
	frame, err := framer.ReadFrame() // the server's settings come first
	if err != nil {
		t.Fatal(err)
	}
	if streams, ok := frame.(*http2.SettingsFrame).Value(http2.SettingMaxConcurrentStreams); !ok || streams != 32 {
		t.Errorf("%d requests on a connection, want 32", streams)
	}
	for _, c := range open {
		c.Close()
	}
	wait(t, "another connection", func() error {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: time.Second}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1:9743/mutate/pods", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		req.Header.Set("Long", strings.Repeat("x", 16<<10))
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("long headers: %s", resp.Status)
		}
		return nil
	})
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

//go:build e2e && linux

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The identities of TestSeveralIdentities, beside clientID.
const (
	secondClient  = "3e2d7b63-1e5c-4a1b-8b74-6c8f9d4a5e33"
	unknownClient = "4f3e8c74-2f6d-4b2c-9c85-7d90ae5b6f44"
)

// template is an injected pod as the template of a workload.
func template(t *testing.T, namespace string, pod object) object {
	t.Helper()
	patched, _ := injected(t, namespace, nil, annotate(pod, redirected))
	meta := at[object](t, patched, "metadata")
	delete(meta, "name")
	meta["labels"] = object{"app": "orders"}
	return object{"metadata": meta, "spec": patched["spec"]}
}

// podOf names the one pod of a workload, once there is one.
func podOf(t *testing.T, namespace string) (name string) {
	t.Helper()
	shared.Eventually(t, func() error {
		name = strings.TrimPrefix(strings.TrimSpace(shared.Do(t, "get", "pods", "--namespace", namespace, "--output", "name")), "pod/")
		if name == "" || strings.Contains(name, "\n") {
			return fmt.Errorf("the pods are %q, want one", name)
		}
		return nil
	})
	return name
}

// TestInitContainer holds that the app's own init container gets a token, though it runs before the app.
func TestInitContainer(t *testing.T) {
	t.Parallel()
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod := annotate(workload(t, "orders"), redirected)
	spec := pod["spec"].(object)
	spec["initContainers"] = append(spec["initContainers"].([]object), appContainer("migrate", "-once"))
	patched, _ := injected(t, ns, nil, pod)
	applyObjects(t, ns, patched)
	shared.WaitReady(t, ns, "pod/orders")
	wantIdentity(t, ns, "orders", "migrate", clientID)
	if c := statusOf(t, ns, "orders").container(t, "migrate"); c.RestartCount != 0 {
		t.Errorf("the init container was restarted %d times: its first attempt was to succeed", c.RestartCount)
	}
}

// TestJob holds that a Job gets its token and ends: the sidecar does not hold it. Nor does it hold one of a CronJob.
func TestJob(t *testing.T) {
	shared.Node(t)
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, ns string, job object)
	}{
		{"job", func(t *testing.T, ns string, job object) {
			applyObjects(t, ns, object{"apiVersion": "batch/v1", "kind": "Job", "metadata": object{"name": "nightly"}, "spec": job})
		}},
		{"cron job", func(t *testing.T, ns string, job object) {
			applyObjects(t, ns, object{"apiVersion": "batch/v1", "kind": "CronJob", "metadata": object{"name": "schedule"}, "spec": object{
				"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": object{"spec": job},
			}})
			shared.Do(t, "create", "job", "nightly", "--from=cronjob/schedule", "--namespace", ns)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := shared.Namespace(t)
			settle(t, ns)
			pod := workload(t, "orders", "-once")
			pod["spec"].(object)["restartPolicy"] = "Never"
			began := time.Now()
			tt.start(t, ns, object{"backoffLimit": 0, "template": template(t, ns, pod)})
			shared.WaitFor(t, ns, "job/nightly", "condition=Complete")
			t.Logf("complete after %v", time.Since(began).Round(10*time.Millisecond))
			name := podOf(t, ns)
			if line := shared.WaitLog(t, ns, name, "app", "{"); !strings.Contains(line, `"appid":"`+clientID+`"`) {
				t.Errorf("the app's line is %s, want a token of %s", line, clientID)
			}
			if _, code, ended := statusOf(t, ns, name).container(t, "svidecar").message(); !ended || code != 0 {
				t.Errorf("the sidecar has ended: %v, with status %d, want 0", ended, code)
			}
		})
	}
}

// TestSeveralIdentities holds that the containers of a pod get the identity that each names, that one that names none
// gets the default, and that none gets an identity outside of the list: Entra, which would grant it, is not even asked.
func TestSeveralIdentities(t *testing.T) {
	shared.Node(t)
	for _, mode := range []string{"redirect", "env"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			ns := shared.Namespace(t)
			settle(t, ns, secondClient, unknownClient)
			pod := annotate(workload(t, "orders"), map[string]string{
				"svidecar.io/mode":       mode,
				"svidecar.io/identities": fmt.Sprintf(`[{"clientId":%q,"default":true},{"clientId":%q}]`, clientID, secondClient),
			})
			spec := pod["spec"].(object)
			spec["containers"] = append(spec["containers"].([]object), appContainer("second", "-client-id="+secondClient), appContainer("outsider", "-client-id="+unknownClient, "-retry=false"))
			patched, _ := injected(t, ns, nil, pod)
			applyObjects(t, ns, patched)
			shared.WaitReady(t, ns, "pod/orders")
			wantIdentity(t, ns, "orders", "app", clientID)
			wantIdentity(t, ns, "orders", "second", secondClient)
			if line := shared.WaitLog(t, ns, "orders", "outsider", "{"); !strings.Contains(line, `"error"`) || strings.Contains(line, `"appid"`) {
				t.Errorf("the identity outside of the list got %s, want an error", line)
			}
			if asked, ok := entraCalls(t, ns, "orders").Assertions[unknownClient]; ok {
				t.Errorf("Entra was asked for the identity outside of the list: %+v", asked)
			}
		})
	}
}

// TestDeletion deletes a Deployment below an app that asks twenty times a second, never retries, and goes on after its
// SIGTERM as an app that drains does. Every request is answered: the sidecar outlives the app. A finalizer keeps the
// pod's status for the test to read.
func TestDeletion(t *testing.T) {
	t.Parallel()
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod := workload(t, "orders", "-every=50ms", "-timeout=5s", "-retry=false", "-drain=2s")
	pod["spec"].(object)["terminationGracePeriodSeconds"] = 20
	tmpl := template(t, ns, pod)
	tmpl["metadata"].(object)["finalizers"] = []string{"e2e.invalid/keep"}
	selector := object{"matchLabels": object{"app": "orders"}}
	applyObjects(t, ns, object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": "orders"}, "spec": object{"selector": selector, "template": tmpl}})
	shared.WaitFor(t, ns, "deployment/orders", "condition=Available")
	name := podOf(t, ns)
	t.Cleanup(func() {
		shared.Do(t, "patch", "pod", name, "--namespace", ns, "--type=merge", "--patch", `{"metadata":{"finalizers":null}}`)
	})
	wantIdentity(t, ns, name, "app", clientID)

	began := time.Now()
	shared.Do(t, "delete", "deployment", "orders", "--namespace", ns, "--wait=false")
	var text string
	var code int
	shared.Eventually(t, func() error {
		s := statusOf(t, ns, name)
		var ended bool
		if text, code, ended = s.container(t, "app").message(); !ended {
			return fmt.Errorf("the app has not ended")
		}
		if _, _, ended := s.container(t, "svidecar").message(); !ended {
			return fmt.Errorf("the sidecar has not ended")
		}
		return nil
	})
	t.Logf("ended after %v: status %d, %s", time.Since(began).Round(10*time.Millisecond), code, text)
	var got struct{ Answered, Failed, Drained int }
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatalf("the app left %q: %v", text, err)
	}
	if code != 0 || got.Failed != 0 || got.Drained == 0 {
		t.Errorf("the app ended with status %d, %+v; want status 0, none failed, and some answered after the signal", code, got)
	}
	if _, code, _ := statusOf(t, ns, name).container(t, "svidecar").message(); code != 0 {
		t.Errorf("the sidecar ended with status %d, want 0", code)
	}
}

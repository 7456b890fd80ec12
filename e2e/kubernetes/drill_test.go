//go:build e2e && linux

package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var redirected = map[string]string{"svidecar.io/mode": "redirect"}

// TestDrillUnstarted breaks what the injector wrote, each time in another way, and holds that no container of the app
// is ever made: an app that cannot reach its sidecar must not reach the node's identity.
func TestDrillUnstarted(t *testing.T) {
	shared.Node(t)
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, pod object)
		stuck string // the container that the pod stops at
		code  int
		want  string // what kubectl describe says of it, or its events
	}{
		{"redirection has an unknown flag", func(t *testing.T, pod object) {
			containerOf(t, pod, "initContainers", "svidecar-redirect")["args"] = []string{"redirect", "--methd=nftables"}
		}, "svidecar-redirect", 1, "--methd"},
		{"redirection lacks its capability", func(t *testing.T, pod object) {
			delete(at[object](t, containerOf(t, pod, "initContainers", "svidecar-redirect"), "securityContext", "capabilities"), "add")
		}, "svidecar-redirect", 1, "NET_ADMIN"},
		{"redirection leads to another port", func(t *testing.T, pod object) {
			containerOf(t, pod, "initContainers", "svidecar-redirect")["args"] = []string{"redirect", "--to-port=9999"}
		}, "svidecar", 0, "169.254.169.254"},
		{"sidecar listens on another port", func(t *testing.T, pod object) {
			side := containerOf(t, pod, "initContainers", "svidecar")
			side["env"] = append(side["env"].([]any), object{"name": "SVIDECAR_LISTEN", "value": "127.0.0.1:9000"})
		}, "svidecar", 0, "169.254.169.254"},
		{"sidecar refuses its settings", func(t *testing.T, pod object) {
			side := containerOf(t, pod, "initContainers", "svidecar")
			side["env"] = append(side["env"].([]any), object{"name": "SVIDECAR_TENANT_ID", "value": "common"})
		}, "svidecar", 1, "common"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ns := shared.Namespace(t)
			settle(t, ns)
			pod, _ := injected(t, ns, nil, annotate(workload(t, "orders"), redirected))
			pod["spec"].(object)["restartPolicy"] = "Never"
			at[object](t, containerOf(t, pod, "initContainers", "svidecar"), "startupProbe")["failureThreshold"] = 3
			tt.spoil(t, pod)
			applyObjects(t, ns, pod)

			var stuck containerStatus
			shared.Eventually(t, func() error {
				stuck = statusOf(t, ns, "orders").container(t, tt.stuck)
				if _, _, ended := stuck.message(); !ended {
					return fmt.Errorf("container %s has not ended: %+v", tt.stuck, stuck)
				}
				return nil
			})
			text, code, _ := stuck.message()
			t.Logf("status %d: %s", code, text)
			if code != tt.code {
				t.Errorf("container %s ended with status %d, want %d", tt.stuck, code, tt.code)
			}
			told := text + shared.Do(t, "get", "events", "--namespace", ns, "--field-selector", "reason=Unhealthy", "--output", "jsonpath={.items[*].message}")
			if !strings.Contains(told, tt.want) {
				t.Errorf("it says %q, want %q in it", told, tt.want)
			}
			wantUnstarted(t, statusOf(t, ns, "orders"), "app")
			wantUnstarted(t, statusOf(t, ns, "orders"), "entra") // it stands for the app's own init containers
		})
	}
}

// TestDrillFlushed takes the rules away below a running app. New connections then reach nobody in the pod, and the app
// is told so; before and after it is served. It cannot show that another identity stays out of reach meanwhile: nobody
// but the sidecar answers in this cluster. On a node of Azure the metadata service would.
func TestDrillFlushed(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	pod, _ := injected(t, ns, nil, annotate(workload(t, "orders", "-timeout=2s", "-retry=false"), redirected))
	applyObjects(t, ns, pod)
	shared.WaitReady(t, ns, "pod/orders")
	wantIdentity(t, ns, "orders", "app", clientID)
	side := processOf(t, ns, "orders", "/svidecar serve")
	fresh := func() (string, error) {
		out, err := shared.Exec(t, ns, "orders", "app", "/app", "-once", "-timeout=2s", "-retry=false")
		return strings.TrimSpace(out), err
	}
	if out, err := fresh(); err != nil {
		t.Fatalf("before: %v: %s", err, out)
	}
	inPodNetwork(t, side, "redirect", "--remove")
	if out, err := fresh(); err == nil || !strings.Contains(out, `"error"`) || strings.Contains(out, "appid") {
		t.Errorf("without rules the app is answered %s (%v), want an error", out, err)
	}
	inPodNetwork(t, side, "redirect")
	if out, err := fresh(); err != nil {
		t.Errorf("with the rules again: %v: %s", err, out)
	}
	for line := range strings.Lines(shared.Logs(t, ns, "orders", "-c", "app")) {
		if !strings.Contains(line, `"appid":"`+clientID+`"`) && !strings.Contains(line, `"error"`) {
			t.Errorf("the app was given %s", line)
		}
	}
}

// inPodNetwork runs the pod's own svidecar with root's rights in the pod's network, as who has taken over the node could.
func inPodNetwork(t *testing.T, pid int, args ...string) {
	t.Helper()
	process := "/proc/" + strconv.Itoa(pid)
	cmd := exec.Command("nsenter", append([]string{"--net=" + process + "/ns/net", process + "/root/svidecar"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("svidecar %s in the pod's network: %v: %s", strings.Join(args, " "), err, out)
	}
}

// The bounds on how long an app is without tokens when its sidecar is killed: for most, and for each on a machine that
// is busy. Kubelet looks each second.
const (
	usualGap   = 2 * time.Second
	longestGap = 5 * time.Second
)

// TestDrillKilled kills the sidecar below running apps that ask twenty times a second and never retry, in one pod after
// the other. Each app is refused while the sidecar is away, and is served again as soon as kubelet has started another.
func TestDrillKilled(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	settle(t, ns)
	names := []string{"orders", "invoices", "reports"}
	for _, name := range names {
		pod, _ := injected(t, ns, nil, annotate(workload(t, name, "-every=50ms", "-timeout=1s", "-retry=false"), redirected))
		applyObjects(t, ns, pod)
	}
	var gaps []time.Duration
	for _, name := range names {
		shared.WaitReady(t, ns, "pod/"+name)
		wantIdentity(t, ns, name, "app", clientID)
		gaps = append(gaps, killed(t, ns, name))
	}
	t.Logf("the apps were without tokens for %v", gaps)
	slices.Sort(gaps)
	if usual, most := gaps[len(gaps)/2], gaps[len(gaps)-1]; usual > usualGap || most > longestGap {
		t.Errorf("the apps were without tokens for %v, want %v for most and %v for each", gaps, usualGap, longestGap)
	}
}

// killed kills a pod's sidecar, and gives how long its app was without tokens.
func killed(t *testing.T, namespace, pod string) (gap time.Duration) {
	t.Helper()
	if err := syscall.Kill(processOf(t, namespace, pod, "/svidecar serve"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	shared.Eventually(t, func() (err error) {
		gap, err = refusedFor(shared.Logs(t, namespace, pod, "-c", "app", "--timestamps"))
		return err
	})
	s := statusOf(t, namespace, pod)
	if side, app := s.container(t, "svidecar"), s.container(t, "app"); side.RestartCount != 1 || app.RestartCount != 0 {
		t.Errorf("the sidecar of %s was restarted %d times and the app %d times, want 1 and 0", pod, side.RestartCount, app.RestartCount)
	}
	return gap.Round(time.Millisecond)
}

// refusedFor reads a log with times: how long the app was without tokens, from the last before an error to the first
// after it. It is an error if that is not over. Any line that is neither the identity's token nor an error is one too.
func refusedFor(log string) (time.Duration, error) {
	var last time.Time
	var refused bool
	for l := range strings.Lines(log) {
		stamp, text, _ := strings.Cut(l, " ")
		when, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			return 0, err
		}
		var got struct{ AppID, Error string }
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			return 0, err
		}
		switch {
		case got.Error != "":
			refused = true
		case got.AppID != clientID:
			return 0, fmt.Errorf("the app was given a token of %q", got.AppID)
		case refused:
			return when.Sub(last), nil
		default:
			last = when
		}
	}
	return 0, fmt.Errorf("refused: %v, and not served again", refused)
}

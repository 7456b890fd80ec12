//go:build e2e && linux

package kubernetes_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// podStatus is what the cluster says of a pod.
type podStatus struct {
	Metadata struct{ UID string }
	Status   struct {
		Phase                                    string
		InitContainerStatuses, ContainerStatuses []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	RestartCount      int
	State, LastState  struct {
		Terminated *struct {
			ExitCode int
			Message  string
		}
	}
}

func statusOf(t *testing.T, namespace, pod string) (s podStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(shared.Do(t, "get", "pod", pod, "--namespace", namespace, "--output", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s podStatus) container(t *testing.T, name string) containerStatus {
	t.Helper()
	for _, c := range append(s.Status.InitContainerStatuses, s.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("the pod's status has no container %s", name)
	return containerStatus{}
}

// message is how a container ended, now or before its last restart; ended is false if it has not.
func (c containerStatus) message() (text string, code int, ended bool) {
	for _, t := range []*struct {
		ExitCode int
		Message  string
	}{c.State.Terminated, c.LastState.Terminated} {
		if t != nil {
			return t.Message, t.ExitCode, true
		}
	}
	return "", 0, false
}

// wantUnstarted holds that a container was never made: neither now nor before.
func wantUnstarted(t *testing.T, s podStatus, name string) {
	t.Helper()
	if c := s.container(t, name); c.ContainerID != "" || c.RestartCount != 0 {
		t.Errorf("container %s was started: %+v", name, c)
	}
}

// processOf finds the process of a pod whose command line begins with these words, among those of the node.
func processOf(t *testing.T, namespace, pod, command string) (pid int) {
	t.Helper()
	uid := statusOf(t, namespace, pod).Metadata.UID
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		groups, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(groups), uid) {
			continue // it has ended, or is another's
		}
		dir := filepath.Dir(file)
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err == nil && strings.HasPrefix(strings.ReplaceAll(string(line), "\x00", " "), command+" ") {
			if pid, err = strconv.Atoi(filepath.Base(dir)); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("pod %s has no process %q", pod, command)
	return 0
}

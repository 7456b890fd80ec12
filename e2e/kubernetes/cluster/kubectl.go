//go:build e2e && linux

package cluster

import (
	"bytes"
	"cmp"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience bounds each wait for the cluster to do something.
const patience = 90 * time.Second

// kubectl gives what kubectl prints, or an error with what it complains of.
func (c *Cluster) kubectl(stdin string, args ...string) (stdout string, err error) {
	cmd := exec.Command(c.path("bin", "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// Kubectl runs kubectl, with stdin as its standard input, and gives what it prints. The error holds what it complains of.
func (c *Cluster) Kubectl(t *testing.T, stdin string, args ...string) (stdout string, err error) {
	t.Helper()
	c.need(t)
	return c.kubectl(stdin, args...)
}

// Do is Kubectl where an error ends the test.
func (c *Cluster) Do(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	out, err := c.Kubectl(t, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Namespace makes a namespace for the test, in which pods can be made at once, and has it deleted after the test.
// Labels are NAME=VALUE, such as pod-security.kubernetes.io/enforce=restricted.
func (c *Cluster) Namespace(t *testing.T, labels ...string) (name string) {
	t.Helper()
	c.serial.Lock()
	c.spaces++
	name = fmt.Sprintf("test-%d", c.spaces)
	c.serial.Unlock()
	c.Do(t, "create", "namespace", name)
	if len(labels) > 0 {
		c.Do(t, append([]string{"label", "namespace", name}, labels...)...)
	}
	if !c.node.up { // there is no controller that makes this, and the API server admits no pod without
		c.Do(t, "create", "serviceaccount", "default", "--namespace", name)
		return name
	}
	c.Do(t, "wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")
	t.Cleanup(func() { c.Do(t, "delete", "namespace", name, "--wait=false") })
	return name
}

// Apply makes or changes what the manifest, YAML or JSON, describes.
func (c *Cluster) Apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	if _, err := c.Kubectl(t, manifest, "apply", "--namespace", namespace, "--filename", "-"); err != nil {
		t.Fatal(err)
	}
}

// Logs gives what a pod's containers have printed; flags are kubectl's, such as "-c", "app".
func (c *Cluster) Logs(t *testing.T, namespace, pod string, flags ...string) string {
	t.Helper()
	return c.Do(t, append([]string{"logs", "--namespace", namespace, pod}, flags...)...)
}

// Exec runs a command in a container. The error holds what the command complains of.
func (c *Cluster) Exec(t *testing.T, namespace, pod, container string, command ...string) (stdout string, err error) {
	t.Helper()
	return c.Kubectl(t, "", append([]string{"exec", "--namespace", namespace, pod, "--container", container, "--"}, command...)...)
}

// WaitReady waits until what is named, such as pod/app, is ready. If it is not in time, the test fails and says what
// the cluster knows about it.
func (c *Cluster) WaitReady(t *testing.T, namespace, what string) {
	t.Helper()
	c.WaitFor(t, namespace, what, "condition=Ready")
}

// WaitFor waits for kubectl's --for: condition=Ready, delete, create, or jsonpath='{…}'=VALUE.
func (c *Cluster) WaitFor(t *testing.T, namespace, what, condition string) {
	t.Helper()
	if _, err := c.Kubectl(t, "", "wait", "--namespace", namespace, what, "--for="+condition, "--timeout="+patience.String()); err != nil {
		t.Fatalf("%v\n%s", err, c.story(namespace))
	}
}

// WaitLog waits until a container has printed a line with the text, and gives that line.
func (c *Cluster) WaitLog(t *testing.T, namespace, pod, container, text string) (line string) {
	t.Helper()
	err := poll(func() error {
		out, err := c.kubectl("", "logs", "--namespace", namespace, pod, "--container", container)
		for l := range strings.Lines(out) {
			if strings.Contains(l, text) {
				line = strings.TrimSpace(l)
				return nil
			}
		}
		return cmp.Or(err, errNotYet)
	})
	if err != nil {
		t.Fatalf("container %s of %s has not printed %q: %v\n%s", container, pod, text, err, c.story(namespace))
	}
	return line
}

// Eventually calls try until it gives nil, which it must within a minute and a half: for what the cluster does in its
// own time, and kubectl wait cannot wait for.
func (c *Cluster) Eventually(t *testing.T, try func() error) {
	t.Helper()
	c.need(t)
	if err := poll(try); err != nil {
		t.Fatalf("after %v: %v", patience, err)
	}
}

// poll gives the last error of try, or nil once it gives that.
func poll(try func() error) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline:
			return err
		}
	}
}

// Documents gives the issuer's discovery document and key set, as the API server publishes them.
func (c *Cluster) Documents(t *testing.T) (discovery, keys string) {
	t.Helper()
	return c.Do(t, "get", "--raw", "/.well-known/openid-configuration"), c.Do(t, "get", "--raw", "/openid/v1/jwks")
}

// story is what a person would look at when pods do not run.
func (c *Cluster) story(namespace string) string {
	var out strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--all-containers", "--prefix", "--ignore-errors", "--tail=20", "-l", "!absent"},
	} {
		text, err := c.kubectl("", append([]string{"--namespace", namespace}, args...)...)
		fmt.Fprintf(&out, "--- kubectl %s (%v)\n%s\n", strings.Join(args, " "), err, text)
	}
	fmt.Fprintf(&out, "--- kubelet\n%s\n", tailOf(c.path("log", "kubelet.txt")))
	return out.String()
}

//go:build e2e && linux

package kubernetes_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSealed holds the promise of package cluster: wherever a process of the cluster runs, on the node or in a pod, the
// loopback link is the only one.
func TestSealed(t *testing.T) {
	shared.Node(t)
	ns := shared.Namespace(t)
	shared.Apply(t, ns, `{apiVersion: v1, kind: Pod, metadata: {name: plain}, spec: {terminationGracePeriodSeconds: 1, containers: [
		{name: app, image: "e2e.invalid/app:e2e", imagePullPolicy: Never}]}}`)
	shared.WaitReady(t, ns, "pod/plain")
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob("/proc/[0-9]*/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	pods := map[string]bool{}
	for _, table := range tables {
		links, namespace, err := linksOf(table)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrInvalid) {
			continue // the process has ended
		}
		if err != nil || links != "lo" {
			t.Errorf("%s has the links %q (%v), want lo alone", table, links, err)
		}
		if namespace != own {
			pods[namespace] = true
		}
	}
	if len(pods) == 0 {
		t.Error("no process in a pod's network was seen")
	}
}

// linksOf gives the names of the links in a table of /proc, and the network namespace that it is of.
func linksOf(table string) (links, namespace string, err error) {
	namespace, err = os.Readlink(filepath.Join(filepath.Dir(filepath.Dir(table)), "ns", "net"))
	if err != nil {
		return "", "", err
	}
	data, err := os.ReadFile(table)
	if err != nil {
		return "", "", err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " "), namespace, nil
}

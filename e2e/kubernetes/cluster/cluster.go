//go:build e2e && linux

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	// Issuer signs the service account tokens. Nothing answers at it: see [Cluster.Documents].
	Issuer = "https://issuer.e2e.invalid/cluster"
	// Server is where the API server listens, on the node's own link.
	Server = "https://127.0.0.1:6443"
)

// Cluster is what Main made room for. Its parts start when a test first asks for them, and run until the binary ends.
type Cluster struct {
	dir     string // all state
	cgroup  string // of all pods
	skipped string // why there is no cluster

	api, node stage
	serial    sync.Mutex
	spaces    int // namespaces made
}

// stage is a part that starts once, for all tests.
type stage struct {
	once sync.Once
	up   bool
	err  error
}

// API starts etcd and the API server, unless they run, or skips the test where there can be no cluster. Pods are
// admitted and stored by it, and not run.
func (c *Cluster) API(t *testing.T) {
	t.Helper()
	c.need(t)
	c.reach(t, &c.api, c.startAPI)
}

// Node starts all that runs pods, unless it runs, or skips the test where there can be no cluster.
func (c *Cluster) Node(t *testing.T) {
	t.Helper()
	c.API(t)
	c.reach(t, &c.node, c.startNode)
}

func (c *Cluster) reach(t *testing.T, s *stage, start func() error) {
	t.Helper()
	s.once.Do(func() {
		began := time.Now()
		s.err = start()
		s.up = s.err == nil
		t.Logf("started in %v", time.Since(began).Round(10*time.Millisecond))
	})
	if s.err != nil {
		t.Fatalf("the cluster did not start: %v", s.err)
	}
}

// Kubeconfig is the path of a kubeconfig with all rights.
func (c *Cluster) Kubeconfig() string { return c.path("admin.kubeconfig") }

// Authority is the path of the PEM file of the authority that signed the API server's certificate.
func (c *Cluster) Authority() string { return c.path("pki", "ca.crt") }

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// write writes a file of the cluster's state.
func (c *Cluster) write(name, text string) (path string, err error) {
	path = c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("writing the cluster's state: %w", err)
	}
	return path, nil
}

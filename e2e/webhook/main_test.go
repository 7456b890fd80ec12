//go:build e2e && linux

package webhook_test

import (
	"os"
	"testing"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

var shared *cluster.Cluster

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(cluster.Config{Helm: true}, func(c *cluster.Cluster) int {
		shared = c
		status := m.Run()
		if first != nil {
			first.kill()
		}
		return status
	}))
}

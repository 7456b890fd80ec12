//go:build e2e && linux

package kubernetes_test

import (
	"os"
	"testing"

	"github.com/svidecar/svidecar/e2e/kubernetes/cluster"
)

// shared is the cluster of all tests: each has a namespace of its own in it.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	cfg := cluster.Config{Helm: true, Images: []cluster.Image{
		{Name: "svidecar"},
		{Name: "svidecar-webhook"},
		{Name: "whoami"},
		{Name: "app", Package: "./e2e/kubernetes/app"},
		{Name: "entra", Package: "./e2e/kubernetes/entra"},
	}}
	os.Exit(cluster.Main(cfg, func(c *cluster.Cluster) int {
		shared = c
		return m.Run()
	}))
}

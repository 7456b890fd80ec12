// Package kubernetes owns the tests that run svidecar in pods of a real cluster, and ask a real API server about its
// manifests. It never reaches a cluster that it has not made: see package cluster, below it.
//
// Its tests need Linux, root, and the build tag e2e: make e2e.
package kubernetes

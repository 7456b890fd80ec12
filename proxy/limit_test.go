package proxy_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/svidecar/svidecar/proxy"
)

// TestMemoryIsGivenBackAfterABurst, and only then: two forced collections follow
// the end of a burst, and none follows what is no burst.
func TestMemoryIsGivenBackAfterABurst(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.MaxConnections = 1000 })
	forced := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	openAndClose := func(n int) {
		var conns []net.Conn
		for range n {
			conns = append(conns, dial(t, r.addr))
		}
		get(t, r, imdsTarget, metadata) // the others have been accepted
		for _, conn := range conns {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		get(t, r, imdsTarget, metadata)
	}
	before := forced()
	openAndClose(100)
	if got := forced() - before; got != 0 {
		t.Errorf("%d collections after 100 connections", got)
	}
	openAndClose(300)
	for deadline := time.Now().Add(10 * time.Second); forced()-before < 2; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d collections after a burst of 300 connections, want 2", forced()-before)
		}
	}
}

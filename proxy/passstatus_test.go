package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/proxy"
)

// speaking answers each connection with bytes as they are, and keeps it open.
func speaking(t *testing.T, reply string) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go speak(conn, reply)
		}
	}()
	return l.Addr().String()
}

func speak(conn net.Conn, reply string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	if _, err := http.ReadRequest(r); err != nil {
		return
	}
	if _, err := io.WriteString(conn, reply); err != nil {
		return
	}
	_, _ = r.ReadByte() // until svidecar hangs up
}

// TestPassThroughTakesFinalStatuses: an answer that is none, or that hands the
// connection over, costs neither the 5 s nor a panic.
func TestPassThroughTakesFinalStatuses(t *testing.T) {
	for name, line := range map[string]string{
		"switching protocols": "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x",
		"none":                "000 x\r\nContent-Length: 2",
		"unknown":             "600 x\r\nContent-Length: 2",
		"not modified":        "304 Not Modified",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := speaking(t, "HTTP/1.1 "+line+"\r\n\r\nhi")
			r := start(t, func(cfg *proxy.Config) {
				cfg.PassThrough = proxy.PassThrough{Host: host, Paths: []string{"instance"}}
			})
			began := time.Now()
			got := get(t, r, "/metadata/instance", metadata)
			if took := time.Since(began); got.StatusCode != 503 || !strings.Contains(got.body, "status") || took > 4*time.Second {
				t.Errorf("after %v: %d %s, want 503 at once that says why", took, got.StatusCode, got.body)
			}
			if strings.Contains(r.log.String(), "internal error") {
				t.Error("it panicked")
			}
		})
	}
}

// TestPassThroughPathsHaveNames: what another server might read as a way up, or
// cut off, is not passed on.
func TestPassThroughPathsHaveNames(t *testing.T) {
	m := startMachine(t)
	r := passing(t, m, "instance/compute")
	const below = "/metadata/instance/compute/"
	for _, rest := range []string{"..;/..;/identity/oauth2/token", ".;/x", ".x", "...", "x;y", "x/~y", "x@y", "x:1", "a*", "x/.hidden", "a+b", "$x"} {
		if got := get(t, r, below+rest, metadata); got.StatusCode != 400 {
			t.Errorf("%s: %d %s, want 400", rest, got.StatusCode, got.body)
		}
	}
	if asked := m.targets(); len(asked) > 0 {
		t.Errorf("refused requests got out: %q", asked)
	}
	for _, rest := range []string{"tagsList/0/name", "a-b_c.D/9/"} {
		if got := get(t, r, below+rest, metadata); got.StatusCode != 200 {
			t.Errorf("%s: %d %s", rest, got.StatusCode, got.body)
		}
	}
}

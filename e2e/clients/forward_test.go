//go:build e2e && linux

package clients_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// forwardProxy stands for a company's proxy: it sees what it is sent, and refuses it.
type forwardProxy struct {
	url string

	mu     sync.Mutex
	asked  int
	secret bool // it was sent the apps' secret
}

func newForwardProxy(t *testing.T) *forwardProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &forwardProxy{url: "http://" + l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() }) // the clients have ended, and their connections with them
	return p
}

// serve lets a tunnel through to itself, since what is in it is for the proxy to see
// as well.
func (p *forwardProxy) serve(conn net.Conn) {
	defer conn.Close()
	for r := bufio.NewReader(conn); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		p.mu.Lock()
		p.asked++
		for _, values := range req.Header {
			p.secret = p.secret || slices.Contains(values, secretHeader)
		}
		p.mu.Unlock()
		reply := "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno\n"
		if req.Method == http.MethodConnect {
			reply = "HTTP/1.1 200 OK\r\n\r\n"
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

// variables are those of a machine behind the proxy.
func (p *forwardProxy) variables() []string {
	return []string{"HTTP_PROXY=" + p.url, "http_proxy=" + p.url}
}

// system is how a client is asked for the identity that needs no name.
var system = []string{"system", ""}

func strayIMDS(p *place, _ string) (env, args []string) { return p.forward.variables(), system }

// strayAppService is for the clients that have code for its protocol.
func strayAppService(p *place, name string) (env, args []string) {
	name, _, _ = strings.Cut(name, ",")
	if known, limited := speaks[name]; limited && !slices.Contains(known, "App Service") {
		return nil, nil
	}
	for _, protocol := range protocols {
		if protocol.name == "App Service" {
			env = protocol.env(p.sidecar, "")
		}
	}
	return append(env, p.forward.variables()...), system
}

func strayNot(p *place, name string) (env, args []string) {
	if env, args = strayAppService(p, name); args == nil {
		env, args = strayIMDS(p, name)
	}
	const direct = "127.0.0.1,localhost,169.254.169.254"
	return append(env, "NO_PROXY="+direct, "no_proxy="+direct), args
}

// astray says who was asked: the sidecar, or the proxy.
func (p *place) astray(t *testing.T, c *client) string {
	said := outcome(t, c, unique("proxy"))
	p.forward.mu.Lock()
	defer p.forward.mu.Unlock()
	switch {
	case p.forward.asked == 0:
		return said
	case said != "error":
		return said + ", and asks the proxy"
	case p.forward.secret:
		return "asks the proxy, secret included"
	}
	return "asks the proxy"
}

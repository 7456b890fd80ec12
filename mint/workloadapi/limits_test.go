//go:build unix

package workloadapi_test

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

func TestRequestsAreBounded(t *testing.T) {
	address, _ := start(t, newServer(t, newIssuer(t).config()))
	c := raw(t, address)
	_, err := c.ValidateJWTSVID(withHeader(t.Context()), &workload.ValidateJWTSVIDRequest{Audience: audience, Svid: strings.Repeat("a", 64<<10)})
	checkStatus(t, err, codes.ResourceExhausted, "larger than max")
	ctx := metadata.AppendToOutgoingContext(withHeader(t.Context()), "filler", strings.Repeat("a", 9<<10))
	if err := everyCall(ctx, c)["FetchJWTSVID"]; err == nil {
		t.Error("9 KiB of metadata are taken")
	}
	if _, err := c.FetchJWTSVID(withHeader(t.Context()), &workload.JWTSVIDRequest{Audience: []string{audience}}); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	cfg := newIssuer(t).config()
	cfg.MaxConnections = 4
	most := 4
	if runtime.GOOS == "linux" {
		most = 3 // the share of one user
	}
	address, _ := start(t, newServer(t, cfg))
	var open []net.Conn
	for i := range most {
		c := dial(t, address)
		if c == nil {
			t.Fatalf("connection %d is closed", i)
		}
		open = append(open, c)
	}
	if dial(t, address) != nil {
		t.Errorf("connection %d is served", most)
	}
	for range 3 * most { // each that ends makes room for one
		_ = open[0].Close()
		open = open[1:]
		var c net.Conn
		for end := time.Now().Add(5 * time.Second); c == nil; c = dial(t, address) {
			if time.Now().After(end) {
				t.Fatal("a connection that ended leaves no room")
			}
		}
		open = append(open, c)
	}
	if dial(t, address) != nil {
		t.Errorf("afterwards connection %d is served", most)
	}
}

// dial returns a connection that the server speaks on, or nil.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(address, "unix://"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Write([]byte(preface))
	if err == nil {
		_, err = c.Read(make([]byte, 9)) // the server's settings
	}
	if err != nil {
		_ = c.Close()
		return nil
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// preface is how an HTTP/2 client begins: RFC 9113, section 3.4, with empty
// settings.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/proxy"
)

// probes are docs/protocol.md, "Probes": what each client asks whether a metadata
// service is there, and what it takes for an answer.
var probes = []struct {
	client, request string
	status          int
	says            string
}{
	{"Go and JavaScript", "GET /metadata/identity/oauth2/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 400, missing},
	{"Python", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 400, missing},
	{".NET", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 400, missing},
	{"adal", "GET /metadata/identity/oauth2/token?api-version=2018-02-01 HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 400, missing},
	{"adal, with Metadata", "GET /metadata/identity/oauth2/token?api-version=2018-02-01 HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata + "\r\n", 400, "'resource' is missing"},
	{"AppAuthentication", "GET /metadata/instance?api-version=2020-06-01 HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata + "\r\n", 403, "access_denied"},
	{"AppAuthentication, bare", "GET /metadata/instance?api-version=2020-06-01 HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 400, missing},
	{"IMDSv2, metadata", "GET /metadata/identity/getplatformmetadata?cred-api-version=2.0 HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata + "\r\n", 403, "access_denied"},
	{"IMDSv2, credential", "POST /metadata/identity/issuecredential HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata + "Content-Length: 2\r\n\r\n{}", 403, "access_denied"},
}

const missing = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`

// TestProbesAskNobody: while Entra hangs, and requests hang with it, every probe
// is answered, and none of them leads to a call that could hang.
func TestProbesAskNobody(t *testing.T) {
	r := start(t, nil)
	r.tokens.hold, r.tokens.arrived = make(chan struct{}), make(chan struct{}, 8)
	for range 8 {
		conn := dial(t, r.addr)
		if _, err := io.WriteString(conn, "GET "+imdsTarget+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+metadata+"\r\n"); err != nil {
			t.Fatal(err)
		}
		<-r.tokens.arrived
	}
	for _, p := range probes {
		got := raw(t, r.addr, p.request)
		if got.StatusCode != p.status || !strings.Contains(got.body, p.says) || p.says == missing && got.body != missing {
			t.Errorf("%s: %d %s, want %d that says %s", p.client, got.StatusCode, got.body, p.status, p.says)
		}
		if strings.Contains(got.body, "Identity not found") {
			t.Errorf("%s: .NET takes this for no metadata service: %s", p.client, got.body)
		}
	}
	if n := len(r.tokens.asked()); n != 8 {
		t.Errorf("probes asked for %d tokens", n-8)
	}
	close(r.tokens.hold)
}

// BenchmarkProbe measures each probe over loopback while Entra hangs and as many
// exchanges wait for it as there may be. The clients' own bounds are 0.3 to 2 s.
func BenchmarkProbe(b *testing.B) {
	hang := make(chan struct{})
	tokens := &fakeTokens{hold: hang, arrived: make(chan struct{}, 64)}
	policy, err := proxy.NewPolicy(twoIdentities())
	if err != nil {
		b.Fatal(err)
	}
	s, err := proxy.New(proxy.Config{Tokens: tokens, Policy: policy, Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	l := listenB(b)
	go func() { _ = (&http.Server{Handler: s.Handler()}).Serve(l) }()
	b.Cleanup(func() { close(hang); _ = l.Close() })
	for range 64 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, benchRequest); err != nil {
			b.Fatal(err)
		}
		<-tokens.arrived
	}
	for _, p := range probes {
		b.Run(strings.ReplaceAll(p.client, " ", "-"), func(b *testing.B) {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			reader, took := bufio.NewReader(conn), []time.Duration{}
			for b.Loop() {
				began := time.Now()
				if _, err := io.WriteString(conn, p.request); err != nil {
					b.Fatal(err)
				}
				resp, err := http.ReadResponse(reader, nil)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != p.status {
					b.Fatalf("status %d, %v", resp.StatusCode, err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
	if n := len(tokens.asked()); n != 64 {
		b.Errorf("probes asked for %d tokens", n-64)
	}
}

var _ proxy.Tokens = (*exchange.Source)(nil) // Refresh included

package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

// TestGuardRefuses: docs/protocol.md, "Tolerance" and "Errors". None of these
// may reach the exchange, and each is refused by one check alone: the rest of
// the request is in order.
func TestGuardRefuses(t *testing.T) {
	const good = "Host: 127.0.0.1\r\n" + metadata
	r := start(t, nil)
	for _, tt := range []struct {
		name, request string
		status        int
		says          string
	}{
		// The request target.
		{"absolute form", "GET http://169.254.169.254" + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata, 400, "not a path"},
		{"absolute form, https", "GET https://127.0.0.1" + imdsTarget + " HTTP/1.1\r\n" + good, 400, "not a path"},
		{"authority form", "CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n", 400, "not a path"},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\n" + good, 400, "not a path"},
		{"backslash", `GET /metadata\identity/oauth2/token?resource=a` + " HTTP/1.1\r\n" + good, 400, "backslash"},
		{"encoded backslash", "GET /metadata%5cidentity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "encoded"},
		{"encoded backslash, upper case", "GET /metadata%5Cidentity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "encoded"},
		{"encoded slash", "GET /metadata%2fidentity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "encoded"},
		{"encoded letter", "GET /%6detadata/identity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "encoded"},
		{"encoded dots", "GET /metadata/x/%2e%2e/identity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "encoded"},
		{"dots", "GET /metadata/x/../identity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "dot segment"},
		{"dot", "GET /metadata/./identity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "dot segment"},
		{"leading dots", "GET /../metadata/identity/oauth2/token?resource=a HTTP/1.1\r\n" + good, 400, "dot segment"},
		{"fragment", "GET /metadata/identity/oauth2/token#?resource=a HTTP/1.1\r\n" + good, 400, "no path has"},
		{"not ASCII", "GET /metadata/identity/oauth2/token\xc3\xa4?resource=a HTTP/1.1\r\n" + good, 400, "no path has"},
		// The Host header.
		{"foreign host", "GET " + imdsTarget + " HTTP/1.1\r\nHost: evil.example\r\n" + metadata, 400, "Host"},
		{"foreign host with port", "GET " + imdsTarget + " HTTP/1.1\r\nHost: evil.example:8000\r\n" + metadata, 400, "Host"},
		{"host that begins well", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254.evil.example\r\n" + metadata, 400, "Host"},
		{"host that ends well", "GET " + imdsTarget + " HTTP/1.1\r\nHost: evil.localhost\r\n" + metadata, 400, "Host"},
		{"configured host, another port", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [fd00::2]:82\r\n" + metadata, 400, "Host"},
		{"private address", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 10.0.0.1\r\n" + metadata, 400, "Host"},
		{"all addresses", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 0.0.0.0\r\n" + metadata, 400, "Host"},
		{"empty host", "GET " + imdsTarget + " HTTP/1.1\r\nHost:\r\n" + metadata, 400, "Host"},
		{"no host", "GET " + imdsTarget + " HTTP/1.0\r\n" + metadata, 400, "Host"},
		// Proxies and browsers.
		{"X-Forwarded-For", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "X-Forwarded-For: 10.0.0.1\r\n", 400, "X-Forwarded-For"},
		{"empty X-Forwarded-For", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "x-forwarded-for:\r\n", 400, "X-Forwarded-For"},
		{"Forwarded", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Forwarded: for=10.0.0.1\r\n", 400, "Forwarded"},
		{"Via", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Via: 1.1 proxy\r\n", 400, "Via"},
		{"Origin", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Origin: https://evil.example\r\n", 400, "Origin"},
		{"Origin null", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Origin: null\r\n", 400, "Origin"},
		{"Sec-Fetch-Site", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Sec-Fetch-Site: same-origin\r\n", 400, "Sec-Fetch-Site"},
		{"Sec-Fetch-Dest", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Sec-Fetch-Dest: image\r\n", 400, "Sec-Fetch-Dest"},
		{"Sec-Fetch-User", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Sec-Fetch-User: ?1\r\n", 400, "Sec-Fetch-User"},
		// Bodies.
		{"body", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Content-Length: 1\r\n\r\nx", 400, "body"},
		{"chunked body", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Transfer-Encoding: chunked\r\n\r\n0\r\n", 400, "body"},
		// Authentication.
		{"no Metadata", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400, "Required metadata header not specified"},
		{"Metadata false", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\nMetadata: false\r\n", 400, "Required metadata header not specified"},
		{"Metadata twice", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Metadata: true\r\n", 400, "Required metadata header not specified"},
		{"no secret", "GET " + msiTarget + " HTTP/1.1\r\n" + good, 401, "missing or wrong"},
		{"empty secret", "GET " + msiTarget + " HTTP/1.1\r\n" + good + "X-IDENTITY-HEADER:\r\n", 401, "missing or wrong"},
		{"wrong secret", "GET " + msiTarget + " HTTP/1.1\r\n" + good + "X-IDENTITY-HEADER: " + header + "x\r\n", 401, "missing or wrong"},
		{"secret in another case", "GET " + msiTarget + " HTTP/1.1\r\n" + good + "Secret: " + strings.ToUpper(header) + "\r\n", 401, "missing or wrong"},
		{"one secret right, one wrong", "GET " + msiTarget + " HTTP/1.1\r\n" + good + identity + "Secret: x\r\n", 401, "missing or wrong"},
		{"one secret wrong, one right", "GET " + msiTarget + " HTTP/1.1\r\n" + good + "X-IDENTITY-HEADER: x\r\nSecret: " + header + "\r\n", 401, "missing or wrong"},
		// Methods.
		{"HEAD", "HEAD " + imdsTarget + " HTTP/1.1\r\n" + good, 405, ""},
		{"POST", "POST " + imdsTarget + " HTTP/1.1\r\n" + good + "Content-Length: 0\r\n", 405, "use GET"},
		{"PUT", "PUT " + imdsTarget + " HTTP/1.1\r\n" + good + "Content-Length: 0\r\n", 405, "use GET"},
		{"DELETE", "DELETE " + imdsTarget + " HTTP/1.1\r\n" + good, 405, "use GET"},
		{"OPTIONS", "OPTIONS " + imdsTarget + " HTTP/1.1\r\n" + good, 405, "use GET"},
		{"unknown method", "BREW " + imdsTarget + " HTTP/1.1\r\n" + good, 405, "use GET"},
		{"HEAD on App Service", "HEAD " + msiTarget + " HTTP/1.1\r\n" + good + identity, 405, ""},
		{"DELETE on App Service", "DELETE " + msiTarget + " HTTP/1.1\r\n" + good + identity, 405, "use GET"},
		// Paths.
		{"root", "GET / HTTP/1.1\r\n" + good, 404, "serves"},
		{"longer", "GET /metadata/identity/oauth2/tokenfoo?resource=a HTTP/1.1\r\n" + good, 404, "serves"},
		{"deeper", "GET /metadata/identity/oauth2/token/x?resource=a HTTP/1.1\r\n" + good, 404, "serves"},
		{"instance", "GET /metadata/instance?api-version=2020-06-01 HTTP/1.1\r\n" + good, 403, "--instance-metadata-file"},
		{"health", "GET /readyz HTTP/1.1\r\n" + good, 404, "serves"},
		{"metrics", "GET /metrics HTTP/1.1\r\n" + good, 404, "serves"},
		{"IMDSv2 probe", "GET /metadata/identity/getplatformmetadata HTTP/1.1\r\n" + good, 403, "not served"},
		{"IMDSv2 probe, POST", "POST /metadata/identity/getplatformmetadata HTTP/1.1\r\n" + good + "Content-Length: 2\r\n\r\n{}", 403, "not served"},
		{"IMDSv2 issue with a body", "POST /metadata/identity/issuecredential HTTP/1.1\r\n" + good + "Content-Length: 2\r\n\r\n{}", 403, "not served"},
		{"IMDSv2 issue, GET", "GET /metadata/identity/issuecredential HTTP/1.1\r\n" + good, 403, "not served"},
		{"body on App Service", "GET " + msiTarget + " HTTP/1.1\r\n" + good + identity + "Content-Length: 1\r\n\r\nx", 400, "body"},
		{"IMDSv2 issue", "POST /metadata/identity/issuecredential HTTP/1.1\r\n" + good + "Content-Length: 0\r\n", 403, "not served"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, r.addr, tt.request+"\r\n")
			if got.StatusCode != tt.status || !strings.Contains(got.body, tt.says) {
				t.Fatalf("got %d %s, want %d that says %q", got.StatusCode, got.body, tt.status, tt.says)
			}
			if allow := got.Header.Get("Allow"); (tt.status == 405) != (allow == "GET") {
				t.Errorf("Allow = %q with status %d", allow, tt.status)
			}
			if ct := got.Header.Get("Content-Type"); ct != "application/json; charset=utf-8" || got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("Content-Type %q, Cache-Control %q", ct, got.Header.Get("Cache-Control"))
			}
		})
	}
	if asked := r.tokens.asked(); len(asked) != 0 {
		t.Errorf("refused requests reached the exchange: %v", asked)
	}
}

// TestMissingMetadataBytes: .NET's probe compares the whole reply.
func TestMissingMetadataBytes(t *testing.T) {
	r := start(t, nil)
	for _, target := range []string{"/metadata/identity/oauth2/token", imdsTarget} {
		got := get(t, r, target, "")
		const want = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`
		if got.StatusCode != 400 || got.body != want || got.Status != "400 Bad Request" {
			t.Errorf("GET %s: %s %s, want 400 %s", target, got.Status, got.body, want)
		}
	}
}

// TestToleratesWhatClientsSend: docs/protocol.md, "Tolerance".
func TestToleratesWhatClientsSend(t *testing.T) {
	r := start(t, nil)
	const good = "Host: 127.0.0.1\r\n" + metadata
	const q = "?resource=https://vault.azure.net"
	for _, tt := range []struct{ name, request string }{
		{"plain", "GET " + imdsTarget + " HTTP/1.1\r\n" + good},
		{"trailing slash", "GET /metadata/identity/oauth2/token/" + q + " HTTP/1.1\r\n" + good},
		{"doubled slashes", "GET //metadata//identity/oauth2///token//" + q + " HTTP/1.1\r\n" + good},
		{"upper case", "GET /Metadata/Identity/OAuth2/Token" + q + " HTTP/1.1\r\n" + good},
		{"App Service, upper case and slashes", "GET /MSI/token//" + q + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + identity},
		{"Metadata True", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\nmetadata: True\r\n"},
		{"Content-Type", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Content-Type: application/json\r\n"},
		{"Content-Length 0", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Content-Length: 0\r\n"},
		{"Accept-Encoding", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Accept-Encoding: gzip\r\n"},
		{"encoded resource", "GET /metadata/identity/oauth2/token?resource=https%3A%2F%2Fvault.azure.net HTTP/1.1\r\n" + good},
		{"other parameters", "GET " + imdsTarget + "&authority=x&claims=%7b%7d&xms_cc=cp1&bypass_cache=true&a=b+c HTTP/1.1\r\n" + good},
		{"Node's fetch", "GET " + imdsTarget + " HTTP/1.1\r\n" + good + "Sec-Fetch-Mode: cors\r\n"},
		{"HTTP/1.0", "GET " + imdsTarget + " HTTP/1.0\r\n" + good},
		{"host localhost", "GET " + imdsTarget + " HTTP/1.1\r\nHost: LocalHost:8000\r\n" + metadata},
		{"host 169.254.169.254", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254\r\n" + metadata},
		{"host 169.254.169.254:80", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 169.254.169.254:80\r\n" + metadata},
		{"host 127.1.2.3", "GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.1.2.3:1\r\n" + metadata},
		{"host [::1]", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [::1]\r\n" + metadata},
		{"host [::1]:8000", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [::1]:8000\r\n" + metadata},
		{"configured address", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [fd00::1]:8000\r\n" + metadata},
		{"configured address, no port", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [fd00::1]\r\n" + metadata},
		{"configured host and port", "GET " + imdsTarget + " HTTP/1.1\r\nHost: [fd00::2]:81\r\n" + metadata},
		{"configured host", "GET " + imdsTarget + " HTTP/1.1\r\nHost: sidecar.example:8000\r\n" + metadata},
		{"App Service 2019", "GET " + msiTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + identity},
		{"App Service 2017", "GET /msi/token" + q + "&api-version=2017-09-01&clientid= HTTP/1.1\r\nHost: 127.0.0.1\r\nSecret: " + header + "\r\n"},
		{"App Service, headers mixed", "GET /msi/token" + q + "&api-version=2019-08-01 HTTP/1.1\r\nHost: 127.0.0.1\r\nsecret: " + header + "\r\n"},
		{"App Service, both headers", "GET " + msiTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + identity + "Secret: " + header + "\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, r.addr, tt.request+"\r\n")
			if got.StatusCode != 200 || got.field(t, "access_token") != bearer || got.field(t, "resource") != "https://vault.azure.net" {
				t.Fatalf("got %d %s, want a token", got.StatusCode, got.body)
			}
			if len(got.TransferEncoding) != 0 || got.ContentLength != int64(len(got.body)) || got.Header.Get("Content-Encoding") != "" {
				t.Errorf("reply has Transfer-Encoding %v, Content-Length %d, Content-Encoding %q", got.TransferEncoding, got.ContentLength, got.Header.Get("Content-Encoding"))
			}
		})
	}
}

func TestSecretUnset(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.IdentityHeader = secret.Value{} })
	for _, headers := range []string{"", "X-IDENTITY-HEADER:\r\n", identity} {
		if got := get(t, r, msiTarget, headers); got.StatusCode != 401 || !strings.Contains(got.body, "--identity-header-file") {
			t.Errorf("with %q: %d %s, want 401 that names the setting", headers, got.StatusCode, got.body)
		}
	}
}

func TestRequireAPIVersion(t *testing.T) {
	const bare = "?resource=https://vault.azure.net"
	lax, strict := start(t, nil), start(t, func(cfg *proxy.Config) { cfg.RequireAPIVersion = true })
	for _, tt := range []struct {
		name            string
		r               *running
		target, headers string
		status          int
	}{
		{"strict, none", strict, "/metadata/identity/oauth2/token" + bare, metadata, 400},
		{"strict, given", strict, imdsTarget, metadata, 200},
		{"strict, App Service", strict, "/msi/token" + bare, identity, 200},
		{"lax, none", lax, "/metadata/identity/oauth2/token" + bare, metadata, 200},
	} {
		if got := get(t, tt.r, tt.target, tt.headers); got.StatusCode != tt.status {
			t.Errorf("%s: %d %s, want %d", tt.name, got.StatusCode, got.body, tt.status)
		}
	}
}

// TestHTTP10EndsTheConnection: what an HTTP/1.0 request calls its chunks would
// be read as another request.
func TestHTTP10EndsTheConnection(t *testing.T) {
	r := start(t, nil)
	conn := dial(t, r.addr)
	const inner = "GET " + imdsTarget + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + metadata + "\r\n"
	if _, err := io.WriteString(conn, "GET /x HTTP/1.0\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"+inner); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(conn); strings.Contains(string(all), bearer) || !strings.Contains(string(all), " 404 ") {
		t.Errorf("got %s, %v; want one 404", all, err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.MaxConnections = 2 })
	one, two := dial(t, r.addr), dial(t, r.addr)
	ask := func(conn net.Conn) error {
		if _, err := io.WriteString(conn, "GET "+imdsTarget+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+metadata+"\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	for _, conn := range []net.Conn{one, two} {
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
	}
	three := dial(t, r.addr)
	served := make(chan error, 1)
	go func() { served <- ask(three) }()
	select {
	case err := <-served:
		t.Fatalf("a third connection was served beside two: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Errorf("the third connection, once there was room: %v", err)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	r := start(t, func(cfg *proxy.Config) { cfg.MaxRequests = 5 })
	r.tokens.hold, r.tokens.arrived = make(chan struct{}), make(chan struct{}, 5)
	replies := make(chan int, 5)
	for range 5 {
		go func() { replies <- get(t, r, imdsTarget, metadata).StatusCode }()
	}
	for range 5 {
		<-r.tokens.arrived
	}
	if got := get(t, r, imdsTarget, metadata); got.StatusCode != 429 || got.Header.Get("Retry-After") != "1" || !strings.Contains(got.body, "--max-requests") {
		t.Errorf("the sixth request: %d %s, want 429", got.StatusCode, got.body)
	}
	close(r.tokens.hold)
	for range 5 {
		if status := <-replies; status != 200 {
			t.Errorf("a request within the bound: %d", status)
		}
	}
	if got := get(t, r, imdsTarget, metadata); got.StatusCode != 200 {
		t.Errorf("once there was room: %d %s", got.StatusCode, got.body)
	}
}

func TestHeadersAreBounded(t *testing.T) {
	r := start(t, nil)
	if got := get(t, r, imdsTarget, metadata+"X: "+strings.Repeat("x", 64<<10)+"\r\n"); got.StatusCode != 431 {
		t.Errorf("64 KiB of headers: %d, want 431", got.StatusCode)
	}
}

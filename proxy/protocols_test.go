package proxy_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/proxy"
)

// startAll serves every protocol.
func startAll(t *testing.T, change func(*proxy.Config)) *running {
	t.Helper()
	return start(t, func(cfg *proxy.Config) {
		cfg.Protocols = imds.Protocols()
		cfg.ArcTokensDir = t.TempDir()
		if change != nil {
			change(cfg)
		}
	})
}

const form = "Content-Type: application/x-www-form-urlencoded\r\n"

// post sends a form to the path of Cloud Shell's protocol.
func post(t *testing.T, r *running, target, headers, body string) reply {
	t.Helper()
	return raw(t, r.addr, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", target, headers, len(body), body))
}

// secure is raw over TLS, for the client that trusts the certificate.
func secure(t *testing.T, r *running, request string) reply {
	t.Helper()
	leaf, err := x509.ParseCertificate(r.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	conn, err := tls.Dial("tcp", r.fabric, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got == "h2" {
		t.Fatal("HTTP/2 is spoken, which has other ways to say host and path")
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, string(body)}
}

// TestProtocolsAreSwitchedOn: what is not named is not served, and says so with
// a status that no client retries.
func TestProtocolsAreSwitchedOn(t *testing.T) {
	none := start(t, func(cfg *proxy.Config) { cfg.Protocols = []imds.Protocol{imds.CloudShell} })
	for target, headers := range map[string]string{imdsTarget: metadata, msiTarget: identity} {
		if got := get(t, none, target, headers); got.StatusCode != 400 || !strings.Contains(got.body, "not switched on") {
			t.Errorf("%s: %d %s, want 400 that says so", target, got.StatusCode, got.body)
		}
	}
	if got := get(t, none, imdsTarget, ""); got.StatusCode != 400 || !strings.Contains(got.body, "Required metadata header not specified") {
		t.Errorf("the probe of a protocol that is off: %d %s", got.StatusCode, got.body)
	}
	usual := start(t, nil)
	if got := post(t, usual, "/msi/token", metadata+form, "resource=a"); got.StatusCode != 405 || got.Header.Get("Allow") != "GET" {
		t.Errorf("POST without Cloud Shell: %d, Allow %q; want 405, GET", got.StatusCode, got.Header.Get("Allow"))
	}
	for name, got := range map[string]reply{
		"GET":  get(t, usual, "/oauth2/token?resource=a", metadata),
		"POST": post(t, usual, "/oauth2/token", metadata+form, "resource=a"),
	} {
		if got.StatusCode != 400 || !strings.Contains(got.body, "not switched on") {
			t.Errorf("%s on Cloud Shell's own path, without it: %d %s, want 400 that says so", name, got.StatusCode, got.body)
		}
	}
	for _, r := range []*running{none, usual} {
		if keys := r.tokens.asked(); len(keys) > 0 {
			t.Errorf("a protocol that is off asked for %v", keys)
		}
	}
}

// TestAzureML: App Service's requests by another name; with both, one of them
// counts, so that a request has one reading.
func TestAzureML(t *testing.T) {
	alone := start(t, func(cfg *proxy.Config) { cfg.Protocols = []imds.Protocol{imds.AzureML} })
	target := "/msi/token?api-version=2017-09-01&resource=https://vault.azure.net&clientid="
	for _, r := range []struct {
		*running
		as string
	}{{alone, "azureml"}, {startAll(t, nil), "appservice"}} {
		if got := get(t, r.running, target, "Secret: wrong\r\n"); got.StatusCode != 401 {
			t.Errorf("%s, wrong secret: %d %s", r.as, got.StatusCode, got.body)
		}
		if got := get(t, r.running, target, metadata); got.StatusCode != 401 {
			t.Errorf("%s, Metadata in place of the secret: %d %s", r.as, got.StatusCode, got.body)
		}
		if got := get(t, r.running, target+second, "secret: "+header+"\r\n"); got.StatusCode != 200 || got.field(t, "client_id") != second {
			t.Errorf("%s: %d %s", r.as, got.StatusCode, got.body)
		}
		r.stop()
		<-r.ended
		r.ended <- nil
		for _, line := range r.log.lines(t) {
			if line["protocol"] != r.as {
				t.Errorf("counted as %v, want %s", line["protocol"], r.as)
			}
		}
	}
}

// TestCloudShellRefuses: docs/protocol.md, "Requests". Each row is refused by
// one rule.
func TestCloudShellRefuses(t *testing.T) {
	r := startAll(t, nil)
	const target, good = "/msi/token", "resource=https://vault.azure.net"
	for _, tt := range []struct {
		name, target, headers, body string
		status                      int
		says                        string
	}{
		{"no Metadata", target, form, good, 400, "Required metadata header"},
		{"the secret in its place", target, form + identity, good, 400, "Required metadata header"},
		{"Metadata twice", target, form + metadata + metadata, good, 400, "Required metadata header"},
		{"forwarded", target, form + metadata + "Via: x\r\n", good, 400, "Via"},
		{"a browser", target, form + metadata + "Origin: null\r\n", good, 400, "Origin"},
		{"no type", target, metadata, good, 400, "Content-Type"},
		{"two types", target, form + form + metadata, good, 400, "Content-Type"},
		{"JSON", target, metadata + "Content-Type: application/json\r\n", `{"resource":"a"}`, 400, "not a form"},
		{"multipart", target, metadata + "Content-Type: multipart/form-data; boundary=x\r\n", "--x--", 400, "not a form"},
		{"a type that is none", target, metadata + "Content-Type: ;\r\n", good, 400, "not a form"},
		{"compressed", target, metadata + form + "Content-Encoding: gzip\r\n", good, 400, "Content-Encoding"},
		{"nothing", target, metadata + form, "", 400, "'resource' is missing"},
		{"resource in the query", target + "?resource=a", metadata + form, "", 400, "in the query"},
		{"resource in both", target + "?resource=https://vault.azure.net", metadata + form, good, 400, "in the query"},
		{"selector in the query", target + "?client_id=" + second, metadata + form, good, 400, "in the query"},
		{"resource twice", target, metadata + form, good + "&" + good, 400, "repeated"},
		{"too long", target, metadata + form, good + "&x=" + strings.Repeat("x", 16<<10), 400, "16 KiB"},
		{"unknown identity", target, metadata + form, good + "&client_id=" + tenant, 400, "Identity not found"},
		{"not allowed", target, metadata + form, "resource=https://graph.microsoft.com&client_id=" + second, 403, "allowed-resources"},
		{"on the IMDS path", "/metadata/identity/oauth2/token", metadata + form, good, 405, "use GET"},
		{"deeper", target + "/x", metadata + form, good, 404, "serves"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := post(t, r, tt.target, tt.headers, tt.body); got.StatusCode != tt.status || !strings.Contains(got.body, tt.says) {
				t.Errorf("got %d %s, want %d that says %q", got.StatusCode, got.body, tt.status, tt.says)
			}
		})
	}
	for name, request := range map[string]string{
		"malformed chunks": "POST /msi/token HTTP/1.1\r\nHost: localhost\r\n" + metadata + form + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.0 chunks":  "POST /msi/token HTTP/1.0\r\nHost: localhost\r\n" + metadata + form + "Transfer-Encoding: chunked\r\n\r\na\r\nresource=a\r\n0\r\n\r\n",
		"endless chunks":   "POST /msi/token HTTP/1.1\r\nHost: localhost\r\n" + metadata + form + "Transfer-Encoding: chunked\r\n\r\n8000\r\n" + strings.Repeat("x", 0x8000) + "\r\n0\r\n\r\n",
	} {
		if got := raw(t, r.addr, request); got.StatusCode != 400 {
			t.Errorf("%s: %d %s, want 400", name, got.StatusCode, got.body)
		}
	}
	if got := raw(t, r.addr, "PUT /msi/token HTTP/1.1\r\nHost: localhost\r\n"+metadata+"Content-Length: 0\r\n\r\n"); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, POST" {
		t.Errorf("PUT: %d, Allow %q; want 405, GET and POST", got.StatusCode, got.Header.Get("Allow"))
	}
	if keys := r.tokens.asked(); len(keys) > 0 {
		t.Errorf("refused requests reached the exchange: %v", keys)
	}
}

func TestCloudShell(t *testing.T) {
	r := startAll(t, nil)
	for name, got := range map[string]reply{
		"whole":             post(t, r, "/msi/token", metadata+form, "resource=https%3A%2F%2Fvault.azure.net"),
		"slashes and case":  post(t, r, "//MSI/token/", metadata+form, "resource=https%3A%2F%2Fvault.azure.net"),
		"character set":     post(t, r, "/msi/token", metadata+"Content-Type: Application/X-WWW-Form-URLEncoded; charset=utf-8\r\n", "Resource=https%3A%2F%2Fvault.azure.net"),
		"version in query":  post(t, r, "/msi/token?api-version=1", metadata+form, "resource=https%3A%2F%2Fvault.azure.net"),
		"chunked":           raw(t, r.addr, "POST /msi/token HTTP/1.1\r\nHost: localhost\r\n"+metadata+form+"Transfer-Encoding: chunked\r\n\r\n9\r\nresource=\r\n17\r\nhttps://vault.azure.net\r\n0\r\n\r\n"),
		"its own path":      post(t, r, "/oauth2/token", metadata+form, "resource=https%3A%2F%2Fvault.azure.net"),
		"some other secret": post(t, r, "/msi/token", metadata+form+"Secret: x\r\n", "resource=https%3A%2F%2Fvault.azure.net"),
	} {
		if got.StatusCode != 200 || got.field(t, "access_token") != bearer || got.field(t, "resource") != "https://vault.azure.net" {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.body)
		}
	}
	for _, tt := range []struct{ name, selector, echo string }{
		{"client id", "client_id=" + second, "client_id"}, {"object id", "object_id=" + objectID, "object_id"}, {"resource id", "msi_res_id=" + resourceID, "msi_res_id"},
	} {
		got := post(t, r, "/msi/token", metadata+form, "resource=https%3A%2F%2Fvault.azure.net&"+tt.selector)
		if _, want, _ := strings.Cut(tt.selector, "="); got.StatusCode != 200 || got.field(t, tt.echo) != want {
			t.Errorf("%s: %d %s", tt.name, got.StatusCode, got.body)
		}
	}
}

// TestCloudShellByGET: as Java's clients ask, which is read at the path of Cloud
// Shell's own alone. On the other path GET is App Service's, and takes the secret.
func TestCloudShellByGET(t *testing.T) {
	r := startAll(t, nil)
	const target = "/oauth2/token?resource=https%3A%2F%2Fvault.azure.net"
	for _, tt := range []struct {
		name, target, headers string
		status                int
		says                  string
	}{
		{"no Metadata", target, "", 400, "Required metadata header"},
		{"the secret in its place", target, identity, 400, "Required metadata header"},
		{"forwarded", target, metadata + "Via: x\r\n", 400, "Via"},
		{"a body", target, metadata + form + "Content-Length: 1\r\n\r\nx", 400, "has a body"},
		{"no resource", "/oauth2/token", metadata, 400, "'resource' is missing"},
		{"resource twice", target + "&resource=a", metadata, 400, "repeated"},
		{"unknown identity", target + "&client_id=" + tenant, metadata, 400, "Identity not found"},
		{"the other path", "/msi/token?resource=a", metadata, 401, "IDENTITY_HEADER"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := get(t, r, tt.target, tt.headers); got.StatusCode != tt.status || !strings.Contains(got.body, tt.says) {
				t.Errorf("got %d %s, want %d that says %q", got.StatusCode, got.body, tt.status, tt.says)
			}
		})
	}
	if got := raw(t, r.addr, "PUT /oauth2/token HTTP/1.1\r\nHost: localhost\r\n"+metadata+"Content-Length: 0\r\n\r\n"); got.StatusCode != 405 || got.Header.Get("Allow") != "GET, POST" {
		t.Errorf("PUT: %d, Allow %q; want 405, GET and POST", got.StatusCode, got.Header.Get("Allow"))
	}
	if keys := r.tokens.asked(); len(keys) > 0 {
		t.Errorf("refused requests reached the exchange: %v", keys)
	}
	got := get(t, r, target+"&client_id="+second, metadata+"ContentType: application/x-www-form-urlencoded\r\n")
	if got.StatusCode != 200 || got.field(t, "access_token") != bearer || got.field(t, "client_id") != second {
		t.Errorf("as msal4j asks: %d %s", got.StatusCode, got.body)
	}
	r.stop()
	<-r.ended
	r.ended <- nil
	if lines := r.log.lines(t); lines[len(lines)-1]["protocol"] != "cloudshell" {
		t.Errorf("counted as %v", lines[len(lines)-1]["protocol"])
	}
}

// TestServiceFabric: HTTPS, the secret, and the selectors of .NET.
func TestServiceFabric(t *testing.T) {
	r := startAll(t, nil)
	const line, host = "GET " + imdsTarget, " HTTP/1.1\r\nHost: localhost:2377\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"no secret", line + host, 401},
		{"Metadata in its place", line + host + metadata, 401},
		{"wrong secret", line + host + "Secret: " + header + "x\r\n", 401},
		{"forwarded", line + host + identity + "X-Forwarded-For: ::1\r\n", 400},
		{"another host", line + " HTTP/1.1\r\nHost: fabric.example\r\n" + identity, 400},
		{"a body", line + host + identity + "Content-Length: 1\r\n\r\nx", 400},
		{"App Service's path", "GET " + msiTarget + host + identity, 404},
		{"beside the token", "GET /metadata/identity/info" + host + metadata + identity, 404},
		{"POST", "POST " + imdsTarget + host + identity + "Content-Length: 0\r\n", 405},
		{"preview", "GET /metadata/identity/oauth2/token?api-version=2019-07-01-preview&resource=https://vault.azure.net" + host + "Secret: " + header + "\r\n", 200},
		{"as .NET asks", "GET /metadata/identity/oauth2/token?api-version=2020-05-01&resource=https://vault.azure.net&principalId=" + objectID + host + "secret: " + header + "\r\n", 200},
		{"the other header", line + host + identity, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := secure(t, r, tt.request+"\r\n")
			if got.StatusCode != tt.status {
				t.Errorf("got %d %s, want %d", got.StatusCode, got.body, tt.status)
			}
			if strings.Contains(tt.request, "principalId") && got.field(t, "object_id") != objectID {
				t.Errorf("the selector is not echoed: %s", got.body)
			}
		})
	}
	// Plain HTTP there is no protocol of ours: net/http answers it, in text.
	if got := raw(t, r.fabric, line+host+identity+"\r\n"); got.StatusCode != 400 || strings.Contains(got.body, bearer) {
		t.Errorf("plain HTTP: %d %s", got.StatusCode, got.body)
	}
}

func TestCertificate(t *testing.T) {
	one, err := proxy.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	two, err := proxy.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	if len(proxy.Thumbprint(one)) != 40 || proxy.Thumbprint(one) == proxy.Thumbprint(two) {
		t.Errorf("thumbprints %q and %q, want two of 40 digits", proxy.Thumbprint(one), proxy.Thumbprint(two))
	}
	leaf, err := x509.ParseCertificate(one.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Error("the certificate vouches for others")
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

func TestProtocolConfigRefuses(t *testing.T) {
	for name, change := range map[string]func(*proxy.Config){
		"Service Fabric without secret": func(c *proxy.Config) {
			c.Protocols, c.IdentityHeader = []imds.Protocol{imds.ServiceFabric}, secret.Value{}
		},
		"Arc without directory": func(c *proxy.Config) { c.Protocols = []imds.Protocol{imds.Arc} },
		"none that there is":    func(c *proxy.Config) { c.Protocols = []imds.Protocol{0} },
	} {
		cfg := proxy.Config{Tokens: &fakeTokens{}, Policy: policy(t, twoIdentities()), Logger: quiet(), IdentityHeader: secret.New(header)}
		change(&cfg)
		if _, err := proxy.New(cfg); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}

// TestRefreshReachesTheExchange: a client that was refused with a token says so
// on every protocol.
func TestRefreshReachesTheExchange(t *testing.T) {
	const digest = "&token_sha256_to_refresh=0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"
	r := startAll(t, nil)
	get(t, r, imdsTarget+digest, metadata)
	get(t, r, msiTarget+"&bypass_cache=true", identity)
	post(t, r, "/msi/token", metadata+form, "resource=a"+digest)
	get(t, r, imdsTarget+"&bypass_cache=no", metadata)
	get(t, r, imdsTarget+"&token_sha256_to_refresh=0", metadata)
	want := []string{strings.ToLower(digest[25:]), "", strings.ToLower(digest[25:])}
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	if got := r.tokens.unwanted; strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("Refresh was asked with %q, want %q", got, want)
	}
}

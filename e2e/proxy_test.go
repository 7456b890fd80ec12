package e2e_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
)

// forwardProxy is a company's proxy: it tunnels to the hosts that it knows, says
// no to everything else, and notes all it was asked.
type forwardProxy struct {
	*httptest.Server
	tunnels map[string]string // from host:port to where it really is

	mu   sync.Mutex
	seen []string
}

func newForwardProxy(t *testing.T, tunnels map[string]string) *forwardProxy {
	t.Helper()
	p := &forwardProxy{tunnels: tunnels}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *forwardProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.Host)
	p.mu.Unlock()
	address, ok := p.tunnels[r.Host]
	if r.Method != http.MethodConnect || !ok {
		http.Error(w, "not through this proxy", http.StatusForbidden)
		return
	}
	far, err := net.Dial("tcp", address)
	if err != nil {
		http.Error(w, "no way", http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(far, buffered)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}

// asked is what came through, each once.
func (p *forwardProxy) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.seen)
	slices.Sort(all)
	return slices.Compact(all)
}

// variables are those by which programs are told of the proxy.
func (p *forwardProxy) variables() []string {
	var env []string
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
		env = append(env, name+"="+p.URL)
	}
	return env
}

// TestProxyVariables: what dev sets keeps an app's requests, and the secret in
// them, from the proxy that everything else of the app's goes through.
func TestProxyVariables(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{roleAppService, roleIMDS} {
		t.Run(role, func(t *testing.T) {
			proxy := newForwardProxy(t, nil)
			cmd := exec.CommandContext(t.Context(), program, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--", self)
			cmd.Env = append(append(os.Environ(), proxy.variables()...), clientRole+"="+role)
			cmd.Stderr = t.Output()
			out, err := cmd.Output()
			if want := "https://client-" + role + ".example\n"; err != nil || string(out) != want {
				t.Errorf("the app printed %q, %v; want %q", out, err, want)
			}
			if got := proxy.asked(); got != nil {
				t.Errorf("the proxy was asked for %q", got)
			}
		})
	}
	// The control: without NO_PROXY the same app does go to the proxy.
	t.Run("without NO_PROXY", func(t *testing.T) {
		proxy := newForwardProxy(t, nil)
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(append(os.Environ(), proxy.variables()...), clientRole+"="+roleIMDS, "AZURE_POD_IDENTITY_AUTHORITY_HOST="+sidecar.url)
		var failed *exec.ExitError
		if out, err := cmd.Output(); !errors.As(err, &failed) {
			t.Errorf("the app printed %q, %v; want it to fail", out, err)
		}
		if diff := cmp.Diff([]string{"GET 169.254.169.254"}, proxy.asked()); diff != "" {
			t.Errorf("the proxy was asked for (-want +got):\n%s", diff)
		}
	})
}

// TestCurlAndProxyVariables does the same with a client that, unlike Go's, sends
// loopback requests to a proxy too.
func TestCurlAndProxyVariables(t *testing.T) {
	for _, needed := range []string{"curl", "sh"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skip(err)
		}
	}
	proxy := newForwardProxy(t, nil)
	run := func(script string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--", "sh", "-c", script)
		cmd.Env = append(os.Environ(), proxy.variables()...)
		cmd.Stderr = t.Output()
		out, err := cmd.Output()
		return string(out), err
	}
	const request = `curl -sS -H "X-IDENTITY-HEADER: $IDENTITY_HEADER" "$IDENTITY_ENDPOINT?api-version=2019-08-01&resource=https://curl.example"`
	if out, err := run(request); err != nil || !strings.Contains(out, `"access_token":"`) {
		t.Errorf("curl printed %q, %v; want a token", out, err)
	}
	if got := proxy.asked(); got != nil {
		t.Errorf("the proxy was asked for %q", got)
	}
	if out, err := run("unset NO_PROXY no_proxy; " + request); err != nil || !strings.Contains(out, "not through this proxy") {
		t.Errorf("without NO_PROXY curl printed %q, %v; want the proxy's reply", out, err)
	}
	if got := proxy.asked(); len(got) != 1 {
		t.Errorf("without NO_PROXY the proxy was asked for %q, want one request", got)
	}
}

// TestHTTPSProxyToEntra puts Entra where only a proxy finds it.
func TestHTTPSProxyToEntra(t *testing.T) {
	const name = "login.example"
	dir := t.TempDir()
	keyFile, caFile := filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	cloud, err := emulation.Start(emulation.Config{KeyFile: keyFile, Entra: entratest.Config{Hosts: []string{name}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	if err := os.WriteFile(caFile, cloud.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	real := strings.TrimPrefix(cloud.Entra.URL(), "https://")
	_, port, err := net.SplitHostPort(real)
	if err != nil {
		t.Fatal(err)
	}
	entra := net.JoinHostPort(name, port)
	settings := []string{
		"SVIDECAR_AUTHORITY_HOST=https://" + entra + "/", "SVIDECAR_AUTHORITY_CA_FILE=" + caFile,
		"SVIDECAR_SOURCE=local", "SVIDECAR_ISSUER=" + cloud.Issuer, "SVIDECAR_SUBJECT=" + emulation.Subject, "SVIDECAR_KEY_FILE=" + keyFile,
		"SVIDECAR_CLIENT_ID=" + cloud.ClientID, "SVIDECAR_TENANT_ID=" + cloud.TenantID,
	}
	through := []string{"CONNECT " + entra}

	t.Run("token", func(t *testing.T) {
		proxy := newForwardProxy(t, map[string]string{entra: real})
		cmd := exec.CommandContext(t.Context(), program, "token", "--resource", "https://proxied.example")
		cmd.Env = append(append(os.Environ(), settings...), proxy.variables()...)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), cloud.ClientID) {
			t.Errorf("token printed %q, %v", out, err)
		}
		if diff := cmp.Diff(through, proxy.asked()); diff != "" {
			t.Errorf("the proxy was asked for (-want +got):\n%s", diff)
		}
	})
	t.Run("serve", func(t *testing.T) {
		proxy := newForwardProxy(t, map[string]string{entra: real})
		ops := freeAddress(t)
		env := slices.Concat(settings, proxy.variables(), []string{"SVIDECAR_LISTEN=" + freeAddress(t), "SVIDECAR_OPS_LISTEN=" + ops})
		p, err := start(`"msg":"serving"`, env, "serve")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.end(); err != nil {
				t.Error(err)
			}
		}()
		wait := exec.CommandContext(t.Context(), program, "wait", "--ops-listen", ops)
		wait.Env = append(os.Environ(), proxy.variables()...)
		if out, err := wait.CombinedOutput(); err != nil {
			t.Errorf("wait: %v: %s", err, out)
		}
		if got := proxy.asked(); got != nil {
			t.Errorf("before any request the proxy was asked for %q", got)
		}
		url := "http://" + env[len(env)-2][len("SVIDECAR_LISTEN="):]
		resp := get(t, redirectedTo(url, nil), "https://proxied.example")
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the sidecar replied %s", resp.Status)
		}
		if diff := cmp.Diff(through, proxy.asked()); diff != "" {
			t.Errorf("the proxy was asked for (-want +got):\n%s", diff)
		}
	})
	t.Run("proxy says no", func(t *testing.T) {
		proxy := newForwardProxy(t, nil)
		cmd := exec.CommandContext(t.Context(), program, "token", "--resource", "https://proxied.example")
		cmd.Env = append(append(os.Environ(), settings...), proxy.variables()...)
		var failed *exec.ExitError
		if out, err := cmd.CombinedOutput(); !errors.As(err, &failed) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("token printed %q, %v; want one line that says why", out, err)
		} else {
			t.Logf("it said: %s", out)
		}
	})
}

// freeAddress is an address that nothing listens on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get asks for a token as curl would on a virtual machine.
func get(t *testing.T, client *http.Client, resource string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+imdsHost+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// imdsHost is where IMDS clients go. It stands for a real service on many
	// machines: see redirected, which keeps every client here from reaching it.
	imdsHost = "169.254.169.254:80"
	// prompt is how soon an error that no retry can mend must reach the app.
	prompt = 2 * time.Second
	// clientRole makes the test binary an app of its own: see client_test.go.
	clientRole = "E2E_CLIENT"
)

var (
	program string   // the built svidecar
	sidecar *process // `svidecar dev`, which all tests share
	serial  atomic.Int64
)

func TestMain(m *testing.M) {
	if role := os.Getenv(clientRole); role != "" {
		os.Exit(runClient(role))
	}
	scrub()
	os.Exit(run(m))
}

// misleading matches variables by which a developer's machine would change
// what clients or the program do.
var misleading = regexp.MustCompile(`(?i)^(AZURE_|ARM_|MSI_|MSAL_|IDENTITY_|IMDS_|SVIDECAR_|APPSETTING_|DEFAULT_IDENTITY_)|^(https?|all|no)_proxy$`)

func scrub() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); misleading.MatchString(name) {
			_ = os.Unsetenv(name)
		}
	}
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "svidecar-e2e-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "svidecar")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	build := exec.Command("go", "build", "-o", program, "../cmd/svidecar")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return complain(fmt.Errorf("%v: %w", build, err))
	}
	sidecar, err = startDev()
	if err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := sidecar.end(); err != nil {
		return complain(err)
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// process is a running svidecar.
type process struct {
	cmd    *exec.Cmd
	drain  sync.WaitGroup
	mu     sync.Mutex
	output bytes.Buffer // what it has written to standard error

	url      string // of the token listener
	endpoint string // IDENTITY_ENDPOINT
	header   string // IDENTITY_HEADER
	controls string // of its emulator
	health   string
	clientID string
	tenant   string
}

// start runs svidecar with the variables, and returns once a line of its
// standard error holds ready.
func start(ready string, env []string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	seen := make(chan bool, 1)
	p.drain.Go(func() { p.read(stderr, ready, seen) })
	select {
	case ok := <-seen:
		if ok {
			return p, nil
		}
		return nil, fmt.Errorf("%v ended before it was ready: %w\n%s", p.cmd, p.wait(), p.log())
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		return nil, fmt.Errorf("%v was not ready in time: %w\n%s", p.cmd, p.wait(), p.log())
	}
}

func (p *process) read(stderr io.Reader, ready string, seen chan<- bool) {
	lines := bufio.NewScanner(stderr)
	for announced := false; lines.Scan(); {
		p.mu.Lock()
		p.output.Write(append(lines.Bytes(), '\n'))
		p.mu.Unlock()
		if !announced && strings.Contains(lines.Text(), ready) {
			announced = true
			seen <- true
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // a line too long for the scanner must not block the program
	select {
	case seen <- false:
	default:
	}
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func (p *process) wait() error {
	p.drain.Wait()
	return p.cmd.Wait()
}

// end asks the process to end, and wants it to do so in order and soon.
func (p *process) end() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		_ = p.cmd.Process.Kill() // Windows has no such signal, and then no status to judge
		_ = p.wait()
		return nil
	}
	stuck := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer stuck.Stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("%v, asked to end by SIGTERM: %w\n%s", p.cmd, err, p.log())
	}
	return nil
}

func startDev(args ...string) (*process, error) {
	args = append([]string{"dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)
	p, err := start("Ctrl-C ends it", nil, args...)
	if err != nil {
		return nil, err
	}
	if err := p.readGuide(); err != nil {
		_ = p.end()
		return nil, err
	}
	return p, nil
}

// readGuide takes from what dev prints what a person would.
func (p *process) readGuide() error {
	for pattern, to := range map[string]*string{
		`AZURE_POD_IDENTITY_AUTHORITY_HOST(?:=| = ')(http://[^\s']+)`: &p.url,
		`IDENTITY_ENDPOINT(?:=| = ')(http://[^\s']+)`:                 &p.endpoint,
		`IDENTITY_HEADER(?:=| = ')([^\s']+)`:                          &p.header,
		`controls: (http://[^\s)]+)`:                                  &p.controls,
		`(http://\S+)/readyz`:                                         &p.health,
		`client id ([0-9a-f-]{36})`:                                   &p.clientID,
		`tenant ([0-9a-f-]{36})`:                                      &p.tenant,
	} {
		found := regexp.MustCompile(pattern).FindStringSubmatch(p.log())
		if found == nil {
			return fmt.Errorf("dev's guide does not match %s:\n%s", pattern, p.log())
		}
		*to = found[1]
	}
	return nil
}

// redirected is a client as an SDK makes one, but that its packets to
// 169.254.169.254 end at the sidecar, as a redirection in the kernel would have
// it. It connects to nothing else.
func redirected() *http.Client { return redirectedTo(sidecar.url, nil) }

func redirectedTo(base string, proxy func(*http.Request) (*url.URL, error)) *http.Client {
	to := strings.TrimPrefix(base, "http://")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(address)
		switch ip := net.ParseIP(host); {
		case address == imdsHost:
			address = to
		case err != nil, !ip.IsLoopback():
			return nil, fmt.Errorf("e2e: no test may connect to %s", address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return &http.Client{Transport: &http.Transport{Proxy: proxy, DialContext: dial}}
}

// useAppService sets the variables of App Service, as the guide says.
func useAppService(t *testing.T) {
	t.Helper()
	t.Setenv("IDENTITY_ENDPOINT", sidecar.endpoint)
	t.Setenv("IDENTITY_HEADER", sidecar.header)
}

// calls is what the emulator counted, as its controls show it.
type calls struct {
	Scopes     map[string]int `json:"scopes"`
	Refusals   map[string]int `json:"refusals"`
	Assertions map[string]struct {
		Subject  string `json:"subject"`
		Audience string `json:"audience"`
	} `json:"assertions"`
}

func emulatorCalls(t *testing.T) calls {
	t.Helper()
	resp, err := http.Get(sidecar.controls + "/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var c calls
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// setFault makes the emulator misbehave for one resource; fault is its JSON.
func setFault(t *testing.T, resource, fault string) {
	t.Helper()
	body := fmt.Sprintf(`{"scope":%q,"fault":%s}`, resource+"/.default", fault)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, sidecar.controls+"/faults", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("PUT /faults %s: %s", body, resp.Status)
	}
}

// unique makes a resource that nobody has asked for, so that no cache holds a
// token for it.
func unique(name string) string {
	return fmt.Sprintf("https://%s-%d.example", name, serial.Add(1))
}

// requireEarned checks that a token is the emulator's, made for this identity
// and resource by exactly one exchange, which presented a real assertion.
func requireEarned(t *testing.T, token, resource string, expires time.Time) {
	t.Helper()
	var claims struct {
		AppID    string `json:"appid"`
		Tenant   string `json:"tid"`
		Audience string `json:"aud"`
		Expires  int64  `json:"exp"`
	}
	if err := decodeClaims(token, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.AppID != sidecar.clientID || claims.Tenant != sidecar.tenant || claims.Audience != resource {
		t.Errorf("the token is for %+v, want client id %s, tenant %s, resource %s", claims, sidecar.clientID, sidecar.tenant, resource)
	}
	if left := time.Until(expires); left < 55*time.Minute || left > time.Hour {
		t.Errorf("the client takes the token to live for another %v, want nearly an hour", left)
	}
	if end := time.Unix(claims.Expires, 0); expires.After(end) {
		t.Errorf("the client takes the token to live until %v, and it ends at %v", expires, end)
	}
	seen := emulatorCalls(t)
	if n := seen.Scopes[resource+"/.default"]; n != 1 {
		t.Errorf("the emulator saw %d exchanges for %s, want 1", n, resource)
	}
	if a := seen.Assertions[sidecar.clientID]; a.Subject != "spiffe://dev.svidecar.internal/app" || a.Audience != "api://AzureADTokenExchange" {
		t.Errorf("the emulator was shown the assertion %+v", a)
	}
}

// requirePrompt checks that what cannot be mended by waiting came at once, and
// said why.
func requirePrompt(t *testing.T, err error, began time.Time, want string) {
	t.Helper()
	took := time.Since(began)
	switch {
	case err == nil:
		t.Fatalf("got a token, want an error with %q", want)
	case !strings.Contains(err.Error(), want):
		t.Errorf("the client's error does not say %q: %v", want, err)
	}
	if took > prompt {
		t.Errorf("the error came after %v, want at most %v", took, prompt)
	}
}

var errNotJWT = errors.New("the token is not a JWT")

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/svidecar/svidecar/internal/emulation"
)

// patience bounds whatever this test waits for.
const patience = 20 * time.Second

// evidence is all that a program showed to anybody, by where it did.
type evidence struct {
	t     *testing.T
	shown map[string]string
}

func (e *evidence) add(where string, text []byte) { e.shown[where] += string(text) + "\n" }

// pieces are those parts of a secret of which none may be seen: runs of 32
// characters, so that a secret of which a longer part is shown is found.
func pieces(secret string) []string {
	const width = 32
	if len(secret) < 2*width {
		return []string{secret}
	}
	var all []string
	for i := 0; i+width <= len(secret); i += width {
		all = append(all, secret[i:i+width])
	}
	return all
}

// bearerLike matches what looks like a part of a token, whosever it is.
var bearerLike = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{40,}`)

// leaks lists where the secrets are seen.
func (e *evidence) leaks(secrets map[string]string) []string {
	var found []string
	for where, text := range e.shown {
		lower := strings.ToLower(text) // paths are logged so
		for name, secret := range secrets {
			if slices.ContainsFunc(pieces(strings.ToLower(secret)), func(p string) bool { return strings.Contains(lower, p) }) {
				found = append(found, fmt.Sprintf("%s shows %s", where, name))
			}
		}
		if bearerLike.MatchString(text) && !strings.HasSuffix(where, "--claims") { // claims are random text
			found = append(found, where+" shows something like a token")
		}
	}
	slices.Sort(found)
	return found
}

// secretsOf names the secret parts of the bearers and of the key.
func secretsOf(t *testing.T, bearers []string, keyFile string) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	for i, bearer := range bearers {
		parts := strings.Split(bearer, ".")
		if len(parts) != 3 {
			t.Fatalf("bearer %d has %d parts", i, len(parts))
		}
		secrets[fmt.Sprintf("the claims of bearer %d", i)] = parts[1]
		secrets[fmt.Sprintf("the signature of bearer %d", i)] = parts[2]
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	secrets["the key in PEM"] = strings.Join(strings.Split(string(text), "\n")[1:], "\n")
	secrets["the key in hexadecimal"] = fmt.Sprintf("%x", block.Bytes)
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range append(slices.Clone(key.Primes), key.D) {
		secrets[fmt.Sprintf("number %d of the key", i)] = n.String()
		secrets[fmt.Sprintf("number %d of the key in hexadecimal", i)] = n.Text(16)
	}
	return secrets
}

// output is what a process writes, read while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await returns what the pattern captures, once it is there.
func (o *output) await(t *testing.T, pattern string) []string {
	t.Helper()
	want, tick := regexp.MustCompile(pattern), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		if found := want.FindStringSubmatch(o.String()); found != nil {
			return found[1:]
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s in:\n%s", pattern, o)
		}
	}
}

// background runs svidecar and gives what it writes; end ends it.
func background(t *testing.T, env []string, args ...string) (out *output, end func()) {
	t.Helper()
	out = &output{}
	cmd := exec.Command("svidecar", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(bare(), env...), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			_ = cmd.Process.Kill()
		}
		stuck := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer stuck.Stop()
		if err := cmd.Wait(); err != nil && runtime.GOOS != "windows" {
			t.Errorf("%v, asked to end: %v", cmd, err)
		}
	})
	t.Cleanup(end)
	return out, end
}

// once runs svidecar to its end and adds what it wrote.
func (e *evidence) once(env []string, args ...string) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "svidecar", args...)
	cmd.Env = append(bare(), env...)
	out, err := cmd.CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		e.t.Fatal(err)
	}
	e.add(strings.Join(args, " "), out)
}

// bare is our environment without what is set for svidecar on this machine.
func bare() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "AZURE_") || strings.HasPrefix(strings.ToUpper(entry), "SVIDECAR_")
	})
	return append(env, "GORACE="+quickExit)
}

// request asks and adds the reply, unless it is the token that was asked for.
func (e *evidence) request(target string, headers ...string) (token string) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(headers) > 0 && headers[0] == "Host" {
		req.Host = headers[1]
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	var reply struct {
		Token string `json:"access_token"`
	}
	if resp.StatusCode == http.StatusOK && json.Unmarshal(body, &reply) == nil && reply.Token != "" {
		return reply.Token
	}
	e.add("replies", fmt.Appendf(nil, "%v %s", resp.Header, body))
	return ""
}

// faults are ways in which Entra and what lies between misbehave.
var faults = []string{
	`{"echo_assertion":true}`, `{"echo_assertion":true,"status":500}`, `{"aadsts":700213}`, `{"status":429,"retry_after":"1"}`,
	`{"status":503}`, `{"status":502}`, `{"garbage":true}`, `{"truncate":true}`, `{"huge":true}`, `{"reset":true}`,
	`{"redirect":"http://127.0.0.1:1/"}`, `{"expires_in":"-1s"}`,
}

const (
	rightHeader = "the-right-header-0f4c8e7a2b"
	wrongHeader = "a-wrong-header-91d3e5b7c2"
)

// TestNothingLeaks runs all that handles secrets, at the log level that shows
// most, through successes and failures, and looks for the secrets in whatever
// was shown.
func TestNothingLeaks(t *testing.T) {
	entra := newSpy(t)
	dir := t.TempDir()
	tokenFile := filepath.Join(dir, "token")
	assertion, err := entra.cloud.Source.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entra.note(assertion.Value.Reveal())
	if err := os.WriteFile(tokenFile, []byte(assertion.Value.Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{
		"SVIDECAR_LOG_LEVEL=debug", "SVIDECAR_AUTHORITY_HOST=" + entra.URL, "SVIDECAR_AUTHORITY_CA_FILE=" + entra.caFile,
		"SVIDECAR_TENANT_ID=" + entra.cloud.TenantID, "SVIDECAR_CLIENT_ID=" + entra.cloud.ClientID, "SVIDECAR_IDENTITY_HEADER=" + rightHeader,
	}
	fromFile := append(slices.Clone(common), "SVIDECAR_FEDERATED_TOKEN_FILE="+tokenFile)
	fromKey := append(slices.Clone(common), "SVIDECAR_SOURCE=local", "SVIDECAR_KEY_FILE="+entra.keyFile,
		"SVIDECAR_ISSUER="+entra.cloud.Issuer, "SVIDECAR_SUBJECT="+emulation.Subject)

	e := &evidence{t, map[string]string{}}
	e.serveThroughFaults(entra, "serve by file", fromFile)
	e.serveThroughFaults(entra, "serve by key", fromKey)
	e.serveSpoiledTokens(tokenFile, fromFile)
	e.commands(entra, fromFile, fromKey)
	devHeader := e.dev(entra)

	secrets := secretsOf(t, entra.bearers(), entra.keyFile)
	secrets["the identity header"], secrets["a wrong identity header"], secrets["dev's identity header"] = rightHeader, wrongHeader, devHeader
	if n := len(entra.bearers()); n < 6 {
		t.Errorf("only %d tokens and assertions were seen", n)
	}
	for _, leak := range e.leaks(secrets) {
		t.Error(leak)
	}
	if t.Failed() {
		for where, text := range e.shown {
			t.Logf("%s:\n%s", where, text)
		}
	}
	e.requireEyes(fromFile, fromKey, secrets, entra)
}

// requireEyes is the control: what is printed on request must be found.
func (e *evidence) requireEyes(fromFile, fromKey []string, secrets map[string]string, entra *spy) {
	for where, env := range map[string][]string{"mint --raw": fromFile, "token --resource https://raw.example --raw": fromKey} {
		seen := &evidence{e.t, map[string]string{}}
		seen.once(env, strings.Fields(where)...)
		for name, secret := range secretsOf(e.t, entra.bearers(), entra.keyFile) {
			secrets[name] = secret
		}
		if leaks := seen.leaks(secrets); len(leaks) < 2 {
			e.t.Errorf("%s: found only %q: this test is blind", where, leaks)
		}
	}
}

// serveThroughFaults asks a sidecar for tokens in every way that can go wrong.
func (e *evidence) serveThroughFaults(entra *spy, where string, env []string) {
	e.t.Helper()
	out, end := background(e.t, env, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--shutdown-delay", "0s")
	at := out.await(e.t, `"tokens":"([^"]+)","ops":"([^"]+)"`)
	imds := "http://" + at[0] + "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="
	msi := "http://" + at[0] + "/msi/token?api-version=2019-08-01&resource="
	token := e.request(imds+"https://good.example", "Metadata", "true")
	if token == "" || e.request(msi+"https://good.example", "X-IDENTITY-HEADER", rightHeader) != token {
		e.t.Errorf("%s: got no token, or two", where)
	}
	for _, headers := range [][]string{
		{"X-IDENTITY-HEADER", wrongHeader},
		{"Secret", wrongHeader, "X-IDENTITY-HEADER", rightHeader},
		{"Metadata", "true", "Authorization", "Bearer " + token},
		{"X-Forwarded-For", token, "Secret", rightHeader},
		{"X-IDENTITY-HEADER", rightHeader, "X-IDENTITY-HEADER", token},
	} {
		e.request(msi+"https://good.example", headers...)
	}
	// A token in the wrong place of a request
	e.request(imds+"https://good.example&client_id="+token, "Metadata", "true")
	e.request(imds+"https://good.example&msi_res_id=/subscriptions/"+token, "Metadata", "true")
	e.request(imds+token, "Metadata", "true")
	e.request("http://"+at[0]+"/metadata/identity/oauth2/token/"+token, "Metadata", "true")
	e.request(msi+"https://good.example", "User-Agent", token)
	e.request(msi+"https://good.example", "Host", token)
	e.request(imds+"https://good.example&identity_header="+rightHeader, "X-IDENTITY-HEADER", rightHeader)
	for i, fault := range faults {
		resource := fmt.Sprintf("https://fault-%d.example", i)
		e.setFault(entra.cloud.Admin, resource, fault)
		if e.request(imds+resource, "Metadata", "true") != "" {
			e.t.Errorf("%s: the fault %s led to a token", where, fault)
		}
		e.request(msi+resource, "X-IDENTITY-HEADER", rightHeader)
	}
	e.request("http://" + at[1] + "/metrics")
	end()
	e.add(where, []byte(out.String()))
}

// serveSpoiledTokens gives a sidecar token files that are not what they should
// be, each with most of a real assertion in it.
func (e *evidence) serveSpoiledTokens(tokenFile string, env []string) {
	e.t.Helper()
	good, err := os.ReadFile(tokenFile)
	if err != nil {
		e.t.Fatal(err)
	}
	out, end := background(e.t, env, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--shutdown-delay", "0s")
	at := out.await(e.t, `"tokens":"([^"]+)"`)
	headless := good[bytes.IndexByte(good, '.'):]
	for i, spoiled := range [][]byte{
		headless, good[:len(good)-200], append([]byte("Bearer "), good...), append(slices.Clone(good), good...),
		bytes.ReplaceAll(good, []byte("."), []byte("\n")), append([]byte(`{"token":"`), good...), append([]byte("eyJhbGciOiJub25lIn0"), headless...),
	} {
		if err := os.WriteFile(tokenFile, spoiled, 0o600); err != nil {
			e.t.Fatal(err)
		}
		e.request(fmt.Sprintf("http://%s/metadata/identity/oauth2/token?resource=https://spoiled-%d.example", at[0], i), "Metadata", "true")
		e.once(env, "mint")
		e.once(env, "token", "--resource", "https://spoiled.example")
		e.once(env, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--print-config")
	}
	end()
	e.add("serve with spoiled token files", []byte(out.String()))
	if err := os.WriteFile(tokenFile, good, 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// commands runs those that end by themselves.
func (e *evidence) commands(entra *spy, fromFile, fromKey []string) {
	e.t.Helper()
	for _, env := range [][]string{fromFile, fromKey} {
		e.once(env, "mint")
		e.once(env, "mint", "--claims")
		e.once(env, "token", "--resource", "https://good.example")
		e.once(env, "token", "--resource", "https://good.example", "--claims")
		for i := range faults {
			e.once(env, "token", "--resource", fmt.Sprintf("https://fault-%d.example", i))
		}
		e.once(env, "serve", "--print-config")
		e.once(env, "serve", "--identity-header", wrongHeader+" with spaces")
		e.once(env, "serve", "--identity-header-file", entra.keyFile)
		e.once(env, "serve", "--config", entra.keyFile)
		e.once(env, "serve", "--authority-ca-file", entra.keyFile)
		e.once(env, "mint", "--federated-token-file", entra.keyFile)
	}
	// A key that is damaged, and one that is open to all
	text, err := os.ReadFile(entra.keyFile)
	if err != nil {
		e.t.Fatal(err)
	}
	dir := e.t.TempDir()
	for name, damaged := range map[string][]byte{
		"cut.pem": text[:len(text)/2], "twice.pem": append(slices.Clone(text), text...), "bare.pem": bytes.SplitN(text, []byte("\n"), 2)[1],
		"typo.pem": bytes.Replace(text, []byte("\nM"), []byte("\nN"), 1),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			e.t.Fatal(err)
		}
		e.once(fromKey, "mint", "--key-file", path)
	}
	open := filepath.Join(dir, "open.pem")
	if err := os.WriteFile(open, text, 0o644); err != nil {
		e.t.Fatal(err)
	}
	e.once(fromKey, "mint", "--key-file", open)
}

// dev returns its identity header, which only the lines that tell it may show.
func (e *evidence) dev(entra *spy) string {
	e.t.Helper()
	out, end := background(e.t, nil, "dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-level", "debug", "--key-file", entra.keyFile)
	out.await(e.t, `Ctrl-C ends it`)
	header := out.await(e.t, `IDENTITY_HEADER(?:=| = ')([^\s']+)`)[0]
	endpoint := out.await(e.t, `IDENTITY_ENDPOINT(?:=| = ')(http://[^\s']+)`)[0]
	controls := out.await(e.t, `controls: (http://[^)]+)\)`)[0]
	ops := out.await(e.t, `(http://\S+)/readyz`)[0]
	entra.note(e.request(endpoint+"?resource=https://good.example", "X-IDENTITY-HEADER", header))
	e.request(endpoint+"?resource=https://good.example", "X-IDENTITY-HEADER", wrongHeader)
	for i, fault := range faults {
		resource := fmt.Sprintf("https://fault-%d.example", i)
		e.setFault(controls, resource, fault)
		e.request(endpoint+"?resource="+resource, "X-IDENTITY-HEADER", header)
	}
	for _, page := range []string{"/calls", "/faults", "/apps", "/"} {
		e.request(controls + page)
	}
	e.request(ops + "/metrics")
	end()
	guide := regexp.MustCompile(`(?m)^.*\b(IDENTITY_HEADER|MSI_SECRET)\b.*$`)
	e.add("dev", guide.ReplaceAll([]byte(out.String()), nil))
	return header
}

func (e *evidence) setFault(controls, resource, fault string) {
	e.t.Helper()
	body := fmt.Sprintf(`{"scope":%q,"fault":%s}`, resource+"/.default", fault)
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPut, controls+"/faults", strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		e.t.Fatalf("PUT /faults %s: %s", body, resp.Status)
	}
}

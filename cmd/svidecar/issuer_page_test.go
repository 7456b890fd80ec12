package main

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// What docs/issuer.md calls its identity and its issuer.
const (
	pageClient = "11111111-1111-1111-1111-111111111111"
	pageTenant = "22222222-2222-2222-2222-222222222222"
	pageHost   = "issuer.example.com"
)

// TestIssuerPage does what docs/issuer.md says, word by word, with an emulator
// for Entra and a stand-in for the storage account.
func TestIssuerPage(t *testing.T) {
	page := readPage(t, "../../docs/issuer.md")
	five := page.commands("## Five commands")
	if n := len(five); n == 0 || n > 5 {
		t.Fatalf("docs/issuer.md has %d commands, want at most five", n)
	}
	t.Chdir(t.TempDir())
	world := newPageWorld(t)
	for _, command := range five {
		world.do(t, command)
	}
	if world.site == nil || world.credentials != 1 || world.tokens == "" {
		t.Fatalf("the commands uploaded %d files, made %d federated credentials, and serve at %q", len(world.site), world.credentials, world.tokens)
	}
	world.wantToken(t, "https://vault.azure.net")
	first := world.once(t, "svidecar keys list --key-dir keys")

	for _, command := range page.commands("## How keys change") {
		world.do(t, command)
	}
	world.do(t, five[2])
	list := world.once(t, "svidecar keys list --key-dir keys")
	if strings.Count(list, "active") != 1 || strings.Count(list, "published") != 1 {
		t.Errorf("after a rotation keys list says:\n%s", list)
	}
	world.wantToken(t, "https://storage.azure.com")

	stolen := kidIn(t, first, "active")
	for _, command := range page.commands("## A stolen key") {
		world.do(t, strings.Replace(command, " KEY ", " "+stolen[:6]+" ", 1))
	}
	world.do(t, five[2])
	if keys := string(world.site["openid/v1/jwks"]); strings.Contains(keys, stolen) {
		t.Errorf("the stolen key %s is published still: %s", stolen, keys)
	}
	if names, err := filepath.Glob("keys/" + stolen + "*"); err != nil || len(names) > 0 {
		t.Errorf("the stolen key is left in %q (%v)", names, err)
	}
	world.log.await(t, `"kid":"`+stolen+`","state":"removed"`)
	world.wantToken(t, "https://graph.microsoft.com")
	if kid := world.entra.Assertions()[pageClient].KeyID; kid == stolen {
		t.Errorf("the last assertion is signed by the stolen key %s", kid)
	}
}

// page is a document by its sections.
type page map[string]string

func readPage(t *testing.T, path string) page {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := page{}
	for _, section := range strings.Split(string(text), "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		p["## "+title] = body
	}
	return p
}

// commands are the lines of a section's shell blocks.
func (p page) commands(section string) (lines []string) {
	for i, part := range strings.Split(p[section], "```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			lines = append(lines, strings.Split(strings.TrimSpace(block), "\n")...)
		}
	}
	return lines
}

// pageWorld is what the commands of the page act on.
type pageWorld struct {
	entra       *entratest.Server
	env         []string
	site        map[string][]byte // what is uploaded
	credentials int
	tokens      string  // where serve listens
	log         *output // of serve
}

func newPageWorld(t *testing.T) *pageWorld {
	t.Helper()
	site := &pageWorld{}
	w := startEntra(t, entratest.Config{IssuerClient: &http.Client{Transport: site}})
	site.entra, site.env = w.entra, w.env
	return site
}

// startEntra starts the emulator with the page's app, and makes the settings that
// point at it.
func startEntra(t *testing.T, cfg entratest.Config) *pageWorld {
	t.Helper()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Key, err = signingKey(); err != nil {
		t.Fatal(err)
	}
	cfg.CA, cfg.Apps = ca, []entratest.App{{ClientID: pageClient, TenantID: pageTenant}}
	entra, err := entratest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := entra.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = entra.Close() })
	if err := os.WriteFile("ca.pem", ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &pageWorld{entra: entra, env: []string{
		"SVIDECAR_AUTHORITY_HOST=" + entra.URL(), "SVIDECAR_AUTHORITY_CA_FILE=ca.pem",
		"SVIDECAR_LISTEN=127.0.0.1:0", "SVIDECAR_OPS_LISTEN=127.0.0.1:0", "SVIDECAR_SHUTDOWN_DELAY=0s",
	}}
}

// RoundTrip is the way to the storage account's web server.
func (w *pageWorld) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := w.site[strings.TrimPrefix(r.URL.Path, "/")]
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}
	if !ok || r.URL.Scheme != "https" || r.URL.Host != pageHost {
		resp.StatusCode = http.StatusNotFound
	}
	return resp, nil
}

// do runs one command of the page.
func (w *pageWorld) do(t *testing.T, command string) {
	t.Helper()
	switch {
	case strings.HasPrefix(command, "az storage blob upload-batch "):
		options := optionsOf(t, command)
		if options["content-type"] != "application/json" || options["destination"] != "$web" {
			t.Fatalf("%s: %v", command, options)
		}
		w.upload(t, options["source"])
	case strings.HasPrefix(command, "az identity federated-credential create "):
		options := optionsOf(t, command)
		err := w.entra.AddCredential(pageClient, entratest.FederatedCredential{Issuer: options["issuer"], Subject: options["subject"], Audience: options["audiences"]})
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		w.credentials++
	case strings.HasPrefix(command, "svidecar serve "):
		w.serve(t, command)
	default:
		w.once(t, command)
	}
}

// serve runs a svidecar command that serves tokens.
func (w *pageWorld) serve(t *testing.T, command string) {
	t.Helper()
	w.log, _ = background(t, w.env, strings.Fields(command)[1:]...)
	w.tokens = w.log.await(t, `"tokens":"([^"]+)"`)[0]
}

// once runs a svidecar command to its end.
func (w *pageWorld) once(t *testing.T, command string) string {
	t.Helper()
	words := strings.Fields(command)
	if words[0] != "svidecar" {
		t.Fatalf("the page has a command that this test does not know: %s", command)
	}
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Env = append(bare(), w.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// upload copies a directory to the web server.
func (w *pageWorld) upload(t *testing.T, dir string) {
	t.Helper()
	site := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		site[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	})
	if err != nil || len(site) != 2 {
		t.Fatalf("%s holds %d files (%v), want the two documents", dir, len(site), err)
	}
	w.site = site
}

func (w *pageWorld) wantToken(t *testing.T, resource string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.tokens+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a token for %s: HTTP %d %s (%v)", resource, resp.StatusCode, body, err)
	}
}

// optionsOf reads --name value pairs; an option without a value is empty.
func optionsOf(t *testing.T, command string) map[string]string {
	t.Helper()
	options := map[string]string{}
	words := strings.Fields(command)
	for i, word := range words {
		if name, ok := strings.CutPrefix(word, "--"); ok {
			options[name] = ""
			if i+1 < len(words) && !strings.HasPrefix(words[i+1], "--") {
				options[name] = strings.Trim(words[i+1], "'")
			}
		}
	}
	return options
}

// kidIn finds the key that keys list shows in a state.
func kidIn(t *testing.T, list, state string) string {
	t.Helper()
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == state {
			return fields[0]
		}
	}
	t.Fatalf("no %s key in:\n%s", state, list)
	return ""
}

//go:build e2e && linux

package clients_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svidecar/svidecar/internal/emulation"
)

// The two sidecars are told apart by the tenant in their tokens: packets to
// 169.254.169.254 end at the first, and every variable names the second. So a
// client that ignores the variables is seen.
const (
	addressTenant  = "11111111-aaaa-4aaa-8aaa-111111111111"
	variableTenant = "22222222-bbbb-4bbb-8bbb-222222222222"
)

const (
	good   = "ok"
	again  = "ok, asks again" // the second token came from the sidecar too
	no     = "no"             // no token, and nobody was asked
	none   = "–"              // the client has no such selector
	atIMDS = "asks 169.254.169.254"
	// unnamed: the client left out which identity it was to ask for.
	unnamed = "the default's token"
)

// protocol is one that a client can be led to speak, and how.
type protocol struct {
	name   string
	tenant string
	env    func(s *sidecar, dir string) []string
}

var protocols = []protocol{
	{"IMDS", addressTenant, func(*sidecar, string) []string { return nil }},
	{"IMDS by variable", variableTenant, func(s *sidecar, _ string) []string {
		return []string{"AZURE_POD_IDENTITY_AUTHORITY_HOST=" + s.url, "ARM_MSI_ENDPOINT=" + s.url + "/metadata/identity/oauth2/token"}
	}},
	{"App Service", variableTenant, func(s *sidecar, _ string) []string {
		return []string{
			"IDENTITY_ENDPOINT=" + s.url + "/msi/token", "IDENTITY_HEADER=" + s.header,
			"MSI_ENDPOINT=" + s.url + "/msi/token", "MSI_SECRET=" + s.header, "APPSETTING_WEBSITE_SITE_NAME=site",
		}
	}},
	{"Azure ML", variableTenant, func(s *sidecar, _ string) []string {
		return []string{"MSI_ENDPOINT=" + s.url + "/msi/token", "MSI_SECRET=" + s.header, "DEFAULT_IDENTITY_CLIENT_ID=" + emulation.ClientID}
	}},
	{"Cloud Shell", variableTenant, func(s *sidecar, _ string) []string {
		return []string{"MSI_ENDPOINT=" + s.url + "/oauth2/token"}
	}},
	{"Service Fabric", variableTenant, func(s *sidecar, dir string) []string {
		thumbprint, _ := os.ReadFile(filepath.Join(dir, "thumbprint"))
		certificate := filepath.Join(dir, "certificate.pem")
		return []string{
			"IDENTITY_ENDPOINT=https://127.0.0.1:2377/metadata/identity/oauth2/token", "IDENTITY_HEADER=" + s.header,
			"IDENTITY_SERVER_THUMBPRINT=" + strings.TrimSpace(string(thumbprint)),
			"REQUESTS_CA_BUNDLE=" + certificate, "NODE_EXTRA_CA_CERTS=" + certificate, "SSL_CERT_FILE=" + certificate,
		}
	}},
	{"Azure Arc", variableTenant, func(s *sidecar, _ string) []string {
		return []string{"IDENTITY_ENDPOINT=http://127.0.0.1:40342/metadata/identity/oauth2/token", "IMDS_ENDPOINT=http://127.0.0.1:40342"}
	}},
}

var selectors = []struct{ name, value string }{
	{"system", ""},
	{"client_id", chosenClient},
	{"object_id", chosenObject},
	{"resource_id", chosenResource},
}

// java is all but Azure ML's, whose variables Java's clients take for Cloud Shell's.
var java = []string{"IMDS", "IMDS by variable", "App Service", "Cloud Shell", "Service Fabric", "Azure Arc"}

// speaks lists the protocols that a client has any code for; one that is not here
// has code for all.
var speaks = map[string][]string{
	"com.azure:azure-identity": java, "com.azure:azure-identity, DefaultAzureCredential": java, "com.microsoft.azure:msal4j": java,

	"msrestazure":             {"IMDS", "App Service", "Cloud Shell"},
	"@azure/ms-rest-nodeauth": {"IMDS", "App Service"},
	"go-autorest/adal":        {"IMDS", "App Service", "Cloud Shell"},
	"hashicorp/go-azure-sdk":  {"IMDS", "IMDS by variable"},
	"curl":                    {"IMDS", "IMDS by variable", "App Service"},

	"azure-cli":             {"IMDS", "IMDS by variable", "App Service", "Azure ML", "Service Fabric", "Azure Arc"},
	"azure-cli before 2.73": {"IMDS", "App Service", "Cloud Shell", "Azure Arc"},

	"azure-cli before 2.73, --username": {"IMDS"}, // elsewhere it gives up at the first refusal
}

// world is what the clients ask.
type world struct {
	address, variable *sidecar
	dir               string // of Service Fabric's files, and of the stand-ins'
	vaults            *vaults
}

func newWorld(t *testing.T) world {
	t.Helper()
	dir := t.TempDir()
	w := world{dir: dir}
	w.address = startSidecar(t, addressTenant, "127.0.0.1:8000", "--protocols", "imds")
	w.variable = startSidecar(t, variableTenant, "127.0.0.1:8010", "--ops-listen", "127.0.0.1:8011",
		"--protocols", "imds,appservice,azureml,cloudshell,servicefabric,arc",
		"--servicefabric-thumbprint-file", filepath.Join(dir, "thumbprint"),
		"--servicefabric-certificate-file", filepath.Join(dir, "certificate.pem"))
	if out, err := exec.Command(program, "redirect").CombinedOutput(); err != nil {
		t.Fatalf("svidecar redirect: %v\n%s", err, out)
	}
	w.vaults = startCloud(t, dir, w.address, w.variable)
	return w
}

// row is one line of the matrix.
type row struct {
	client, version, protocol string
	cells, resources          []string // by selectors
	asked                     *sidecar
}

// TestMatrix runs every client over every protocol by every selector.
func TestMatrix(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld(t)
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			command, versions := l.have(t)
			requireRows(t, l.name, w.run(t, command, versions))
		})
	}
}

// run fills the rows of one language, two cells at a time.
func (w world) run(t *testing.T, command []string, versions map[string]string) (rows []row) {
	t.Helper()
	var running sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		for i, p := range protocols {
			if known, limited := speaks[name]; limited && !slices.Contains(known, p.name) {
				continue
			}
			r := row{name, versions[name], p.name, make([]string, len(selectors)), make([]string, len(selectors)), w.asked(p.tenant)}
			rows = append(rows, r)
			for j := range selectors {
				slots <- struct{}{}
				running.Go(func() {
					defer func() { <-slots }()
					r.resources[j] = unique("matrix")
					r.cells[j] = w.cell(t, command, name, i, j, r.resources[j])
				})
			}
		}
	}
	running.Wait()
	for _, r := range rows {
		r.judgeCache(t)
	}
	w.confirm(t, command, rows)
	return rows
}

// asked is the sidecar whose tokens are of that tenant.
func (w world) asked(tenant string) *sidecar {
	if tenant == addressTenant {
		return w.address
	}
	return w.variable
}

// judgeCache tells the clients that kept their first token from those that asked the
// sidecar for it again, as they all do with what they cannot read.
func (r row) judgeCache(t *testing.T) {
	t.Helper()
	for j, n := range r.asked.requests(t, r.resources...) {
		switch {
		case r.cells[j] != good || n == 1:
		case n == 2:
			r.cells[j] = again
		default:
			r.cells[j] = fmt.Sprintf("%s, by %d requests", good, n)
		}
	}
}

// cell runs one client, which asks twice: the second answer must be the first, from
// whichever cache.
func (w world) cell(t *testing.T, command []string, name string, protocol, selector int, resource string) string {
	p, s := protocols[protocol], selectors[selector]
	began := time.Now()
	c := startClient(t, command, p.env(w.variable, w.dir), name, s.name, s.value)
	defer c.end()
	first, err := c.ask(resource)
	if errors.Is(err, errUnsupported) {
		return none
	}
	var second string
	if err == nil {
		second, err = c.ask(resource)
	}
	result := good
	switch {
	case errors.Is(err, errEnded):
		result = "the client ended"
		t.Logf("%s, %s, %s: %v", name, p.name, s.name, err)
	case err != nil:
		result = no
		t.Logf("%s, %s, %s: %v", name, p.name, s.name, err)
	case first != second:
		result = "two tokens"
	default:
		result = judgeOf(t, first, resource, p.tenant, appOf(s.name))
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Logf("%s, %s, %s took %v", name, p.name, s.name, took)
	}
	return result
}

// claims are those of an access token that are looked at.
type claims struct {
	AppID, Tid, Aud string
	Exp             int64
}

func read(token string) (c claims, err error) {
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(payload, &c)
}

// expiry is long ago for what is no token.
func expiry(t *testing.T, token string) time.Time {
	t.Helper()
	claims, err := read(token)
	if err != nil {
		t.Log(err)
	}
	return time.Unix(claims.Exp, 0)
}

// appOf is whose token answers a selector.
func appOf(selector string) string {
	if selector == "system" {
		return emulation.ClientID
	}
	return chosenClient
}

// judge is judgeOf for the default identity.
func judge(t *testing.T, token, resource, tenant string) string {
	t.Helper()
	return judgeOf(t, token, resource, tenant, emulation.ClientID)
}

// judgeOf says whose token it is.
func judgeOf(t *testing.T, token, resource, tenant, app string) string {
	t.Helper()
	claims, err := read(token)
	switch {
	case err != nil:
		return "no token"
	case claims.Aud == resource && claims.AppID != app && claims.AppID == emulation.ClientID:
		return unnamed
	case claims.Aud != resource || claims.AppID != app:
		return "a token of another"
	case claims.Tid != tenant && claims.Tid == addressTenant:
		return atIMDS
	case claims.Tid != tenant:
		return "a token of another tenant"
	}
	return good
}

var serial atomic.Int64

// unique makes a resource that nobody has asked for.
func unique(name string) string { return fmt.Sprintf("https://%s-%d.example", name, serial.Add(1)) }

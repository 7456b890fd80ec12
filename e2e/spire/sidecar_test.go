//go:build e2e && linux

package spire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// prompt is how soon a request that needs an exchange is answered while a held
// assertion will do: the source waits a second for a better one.
const prompt = 1500 * time.Millisecond

// buildSidecar builds the real program.
func buildSidecar(t *testing.T) string {
	t.Helper()
	built := filepath.Join(t.TempDir(), "svidecar")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", built, "../../cmd/svidecar").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return built
}

// environ is what svidecar needs in this world.
func (w *world) environ() []string {
	return []string{
		"AZURE_TENANT_ID=" + tenantID, "AZURE_CLIENT_ID=" + clientID, "AZURE_AUTHORITY_HOST=" + w.entra.URL(),
		"SVIDECAR_AUTHORITY_CA_FILE=" + w.caFile, "SVIDECAR_SOURCE=spiffe", "SPIFFE_ENDPOINT_SOCKET=unix://" + w.agentSocket(),
		"SVIDECAR_SHUTDOWN_DELAY=0s",
	}
}

// mint runs `svidecar mint`, and returns what it said.
func (w *world) mint(t *testing.T, svidecar string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), svidecar, "mint")
	cmd.Env = w.environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// sidecar is `svidecar serve` in a world.
type sidecar struct {
	*process
	w      *world
	tokens string // address
	serial atomic.Int64
}

func (w *world) serve(t *testing.T, svidecar string) *sidecar {
	t.Helper()
	s := &sidecar{w: w, process: start(t, w.dir, svidecar, w.environ(),
		"serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--spiffe-verify")}
	w.await(t, upLimit, "svidecar", func() error {
		for line := range strings.Lines(s.output()) {
			var said struct{ Msg, Tokens string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				s.tokens = said.Tokens
				return nil
			}
		}
		return errors.New("it does not serve")
	}, s.process)
	return s
}

// ask asks for a token of a resource that nobody has asked for, so that svidecar
// needs an assertion, and says by which assertion it was had.
func (s *sidecar) ask(t *testing.T) (entratest.Assertion, error) {
	t.Helper()
	return s.askFor(t, fmt.Sprintf("https://resource-%d.example", s.serial.Add(1)))
}

func (s *sidecar) askFor(t *testing.T, resource string) (entratest.Assertion, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+s.tokens+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return entratest.Assertion{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body) // no token in it
	}
	return s.w.entra.Assertions()[clientID], err
}

// mustAsk wants a token within prompt.
func (s *sidecar) mustAsk(t *testing.T) entratest.Assertion {
	t.Helper()
	began := time.Now()
	got, err := s.ask(t)
	if took := time.Since(began); err != nil || took > prompt {
		t.Fatalf("after %v: %v; want a token within %v", took, err, prompt)
	}
	if got.Subject != workloadID || got.Audience != audience || got.Issuer != s.w.front.issuer {
		t.Fatalf("Entra was shown %+v", got)
	}
	return got
}

//go:build unix

package tpm_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/tpm"
)

const issuer = "https://issuer.example.org"

func newLocal(t *testing.T, key *tpm.Key) *mint.Local {
	t.Helper()
	local, err := mint.NewLocal(mint.LocalConfig{
		Signer: key, Issuer: issuer, Subject: "spiffe://example.org/app", Audience: "api://AzureADTokenExchange",
	})
	if err != nil {
		t.Fatal(err)
	}
	return local
}

// wantVerified gives the assertion to another implementation, with the published
// documents.
func wantVerified(t *testing.T, key *tpm.Key, assertion mint.Assertion) {
	t.Helper()
	_, keySet, err := mint.Documents(issuer, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(keySet, &set); err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseSigned(assertion.Value.Reveal(), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	var claims jwt.Claims
	if err := token.Claims(set, &claims); err != nil {
		t.Error(err)
	}
	if err := claims.Validate(jwt.Expected{Issuer: issuer, Subject: "spiffe://example.org/app", Time: time.Now()}); err != nil {
		t.Error(err)
	}
}

func TestAssertions(t *testing.T) {
	s := startTPM(t)
	for i, bits := range []int{2048, 3072} {
		cfg := tpm.CreateConfig{Config: s.config(), Bits: bits}
		cfg.Handle += uint32(i)
		key := create(t, cfg)
		got, err := newLocal(t, key).Assertion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantVerified(t, key, got)
	}
}

// TestAssertionsOutliveTheTPM: while it is away what is held serves, a new one is
// a failure that may pass, and it passes.
func TestAssertionsOutliveTheTPM(t *testing.T) {
	s := startTPM(t)
	key := create(t, tpm.CreateConfig{Config: s.config()})
	local := newLocal(t, key)
	held, err := local.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.kill()
	again, err := local.Assertion(t.Context())
	if err != nil || again.Value.Reveal() != held.Value.Reveal() {
		t.Errorf("without the TPM: %v, want the assertion that is held", err)
	}
	_, err = local.Fresh(t.Context())
	var refusal *mint.Error
	if !errors.As(err, &refusal) || !refusal.Temporary() || !strings.Contains(err.Error(), "nothing serves that socket") {
		t.Errorf("a fresh one: %v, want a *mint.Error that is temporary and says why", err)
	}
	s.restart(t)
	back, err := local.Fresh(t.Context())
	if err != nil {
		t.Fatalf("once the TPM is back: %v", err)
	}
	wantVerified(t, key, back)
}

// TestAnotherKeyAtTheHandle: an assertion that its own published key does not
// verify is not handed out.
func TestAnotherKeyAtTheHandle(t *testing.T) {
	s := startTPM(t)
	local := newLocal(t, create(t, tpm.CreateConfig{Config: s.config()}))
	s.evict(t, handle)
	_, err := local.Fresh(t.Context())
	if err == nil || !strings.Contains(err.Error(), "there is no key") {
		t.Errorf("with no key: %v", err)
	}
	create(t, tpm.CreateConfig{Config: s.config()})
	_, err = local.Fresh(t.Context())
	var refusal *mint.Error
	if !errors.As(err, &refusal) || refusal.Temporary() || !strings.Contains(err.Error(), "does not fit the signer's public key") {
		t.Errorf("with another key: %v, want a *mint.Error that is not temporary", err)
	}
}

// restart starts the TPM again with what it has kept.
func (s *softTPM) restart(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(s.device, "unix:")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	*s = *serveTPM(t, program, filepath.Dir(path))
}

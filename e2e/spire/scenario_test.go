//go:build e2e && linux

package spire_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// binDir names the folder of SPIRE's programs.
const binDir = "SPIRE_BIN_DIR"

// TestSPIRE needs SPIRE itself.
func TestSPIRE(t *testing.T) {
	dir := os.Getenv(binDir)
	if dir == "" {
		t.Skipf("*** %s is not set: NOTHING WAS TESTED AGAINST REAL SPIRE ***", binDir)
	}
	bins, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range standIns {
		if _, err := os.Stat(filepath.Join(bins, name)); err != nil {
			t.Fatalf("%s: %v", binDir, err)
		}
	}
	scenarios(t, bins, time.Minute)
}

// TestStandIns runs the same against the stand-ins: it proves the harness, and what
// svidecar does when an agent behaves so, and nothing about SPIRE.
func TestStandIns(t *testing.T) {
	scenarios(t, standInDir(t), 32*time.Second)
}

// scenarios runs each in a world of its own, at the same time: most of it is waiting
// for half of a JWT-SVID's life, of which life is the length. It must leave 4 s
// between its half and the 10 s before its end in which svidecar does not use it.
func scenarios(t *testing.T, bins string, life time.Duration) {
	svidecar := buildSidecar(t)
	for name, run := range map[string]func(t *testing.T, w *world, svidecar string, life time.Duration){
		"token":    gotToken,
		"register": registeredLate,
		"restart":  agentRestarts,
		"hang":     serverHangs,
		"rotate":   keyRotates,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, newWorld(t, bins, settings{keyType: "rsa-2048", life: life}), svidecar, life)
		})
	}
	for name, tt := range map[string]struct {
		s    settings
		says string
	}{
		"es256": {settings{life: life}, `jwt_key_type = "rsa-2048"`},
		"noiss": {settings{keyType: "rsa-2048", noIssuer: true, life: life}, "jwt_issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, newWorld(t, bins, tt.s), svidecar, tt.says)
		})
	}
}

// refused wants a default of SPIRE's to be refused before Entra sees it, with the
// name of the setting.
func refused(t *testing.T, w *world, svidecar, says string) {
	mustRegister(t, w)
	w.await(t, upLimit, "the refusal", func() error {
		out, err := w.mint(t, svidecar)
		switch {
		case err == nil:
			t.Fatalf("mint takes it: %s", out)
		case !strings.Contains(out, says):
			return fmt.Errorf("mint: %w: %s", err, out) // the agent may not know the entry yet
		}
		return nil
	}, w.server, w.agent)
	if n := w.entra.Calls().Token; n != 0 {
		t.Errorf("Entra was asked %d times", n)
	}
}

func mustRegister(t *testing.T, w *world) {
	t.Helper()
	if _, err := w.register(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// serving is a sidecar that has had a token.
func serving(t *testing.T, w *world, svidecar string) *sidecar {
	t.Helper()
	mustRegister(t, w)
	s := w.serve(t, svidecar)
	w.await(t, upLimit, "the first token", func() error { _, err := s.ask(t); return err }, w.server, w.agent, s.process)
	return s
}

// gotToken looks at what a person would look at too.
func gotToken(t *testing.T, w *world, svidecar string, life time.Duration) {
	s := serving(t, w, svidecar)
	got := s.mustAsk(t)
	keys, err := w.registry.authorities(t.Context())
	if err != nil || got.KeyID != keys.active || got.Expires.Sub(got.Issued) != life {
		t.Errorf("Entra was shown %+v; keys %+v, error %v; want the active key, and a life of %v", got, keys, err, life)
	}
	if out, err := w.mint(t, svidecar); err != nil || !strings.Contains(out, workloadID) || !strings.Contains(out, w.front.issuer) {
		t.Errorf("svidecar mint: %v: %s", err, out)
	}
	if !w.front.mended.Load() {
		t.Log("this discovery provider writes no empty authorization_endpoint")
		return
	}
	w.front.asIs.Store(true)
	if _, err := s.ask(t); err == nil || !strings.Contains(err.Error(), "AADSTS90061") {
		t.Errorf("with an empty authorization_endpoint: %v, want AADSTS90061", err)
	}
}

// registeredLate starts svidecar before anybody has registered it.
func registeredLate(t *testing.T, w *world, svidecar string, _ time.Duration) {
	s := w.serve(t, svidecar)
	_, err := s.ask(t)
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "registration entry") {
		t.Fatalf("before the registration: %v, want 503 with the reason", err)
	}
	mustRegister(t, w)
	w.await(t, upLimit, "a token after the registration", func() error { _, err := s.ask(t); return err }, w.server, w.agent, s.process)
}

// agentRestarts has the agent away for 20 s or more, and past half of the
// assertion's life.
func agentRestarts(t *testing.T, w *world, svidecar string, life time.Duration) {
	s := serving(t, w, svidecar)
	old := s.mustAsk(t)
	if err := w.agent.end(); err != nil {
		t.Fatal(err)
	}
	back := time.Now().Add(20 * time.Second)
	if later := old.Issued.Add(life/2 + 4*time.Second); later.After(back) {
		back = later
	}
	requests := 0
	w.await(t, time.Until(back)+upLimit, "the outage", func() error {
		if got := s.mustAsk(t); got != old {
			t.Fatalf("without an agent: Entra was shown %+v, want %+v", got, old)
		}
		requests++
		if left := time.Until(back); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	}, w.server, s.process)
	w.runAgent(t)
	began := time.Now()
	w.await(t, prompt, "a new assertion after the agent's return", func() error {
		if s.mustAsk(t) == old {
			return errors.New("the old one still")
		}
		return nil
	}, w.server, w.agent, s.process)
	t.Logf("%d tokens without the agent; a new assertion %v after its return", requests, time.Since(began))
}

// serverHangs stops the server past half of the assertion's life, when agent and
// svidecar would have a new one.
func serverHangs(t *testing.T, w *world, svidecar string, life time.Duration) {
	s := serving(t, w, svidecar)
	old := s.mustAsk(t)
	if err := w.server.stop(); err != nil {
		t.Fatal(err)
	}
	half := old.Issued.Add(life/2 + time.Second)
	w.await(t, time.Until(half)+upLimit, "half of the life", func() error {
		if got := s.mustAsk(t); got != old {
			t.Fatalf("with a server that hangs: Entra was shown %+v, want %+v", got, old)
		}
		if left := time.Until(half); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	}, w.agent, s.process)
	if got := s.mustAsk(t); got != old { // past half-life
		t.Errorf("past half-life: Entra was shown %+v, want %+v", got, old)
	}
	if err := w.server.resume(); err != nil {
		t.Fatal(err)
	}
	w.await(t, upLimit, "a new assertion after the server went on", func() error {
		if s.mustAsk(t) == old {
			return errors.New("the old one still")
		}
		return nil
	}, w.server, w.agent, s.process)
}

// keyRotates goes through the steps of SPIRE's forced rotation in their order. No
// request fails at any of them: the old key is revoked when svidecar has moved.
func keyRotates(t *testing.T, w *world, svidecar string, life time.Duration) {
	s := serving(t, w, svidecar)
	old := s.mustAsk(t).KeyID
	w.rotate(t, old, func() {
		w.await(t, life+upLimit, "an assertion by the new key", func() error {
			if s.mustAsk(t).KeyID == old {
				return errors.New("by the old key")
			}
			return nil
		}, w.server, w.agent, s.process)
	})
	s.mustAsk(t)
	if refusals := w.entra.Calls().Refusals; len(refusals) != 0 {
		t.Errorf("Entra refused %v", refusals)
	}
}

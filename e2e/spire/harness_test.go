//go:build linux

package spire_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

func TestLayoutRefuses(t *testing.T) {
	for name, dir := range map[string]string{
		"relative":      "tmp/x",
		"a quote":       `/tmp/a"b`,
		"interpolation": "/tmp/${HOME}",
		"a space":       "/tmp/a b",
		"too long":      "/" + strings.Repeat("a", maxSocketPath),
	} {
		if _, err := newLayout(dir); err == nil || !strings.Contains(err.Error(), "set TMPDIR") {
			t.Errorf("%s: newLayout(%q): %v, want advice", name, dir, err)
		}
	}
	longest := "/" + strings.Repeat("a", maxSocketPath-len("/")-len("/server.sock"))
	if _, err := newLayout(longest); err != nil {
		t.Errorf("the longest path: %v", err)
	}
	if _, err := newLayout(longest + "a"); err == nil {
		t.Error("one more byte is taken")
	}
}

// TestConfigurations reads the files as the stand-ins do, which know only settings
// of SPIRE's documentation.
func TestConfigurations(t *testing.T) {
	l, err := newLayout("/tmp/w")
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "https://localhost:4433"
	life := 90 * time.Second
	for name, tt := range map[string]struct {
		text string
		want map[string]string
		not  []string
	}{
		"server for Entra": {l.serverConf(settings{keyType: "rsa-2048", life: life}, 8081, issuer), map[string]string{
			"bind_address": "127.0.0.1", "bind_port": "8081", "socket_path": "/tmp/w/server.sock", "jwt_key_type": "rsa-2048",
			"jwt_issuer": issuer, "default_jwt_svid_ttl": "90s", "trust_domain": "example.org",
		}, nil},
		"server by default": {l.serverConf(settings{noIssuer: true, life: life}, 8081, issuer), map[string]string{"bind_port": "8081"},
			[]string{"jwt_issuer", "jwt_key_type"}},
		"agent": {l.agentConf(8081, "token"), map[string]string{
			"server_address": "127.0.0.1", "server_port": "8081", "socket_path": "/tmp/w/agent.sock", "join_token": "token",
			"trust_bundle_path": "/tmp/w/bundle.pem", "trust_domain": "example.org",
		}, nil},
		"provider": {l.providerConf(issuer), map[string]string{
			"domains": `["localhost"]`, "jwt_issuer": issuer, "jwks_uri": issuer + "/keys", "set_key_use": "true",
			"listen_socket_path": "/tmp/w/oidc.sock", "address": "unix:///tmp/w/server.sock",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "conf")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			conf, err := readConf(path)
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range tt.want {
				if conf[key] != want {
					t.Errorf("%s is %q, want %q", key, conf[key], want)
				}
			}
			for _, key := range tt.not {
				if value, ok := conf[key]; ok {
					t.Errorf("%s is set, to %q", key, value)
				}
			}
		})
	}
}

func TestProcessThatEndsByItself(t *testing.T) {
	p, err := launch(t.TempDir(), "/bin/sh", nil, "-c", "echo could not bind; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	never := func() error { return errors.New("nothing listens") }
	err = until(t.Context(), time.Minute, never, p)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "could not bind") || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("until: %v; want the status, the output and what was waited for", err)
	}
	if err := p.end(); err == nil || !strings.Contains(err.Error(), "nobody asked it to end") {
		t.Errorf("end: %v", err)
	}
}

func TestProcessIsEnded(t *testing.T) {
	for name, script := range map[string]string{
		"running": "trap 'exit 0' TERM; echo up; while :; do :; done",
		"stopped": "trap 'exit 0' TERM; echo up; kill -STOP $$; while :; do :; done",
	} {
		t.Run(name, func(t *testing.T) {
			p, err := launch(t.TempDir(), "/bin/sh", nil, "-c", script)
			if err != nil {
				t.Fatal(err)
			}
			up := func() error {
				if !strings.Contains(p.output(), "up") {
					return errors.New("not up")
				}
				return nil
			}
			if err := until(t.Context(), time.Minute, up, p); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := p.end(); err != nil {
					t.Error(err)
				}
			}
			if err := p.cmd.Process.Signal(syscall.Signal(0)); err == nil {
				t.Error("it still runs")
			}
		})
	}
}

func TestProcessSeesNothingOfThisMachine(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///elsewhere")
	t.Setenv("AZURE_CLIENT_ID", "somebody")
	p, err := launch(t.TempDir(), "/usr/bin/env", []string{"GIVEN=1"})
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if out := p.output(); strings.Contains(out, "elsewhere") || strings.Contains(out, "somebody") || !strings.Contains(out, "GIVEN=1") {
		t.Errorf("the environment is:\n%s", out)
	}
}

func TestUntil(t *testing.T) {
	if err := until(t.Context(), 3*tick, func() error { return errors.New("the last word") }); err == nil ||
		!strings.Contains(err.Error(), "not within") || !strings.Contains(err.Error(), "the last word") {
		t.Errorf("past its limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := until(ctx, time.Hour, func() error { return errors.New("no") }); err == nil {
		t.Error("until outlives its context")
	}
	left := 3
	if err := until(t.Context(), time.Minute, func() error {
		if left--; left > 0 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || left != 0 {
		t.Errorf("until: %v, with %d looks left", err, left)
	}
}

func TestCommandKeepsTokensOutOfErrors(t *testing.T) {
	_, err := command(t.Context(), "/bin/sh", "-c", "echo a-join-token; echo the reason >&2; exit 1")
	if err == nil || !strings.Contains(err.Error(), "the reason") || strings.Contains(strings.SplitN(err.Error(), "exit status", 2)[1], "a-join-token") {
		t.Errorf("error %v, want the reason without what was printed", err)
	}
}

// TestStandInsAreStrict holds what makes a run against them worth something.
func TestStandInsAreStrict(t *testing.T) {
	bins := standInDir(t)
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("server {\n  invented = \"1\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"spire-server", "run", "-config", conf},
		{"spire-server", "run", "-config", conf + "x"},
		{"spire-server", "localauthority", "jwt", "rotate"},
		{"spire-server", "healthcheck", "-socket", "x"},
		{"spire-server", "healthcheck", "-socketPath", conf},
		{"spire-agent", "run", "-config", conf},
		{"spire-agent", "healthcheck", "-socketPath", conf},
		{"oidc-discovery-provider", "-config", conf},
		{"oidc-discovery-provider", "run"},
	} {
		if _, err := command(t.Context(), filepath.Join(bins, args[0]), args[1:]...); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// TestWorld walks through all that the harness does, without svidecar's program.
func TestWorld(t *testing.T) {
	w := newWorld(t, standInDir(t), settings{keyType: "rsa-2048", life: time.Minute})
	source, err := mint.NewWorkload(mint.WorkloadConfig{Address: "unix://" + w.agentSocket(), Audience: audience, VerifyBundle: true})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := source.Assertion(t.Context()); err == nil {
		t.Fatal("an assertion before the registration")
	}
	entry, err := w.register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var first mint.Assertion
	w.await(t, upLimit, "the first assertion", func() error { first, err = source.Fresh(t.Context()); return err }, w.server, w.agent)
	before, err := w.registry.authorities(t.Context())
	if err != nil || first.Claims.KeyID != before.active || first.Claims.Issuer != w.front.issuer {
		t.Errorf("assertion %v, keys %+v, error %v", first.Claims, before, err)
	}
	w.rotate(t, before.active, func() { // the agent drops what a tainted key signed
		w.await(t, upLimit, "an assertion by the new key", func() error {
			got, err := source.Fresh(t.Context())
			if err == nil && got.Claims.KeyID == before.active {
				err = errors.New("by the old key")
			}
			return err
		}, w.server, w.agent)
	})
	if err := w.agent.end(); err != nil {
		t.Error(err)
	}
	w.runAgent(t)
	if _, err := source.Fresh(t.Context()); err != nil {
		t.Errorf("after the agent's restart: %v", err)
	}
	if err := w.registry.unregister(t.Context(), entry); err != nil {
		t.Error(err)
	}
	w.await(t, upLimit, "a refusal after the entry's end", func() error {
		if _, err := source.Fresh(t.Context()); err == nil {
			return errors.New("an assertion still")
		}
		return nil
	}, w.server, w.agent)
	if err := w.registry.change(t.Context(), "revoke", before.active); err == nil {
		t.Error("a key is revoked twice")
	}
}

// rotate puts a new key into service, and takes the old one out.
func (w *world) rotate(t *testing.T, old string, moved func()) {
	t.Helper()
	next, err := w.registry.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.awaitPublished(t, next, true)
	for _, step := range []struct{ verb, id string }{{"activate", next}, {"taint", old}} {
		if err := w.registry.change(t.Context(), step.verb, step.id); err != nil {
			t.Fatal(err)
		}
	}
	moved()
	if err := w.registry.change(t.Context(), "revoke", old); err != nil {
		t.Fatal(err)
	}
	w.awaitPublished(t, old, false)
	now, err := w.registry.authorities(t.Context())
	if kids, _ := w.front.published(); err != nil || now.active != next || !slices.Contains(kids, next) {
		t.Errorf("keys %+v, published %q, error %v; want %s active", now, kids, err, next)
	}
}

// TestFront looks at the discovery document as the provider writes it, and mended.
func TestFront(t *testing.T) {
	w := newWorld(t, standInDir(t), settings{life: time.Minute})
	const empty = `"authorization_endpoint":""`
	for _, asIs := range []bool{true, false} {
		w.front.asIs.Store(asIs)
		doc, err := ask(w.front.client, w.front.issuer, "/.well-known/openid-configuration", nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(doc), empty) != asIs || w.front.mended.Load() == asIs || !strings.Contains(string(doc), w.front.issuer+"/keys") {
			t.Errorf("as it is: %v, mended: %v: %s", asIs, w.front.mended.Load(), doc)
		}
	}
	// The provider serves what it heard last while the server hangs.
	if err := w.server.stop(); err != nil {
		t.Fatal(err)
	}
	if kids, err := w.front.published(); err != nil || len(kids) != 1 {
		t.Errorf("while the server hangs: %q, %v", kids, err)
	}
	hung, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.registry.healthy(hung); err == nil {
		t.Error("a server that hangs is healthy")
	}
	if err := w.server.resume(); err != nil {
		t.Fatal(err)
	}
	if err := w.registry.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

//go:build linux

package spire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// upLimit bounds how long one of SPIRE's programs may take to serve.
const upLimit = time.Minute

const (
	tenantID = "5d0e7a8c-1b6f-4c3e-9a2d-7f4b8c6e1a30"
	clientID = "3f6b1c9e-8d2a-4e57-b0c4-92a7e5d1f863"
)

// world is SPIRE with one agent, and the emulated Entra that trusts it.
type world struct {
	layout
	bins     string
	registry registry
	token    string // the agent's join token
	server   *process
	agent    *process
	provider *process
	front    *front
	entra    *entratest.Server
	caFile   string
}

func newWorld(t *testing.T, bins string, s settings) *world {
	t.Helper()
	w := &world{bins: bins}
	var err error
	if w.layout, err = newLayout(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server", "agent"} {
		if err := os.Mkdir(w.at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.startEntra(t)
	port := freePort(t)
	w.write(t, "server.conf", w.serverConf(s, port, w.front.issuer))
	w.server = start(t, w.dir, w.program("spire-server"), nil, "run", "-config", w.at("server.conf"))
	w.registry = registry{w.program("spire-server"), w.serverSocket()}
	w.await(t, upLimit, "spire-server", func() error { return w.registry.healthy(t.Context()) }, w.server)
	w.startAgent(t, port)
	w.startProvider(t)
	return w
}

func (w *world) program(name string) string { return filepath.Join(w.bins, name) }

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(w.at(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// await is until, for what the test cannot go on without.
func (w *world) await(t *testing.T, limit time.Duration, what string, done func() error, needs ...*process) {
	t.Helper()
	if err := until(t.Context(), limit, done, needs...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// startEntra starts the front too, by whose URL Entra knows the issuer.
func (w *world) startEntra(t *testing.T) {
	t.Helper()
	ca, err := entratest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	w.front = newFront(t, ca, w.oidcSocket())
	w.entra, err = entratest.New(entratest.Config{CA: ca, Apps: []entratest.App{{
		ClientID: clientID, TenantID: tenantID, Name: "cart",
		Credentials: []entratest.FederatedCredential{{Issuer: w.front.issuer, Subject: workloadID, Audience: audience}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.entra.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.entra.Close() })
	w.caFile = w.at("entra-ca.pem")
	w.write(t, "entra-ca.pem", string(ca.PEM()))
}

func (w *world) startAgent(t *testing.T, serverPort int) {
	t.Helper()
	pem, err := w.registry.bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, filepath.Base(w.bundle()), string(pem))
	if w.token, err = w.registry.joinToken(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.write(t, "agent.conf", w.agentConf(serverPort, w.token))
	w.runAgent(t)
}

// runAgent starts the agent, again after it has ended.
func (w *world) runAgent(t *testing.T) {
	t.Helper()
	w.agent = start(t, w.dir, w.program("spire-agent"), nil, "run", "-config", w.at("agent.conf"))
	w.await(t, upLimit, "spire-agent", func() error {
		_, err := command(t.Context(), w.program("spire-agent"), "healthcheck", "-socketPath", w.agentSocket())
		return err
	}, w.server, w.agent)
}

func (w *world) startProvider(t *testing.T) {
	t.Helper()
	w.write(t, "oidc.conf", w.providerConf(w.front.issuer))
	w.provider = start(t, w.dir, w.program("oidc-discovery-provider"), nil, "-config", w.at("oidc.conf"))
	w.await(t, upLimit, "oidc-discovery-provider", func() error {
		kids, err := w.front.published()
		if err == nil && len(kids) == 0 {
			err = errors.New("the key set is empty")
		}
		return err
	}, w.server, w.provider)
}

// register gives this user's processes the identity that Entra trusts.
func (w *world) register(ctx context.Context) (entry string, err error) {
	return w.registry.register(ctx, w.token, workloadID, os.Getuid())
}

// awaitPublished waits until the published keys have a kid, or have it no more.
func (w *world) awaitPublished(t *testing.T, kid string, want bool) {
	t.Helper()
	w.await(t, upLimit, "published keys", func() error {
		kids, err := w.front.published()
		if err == nil && slices.Contains(kids, kid) != want {
			err = fmt.Errorf("kid %s in %q: %v, want %v", kid, kids, !want, want)
		}
		return err
	}, w.server, w.provider)
}

// freePort picks a port that nothing listens on. Another program may take it before
// SPIRE does, which then does not start; SPIRE cannot pick one itself.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
)

// world is all that the programs are measured in.
type world struct {
	ctx      context.Context
	dir      string // for logs, assertion and certificate
	cloud    *emulation.Emulation
	svidecar program
	peer     *program // nil: none
	running  []*process
}

// newWorld starts the emulated Entra and says how each program is started. The
// settings are those of a pod, and no more: all else is at its default.
func newWorld(ctx context.Context, binary string) (w *world, err error) {
	w = &world{ctx: ctx}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "svidecar-bench-"); err != nil {
		return w, err
	}
	// The keys are remembered, so that the emulator takes little of the
	// machine that it shares with what is measured.
	w.cloud, err = emulation.Start(emulation.Config{Entra: entratest.Config{KeyCacheTTL: time.Hour}})
	if err != nil {
		return w, err
	}
	env, err := w.podEnvironment()
	if err != nil {
		return w, err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return w, err
	}
	w.svidecar = program{
		name: "svidecar", file: binary, env: env,
		args: []string{"serve", "--listen=127.0.0.1:{port}", "--ops-listen=127.0.0.1:{ops}"},
		path: "/metadata/identity/oauth2/token", ready: "/readyz", onOps: true,
	}
	if runtime.GOOS != "linux" { // SSL_CERT_FILE means nothing there
		w.svidecar.args = append(w.svidecar.args, "--authority-ca-file="+filepath.Join(w.dir, "ca.pem"))
	}
	w.peer, err = peerProgram(env)
	return w, err
}

// podEnvironment makes the files of a pod and names them as
// azure-workload-identity's webhook does.
func (w *world) podEnvironment() ([]string, error) {
	assertion, err := w.cloud.Source.Assertion(w.ctx)
	if err != nil {
		return nil, err
	}
	token, ca := filepath.Join(w.dir, "assertion"), filepath.Join(w.dir, "ca.pem")
	err = errors.Join(
		os.WriteFile(token, []byte(assertion.Value.Reveal()), 0o600),
		os.WriteFile(ca, w.cloud.CA.PEM(), 0o600))
	return []string{
		"AZURE_CLIENT_ID=" + w.cloud.ClientID,
		"AZURE_TENANT_ID=" + w.cloud.TenantID,
		"AZURE_FEDERATED_TOKEN_FILE=" + token,
		"AZURE_AUTHORITY_HOST=" + w.cloud.Entra.URL() + "/",
		"SSL_CERT_FILE=" + ca, // beside the system's folder
	}, err
}

// peerProgram is the other sidecar, if the environment names one.
func peerProgram(env []string) (*program, error) {
	file := os.Getenv("PEER_BIN")
	if file == "" {
		return nil, nil
	}
	token, err := url.Parse(fill(os.Getenv("PEER_URL"), "1", "2"))
	if err != nil || token.Host != "127.0.0.1:1" {
		return nil, fmt.Errorf("PEER_URL %q is not http://127.0.0.1:{port}/…", os.Getenv("PEER_URL"))
	}
	health := cmp.Or(os.Getenv("PEER_READY"), "http://127.0.0.1:{port}/readyz")
	ready, err := url.Parse(fill(health, "1", "2"))
	if err != nil || ready.Host != "127.0.0.1:1" && ready.Host != "127.0.0.1:2" {
		return nil, fmt.Errorf("PEER_READY %q is not http://127.0.0.1:{port}/… or {ops}", health)
	}
	return &program{
		name: "peer", file: file, env: env, args: strings.Fields(os.Getenv("PEER_ARGS")),
		path: token.Path, ready: ready.Path, onOps: ready.Host == "127.0.0.1:2",
	}, nil
}

// start runs a program until the world ends.
func (w *world) start(prog program) (*process, error) {
	p, err := start(w.ctx, prog, w.dir)
	if err == nil {
		w.running = append(w.running, p)
	}
	return p, err
}

// close ends all that was started.
func (w *world) close() {
	for _, p := range w.running {
		p.stop()
	}
	if w.cloud != nil {
		w.cloud.Close()
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// floorProgram answers with the body of a reply of svidecar's.
func (w *world) floorProgram(reply []byte) (program, error) {
	_, body, ok := bytes.Cut(reply, []byte("\r\n\r\n"))
	if !ok || status(reply) != 200 {
		return program{}, fmt.Errorf("svidecar gave no token: %q", reply)
	}
	self, err := os.Executable()
	return program{
		name: "floor", file: self, args: []string{floorCommand, "127.0.0.1:{port}"},
		stdin: bytes.Clone(body), path: "/", ready: "/",
	}, err
}

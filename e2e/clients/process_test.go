//go:build e2e && linux

package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/svidecar/svidecar/internal/emulation"
)

// patience bounds one answer of a client, if nothing is in its way.
const patience = 30 * time.Second

// sidecar is a running svidecar.
type sidecar struct {
	cmd      *exec.Cmd
	args     []string
	reading  sync.WaitGroup
	mu       sync.Mutex
	output   bytes.Buffer // what it has written to standard error
	tenant   string       // of its tokens
	emulator string       // URL of its Entra
	url      string
	header   string
}

// The identity that clients choose by a selector is not the default one, so that a
// client which drops the selector is seen.
const (
	chosenClient   = "6c1d9f04-5e3b-4a8c-9d27-1b8e4f60a7c5"
	chosenObject   = "b7e20c51-9a4d-4f16-8c3e-d05f7a91e482"
	chosenResource = "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/dev/providers/Microsoft.ManagedIdentity/userAssignedIdentities/chosen"
)

const sidecarConfig = `tenant-id: %s
log-format: text
log-level: debug
identity-header-file: %q
authority-host: %s/
authority-ca-file: %q
shutdown-delay: 0s
identities:
  - {name: app, client-id: %s, default: true}
%s
sources:
  - {name: own, kind: local, issuer: %q, subject: %q, key-file: %q}
`

// prepareSidecar makes a sidecar that start starts, and an Entra of its own in this
// process, which knows these clients beside the default one. The identities are
// those that the sidecar lists for them, as lines of its configuration.
func prepareSidecar(t *testing.T, tenant, listen, identities string, clients ...string) (*sidecar, *emulation.Emulation) {
	t.Helper()
	dir := t.TempDir()
	key, authority, header, config := filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem"), filepath.Join(dir, "header"), filepath.Join(dir, "svidecar.yaml")
	cloud, err := emulation.Start(emulation.Config{TenantID: tenant, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	for _, id := range clients {
		cloud.Admit(id)
	}
	text := fmt.Sprintf(sidecarConfig, tenant, header, cloud.Entra.URL(), authority, cloud.ClientID, identities, cloud.Issuer, emulation.Subject, key)
	if err := errors.Join(
		os.WriteFile(config, []byte(text), 0o600),
		os.WriteFile(header, []byte(secretHeader), 0o600),
		os.WriteFile(authority, cloud.CA.PEM(), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return &sidecar{
		tenant: tenant, emulator: cloud.Entra.URL(), url: "http://" + listen, header: secretHeader,
		args: []string{"serve", "--config", config, "--listen", listen},
	}, cloud
}

// startSidecar runs a sidecar of the matrix until the end of the test.
func startSidecar(t *testing.T, tenant, listen string, args ...string) *sidecar {
	t.Helper()
	identities := fmt.Sprintf("  - {name: chosen, client-id: %s, object-id: %s, resource-id: %s}\n  - {name: stranger, client-id: %s}", chosenClient, chosenObject, chosenResource, strangerID)
	s, _ := prepareSidecar(t, tenant, listen, identities, chosenClient, strangerID)
	s.args = append(s.args, args...)
	s.start(t)
	t.Cleanup(func() { s.end(t) })
	return s
}

func (s *sidecar) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(program, s.args...)
	s.cmd.Env = baseEnv(t)
	s.output.Reset()
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	s.reading.Go(func() { s.read(stderr, ready) })
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		t.Fatalf("%v was not ready in time", s.cmd)
	}
}

// read closes ready at the line that says that it serves, or at the end.
func (s *sidecar) read(stderr io.Reader, ready chan struct{}) {
	announce := sync.OnceFunc(func() { close(ready) })
	defer announce()
	for lines := bufio.NewReader(stderr); ; {
		line, err := lines.ReadString('\n')
		s.mu.Lock()
		s.output.WriteString(line)
		s.mu.Unlock()
		if strings.Contains(line, "msg=serving") {
			announce()
		}
		if err != nil {
			return
		}
	}
}

func (s *sidecar) end(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	stuck := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer stuck.Stop()
	s.reading.Wait()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v, asked to end by SIGTERM: %v", s.cmd, err)
	}
}

// requests counts the token requests in which mark occurs, by the sidecar's log. The
// log's line comes after the reply, so a request of the test's own goes behind.
func (s *sidecar) requests(t *testing.T, marks ...string) []int {
	t.Helper()
	fence := fmt.Sprintf("/fence-%d", serial.Add(1))
	resp, err := http.Get(s.url + fence)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	lines := s.log(t, fence)
	counts := make([]int, len(marks))
	for i, mark := range marks {
		for _, line := range lines {
			if strings.Contains(line, "msg=request") && strings.Contains(line, mark) {
				counts[i]++
			}
		}
	}
	return counts
}

// log gives the lines so far, once word is in one of them.
func (s *sidecar) log(t *testing.T, word string) []string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		text := s.output.String()
		s.mu.Unlock()
		if strings.Contains(text, word) {
			return strings.Split(text, "\n")
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%v has no %q in its log", s.cmd, word)
		}
	}
}

// baseEnv is all that a client sees of this machine's variables.
func baseEnv(t *testing.T) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LANG=C.UTF-8", caFile + "=" + os.Getenv(caFile)}
}

func newCommand(t *testing.T, command, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:len(command):len(command)], args...)...)
	cmd.Env = append(baseEnv(t), env...)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = time.Second
	return cmd
}

// client is a running client: one process, which asks when told to.
type client struct {
	cmd     *exec.Cmd
	input   io.WriteCloser
	answers *bufio.Reader
}

var (
	// errUnsupported: the client has no such selector.
	errUnsupported = errors.New("the client has no such selector")
	errTooLong     = errors.New("no answer in time")
	// errEnded: the client's process is gone, which none may be by itself.
	errEnded = errors.New("the client ended")
)

func startClient(t *testing.T, command, env []string, args ...string) *client {
	t.Helper()
	c := &client{cmd: newCommand(t, command, env, args...)}
	var err error
	if c.input, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.answers = bufio.NewReader(output)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask has the client get a token for the resource.
func (c *client) ask(resource string) (token string, err error) {
	return c.askWithin(patience, resource)
}

// askWithin ends a client that takes longer.
func (c *client) askWithin(patience time.Duration, resource string) (token string, err error) {
	_, _ = io.WriteString(c.input, resource+"\n") // a client that is gone is seen below
	late := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	line, err := c.answers.ReadBytes('\n')
	if !late.Stop() {
		return "", errTooLong
	}
	if err != nil {
		_ = c.cmd.Wait()
		if c.cmd.ProcessState.ExitCode() == 3 {
			return "", errUnsupported
		}
		return "", fmt.Errorf("%w: %v", errEnded, c.cmd.ProcessState)
	}
	var answer struct{ Token, Value, Error string }
	if err := json.Unmarshal(line, &answer); err != nil {
		return "", fmt.Errorf("%w in %q", err, line)
	}
	if got := answer.Token + answer.Value; got != "" { // a consumer has a value in place of a token
		return got, nil
	}
	return "", errors.New(answer.Error)
}

// end lets the client go, and returns when it has.
func (c *client) end() {
	_ = c.input.Close()
	_, _ = io.Copy(io.Discard, c.answers)
	if err := c.cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return // how it ended is no part of the matrix
	}
}

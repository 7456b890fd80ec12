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
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds one answer of a client, if nothing is in its way.
const patience = 30 * time.Second

// sidecar is a running svidecar.
type sidecar struct {
	cmd      *exec.Cmd
	args     []string
	ready    string // in the line that says that it serves
	reading  sync.WaitGroup
	mu       sync.Mutex
	output   bytes.Buffer // what it has written to standard error
	tenant   string       // of its tokens
	emulator string       // its URL, if dev does not tell it
	url      string
	header   string
}

// startSidecar runs dev until the end of the test, with tokens of that tenant.
func startSidecar(t *testing.T, tenant string, args ...string) *sidecar {
	t.Helper()
	s := &sidecar{tenant: tenant, ready: "Ctrl-C ends it", args: append([]string{"dev", "--tenant-id", tenant}, args...)}
	s.start(t)
	t.Cleanup(func() { s.end(t) })
	s.url = s.said(t, `AZURE_POD_IDENTITY_AUTHORITY_HOST=(\S+)`)
	s.header = s.said(t, `IDENTITY_HEADER=(\S+)`)
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

// read closes ready at the line that says so, or at the end.
func (s *sidecar) read(stderr io.Reader, ready chan struct{}) {
	announce := sync.OnceFunc(func() { close(ready) })
	defer announce()
	for lines := bufio.NewReader(stderr); ; {
		line, err := lines.ReadString('\n')
		s.mu.Lock()
		s.output.WriteString(line)
		s.mu.Unlock()
		if strings.Contains(line, s.ready) {
			announce()
		}
		if err != nil {
			return
		}
	}
}

// said finds what dev printed for people.
func (s *sidecar) said(t *testing.T, pattern string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	found := regexp.MustCompile(pattern).FindStringSubmatch(s.output.String())
	if found == nil {
		t.Fatalf("dev did not print %s:\n%s", pattern, s.output.String())
	}
	return found[1]
}

// emulatorURL is where its emulator of Entra publishes keys.
func (s *sidecar) emulatorURL() string {
	if s.emulator != "" {
		return s.emulator
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, after, _ := strings.Cut(s.output.String(), "\nemulator ")
	url, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	return url
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
		return "", fmt.Errorf("the client ended: %v", c.cmd.ProcessState)
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

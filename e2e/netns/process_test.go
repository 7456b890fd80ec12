//go:build e2e && linux

package netns_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a running svidecar.
type process struct {
	mu     sync.Mutex
	output bytes.Buffer // what it has written to standard error
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// need skips where there is no namespace. Every test begins with it: outside of
// one, no test may send anything.
func need(t *testing.T, tools ...string) {
	t.Helper()
	if skipped != "" {
		t.Skip(skipped)
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		} else if lenient {
			t.Skip(err)
		} else {
			t.Fatalf("%v; set %s to do without", err, allowSkip)
		}
	}
}

// start runs svidecar until the end of the test, and returns once a line of its
// standard error holds ready.
func start(t *testing.T, ready string, env []string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{}
	seen := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { p.read(stderr, ready, seen) })
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer stuck.Stop()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v, asked to end by SIGTERM: %v", cmd, err)
		}
		if t.Failed() {
			t.Logf("%v wrote:\n%s", cmd, p.log())
		}
	})
	select {
	case <-seen:
	case <-time.After(20 * time.Second):
		t.Fatalf("%v was not ready in time", cmd)
	}
	if !strings.Contains(p.log(), ready) {
		t.Fatalf("%v ended before it was ready", cmd)
	}
	return p
}

// read closes seen at the line that says ready, or at the end.
func (p *process) read(stderr io.Reader, ready string, seen chan struct{}) {
	var once sync.Once
	announce := func() { once.Do(func() { close(seen) }) }
	defer announce()
	for lines := bufio.NewReader(stderr); ; {
		line, err := lines.ReadString('\n')
		p.mu.Lock()
		p.output.WriteString(line)
		p.mu.Unlock()
		if strings.Contains(line, ready) {
			announce()
		}
		if err != nil {
			return
		}
	}
}

// dev is `svidecar dev` at the real address, as a redirection or an alias on
// loopback would make it look to an app.
func dev(t *testing.T) *process {
	t.Helper()
	return start(t, "Ctrl-C ends it", nil, "dev", "--listen", address+":80", "--unsafe-listen")
}

// run gives what a command printed, and fails the test if it failed.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

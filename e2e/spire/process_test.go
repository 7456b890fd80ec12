//go:build linux

package spire_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	tick     = 20 * time.Millisecond // between two looks at a condition
	endLimit = 10 * time.Second      // from SIGTERM to SIGKILL
)

// process is a program that runs until it is ended, or until the test ends.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed after Wait

	mu     sync.Mutex
	tail   []byte
	asked  bool // somebody asked it to end
	status error
}

// maxTail bounds what is kept of a program's output.
const maxTail = 32 << 10

// Write keeps the end of the output.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail = append(p.tail, b...)
	p.tail = p.tail[max(0, len(p.tail)-maxTail):]
	return len(b), nil
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.tail)
}

// launch starts a program with none of this machine's settings. The program dies
// with this process.
func launch(dir, program string, env []string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "GORACE=atexit_sleep_ms=0"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = time.Second // for children that keep the output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		err := p.cmd.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.status = err
	}()
	return p, nil
}

// gone says how the process ended, or nil if it runs.
func (p *process) gone() error {
	select {
	case <-p.ended:
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("%s has ended (%v) after saying:\n%s", filepath.Base(p.cmd.Path), p.status, p.tail)
	default:
		return nil
	}
}

// end asks with SIGTERM, and then insists. It reports what went on without having
// been asked, and a status other than zero. A second call does nothing.
func (p *process) end() error {
	unasked := p.gone()
	p.mu.Lock()
	again := p.asked
	p.asked = true
	p.mu.Unlock()
	if again {
		return nil
	}
	if unasked != nil {
		return fmt.Errorf("nobody asked it to end: %w", unasked)
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // a stopped process would not hear
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	insist := time.AfterFunc(endLimit, func() { _ = p.cmd.Process.Kill() })
	<-p.ended
	if !insist.Stop() {
		return fmt.Errorf("%s did not end within %v of SIGTERM:\n%s", filepath.Base(p.cmd.Path), endLimit, p.output())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// stop makes the process hang, as a machine without memory does; resume ends that.
func (p *process) stop() error   { return p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// start is launch for the length of a test.
func start(t *testing.T, dir, program string, env []string, args ...string) *process {
	t.Helper()
	p, err := launch(dir, program, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Errorf("%s: %v", filepath.Base(program), err)
		}
		if t.Failed() {
			t.Logf("%s wrote last:\n%s", filepath.Base(program), p.output())
		}
	})
	return p
}

// until looks every tick whether done returns nil, which ends it at once. It gives up
// after limit with the last thing that done said, or when one of the processes ends.
func until(ctx context.Context, limit time.Duration, done func() error, needs ...*process) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	again := time.NewTicker(tick)
	defer again.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		for _, p := range needs {
			if gone := p.gone(); gone != nil {
				return errors.Join(err, gone)
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		}
	}
}

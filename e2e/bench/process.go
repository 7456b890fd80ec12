package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// program is something that can be started: how, and where it then answers.
type program struct {
	name  string
	file  string
	args  []string // with {port} and {ops} for free ports
	env   []string
	stdin []byte
	path  string // of its token endpoint
	ready string // path that is answered 200 once it serves
	onOps bool   // ready is asked on {ops}, not on {port}
}

// process is a program that runs, from start to stop.
type process struct {
	program
	cmd     *exec.Cmd
	address string
	took    time.Duration // from start to ready
	log     *os.File
	ended   chan error
}

// start runs a program in the folder dir and returns once it is ready. Its log
// goes to a file, so that reading it costs nothing.
func start(ctx context.Context, prog program, dir string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	ops, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(dir, prog.name+"-*.log")
	if err != nil {
		return nil, err
	}
	p := &process{program: prog, address: "127.0.0.1:" + port, log: log, ended: make(chan error, 1)}
	var args []string
	for _, arg := range prog.args {
		args = append(args, fill(arg, port, ops))
	}
	p.cmd = exec.CommandContext(ctx, prog.file, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(prog.env, "PATH="+os.Getenv("PATH")), log, log
	if prog.stdin != nil {
		p.cmd.Stdin = bytes.NewReader(prog.stdin)
	}
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() { p.ended <- p.cmd.Wait() }()
	asked := p.address
	if prog.onOps {
		asked = "127.0.0.1:" + ops
	}
	if err := p.awaitReady(ctx, asked); err != nil {
		p.stop()
		return nil, err
	}
	p.took = time.Since(begin)
	return p, nil
}

// fill puts ports where a template wants them.
func fill(template, port, ops string) string {
	return strings.NewReplacer("{port}", port, "{ops}", ops).Replace(template)
}

// awaitReady asks until the answer is 200.
func (p *process) awaitReady(ctx context.Context, address string) error {
	const every = 200 * time.Microsecond
	deadline := time.After(20 * time.Second)
	for {
		if askedOnce(ctx, address, p.ready) {
			return nil
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("%s ended: %v\n%s", p.name, err, p.tail())
		case <-deadline:
			return fmt.Errorf("%s is not ready after 20 s\n%s", p.name, p.tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(every):
		}
	}
}

func askedOnce(ctx context.Context, address, target string) bool {
	clients, err := dial(ctx, address, 1)
	if err != nil {
		return false
	}
	defer hangUp(clients)
	return clients[0].statusOf(request(target)) == 200
}

// tokenRequest is what is asked of the program for one resource.
func (p program) tokenRequest(resource string) []byte {
	return request(p.path + "?api-version=2018-02-01&resource=" + resource)
}

// request is what every client sends.
func request(target string) []byte {
	return []byte("GET " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\nMetadata: true\r\n\r\n")
}

// stop ends the process at once and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	_ = p.log.Close()
}

// tail is the end of what the process said.
func (p *process) tail() string {
	const most = 2 << 10
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// hasProc says whether this system tells what a process uses.
const hasProc = runtime.GOOS == "linux"

// memory is what the process occupies (its resident set), in bytes, as
// /proc/PID/status tells it. Elsewhere it is zero.
func (p *process) memory() (float64, error) {
	if !hasProc {
		return 0, nil
	}
	text, err := os.ReadFile(p.proc("status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		return 0, fmt.Errorf("%s: VmRSS: %w", p.proc("status"), err)
	}
	return kib * 1024, nil
}

// cpu is the processor time that the process has used, in seconds, as
// /proc/PID/stat tells it: in hundredths. Elsewhere it is zero.
func (p *process) cpu() (float64, error) {
	if !hasProc {
		return 0, nil
	}
	text, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name, which may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3 // numbered from 1, the first of ours is 3
	if len(fields) <= stime {
		return 0, io.ErrUnexpectedEOF
	}
	var ticks int
	for _, field := range []string{fields[utime], fields[stime]} {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return float64(ticks) / 100, nil
}

func (p *process) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file)
}

package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running `svidecar serve`.
type process struct {
	cmd    *exec.Cmd
	drain  sync.WaitGroup
	tokens string // address
	ops    string // address

	mu      sync.Mutex
	tail    []string // the last lines of its log
	strange []string // lines that no fault excuses
}

func startSidecar(env, args []string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	dieWithParent(p.cmd)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	serving := make(chan bool, 1)
	p.drain.Go(func() { p.read(stderr, serving) })
	select {
	case ok := <-serving:
		if ok {
			return p, nil
		}
	case <-time.After(20 * time.Second):
	}
	_ = p.cmd.Process.Kill()
	p.drain.Wait()
	return nil, fmt.Errorf("svidecar does not serve: %v\n%s", p.cmd.Wait(), p.last())
}

// read keeps the end of the log, and learns from it where the sidecar listens.
func (p *process) read(stderr io.Reader, serving chan<- bool) {
	const most = 20
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		p.tail = append(p.tail[max(0, len(p.tail)-most):], line)
		if strings.Contains(line, "internal error") || strings.Contains(line, "panic") || strings.Contains(line, "goroutine ") {
			p.strange = append(p.strange, line)
		}
		p.mu.Unlock()
		var said struct{ Msg, Tokens, Ops string }
		if p.tokens == "" && json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
			p.tokens, p.ops = said.Tokens, said.Ops
			serving <- true
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
	select {
	case serving <- false:
	default:
	}
}

func (p *process) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

func (p *process) complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.strange
}

// end sends SIGTERM and wants exit status 0 within limit.
func (p *process) end(limit time.Duration) error {
	killed := time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() })
	defer killed.Stop()
	polite := p.cmd.Process.Signal(syscall.SIGTERM) == nil
	if !polite { // Windows has no such signal, and then there is no status to judge
		_ = p.cmd.Process.Kill()
	}
	p.drain.Wait()
	if err := p.cmd.Wait(); err != nil && polite {
		return fmt.Errorf("after SIGTERM, within %v: %w\n%s", limit, err, p.last())
	}
	return nil
}

// metrics are the sums of the sidecar's metrics by name, labels left out.
func (p *process) metrics(ctx context.Context) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.ops+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	sums := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		name, _, _ = strings.Cut(name, "{")
		if x, err := strconv.ParseFloat(value, 64); err == nil {
			sums[name] += x
		}
	}
	return sums, lines.Err()
}

// rest is what the sidecar occupies.
type rest struct {
	goroutines float64
	memory     float64 // resident, in bytes; zero where the system does not tell
	exchanges  float64 // so far
}

func (p *process) rest(ctx context.Context) (rest, error) {
	sums, err := p.metrics(ctx)
	if err != nil {
		return rest{}, err
	}
	r := rest{goroutines: sums["go_goroutines"], exchanges: sums["svidecar_exchanges_total"]}
	if runtime.GOOS != "linux" {
		return r, nil
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return rest{}, err
	}
	_, after, _ := strings.Cut(string(text), "\nVmRSS:")
	var kib float64
	if _, err := fmt.Sscanf(after, "%f kB", &kib); err != nil {
		return rest{}, fmt.Errorf("VmRSS: %w", err)
	}
	r.memory = kib * 1024
	return r, nil
}

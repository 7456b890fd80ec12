//go:build e2e && linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// daemon is a program that runs until the namespaces end.
type daemon struct {
	name string
	log  string        // path of what it prints
	done chan struct{} // closed when it has ended
}

// spawn starts a daemon, which is found in PATH.
func (c *Cluster) spawn(name string, args ...string) (*daemon, error) {
	d := &daemon{name: name, log: c.path("log", name+".txt"), done: make(chan struct{})}
	if err := os.MkdirAll(filepath.Dir(d.log), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		_ = cmd.Wait()
	}()
	return d, nil
}

var errNotYet = errors.New("not yet")

// await calls ready until it gives nil. It gives up when the daemon has ended, or after a minute.
func (d *daemon) await(ready func() error) error {
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.done:
			return fmt.Errorf("%s has ended; its last words:\n%s", d.name, d.tail())
		case <-deadline:
			return fmt.Errorf("%s is not ready after a minute: %w; its last words:\n%s", d.name, err, d.tail())
		}
	}
}

// tail is the end of what the daemon printed.
func (d *daemon) tail() string { return tailOf(d.log) }

func tailOf(file string) string {
	const lines, columns = 12, 400
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		all[i] = line[:min(len(line), columns)]
	}
	return strings.Join(all, "\n")
}

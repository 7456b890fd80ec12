//go:build e2e && linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Config says what is built for the cluster.
type Config struct {
	Images []Image // to run in pods; each name once
	Helm   bool    // put helm among the programs
}

const (
	// allowSkip lets a machine that can have no cluster pass. Without it, tests that did not run fail: nobody reads skips.
	allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"

	role      = "CLUSTER_ROLE" // tells this binary which of the three runs it is
	roleInit  = "init"
	roleTests = "tests"
	dirOf     = "CLUSTER_DIR"    // state of the cluster, from the outer run to the inner ones
	cgroupOf  = "CLUSTER_CGROUP" // name below each hierarchy's root
)

// Main prepares what the cluster needs, and calls run within the namespaces; its status is run's. The cluster is not
// started yet: see [Cluster.API] and [Cluster.Node].
func Main(cfg Config, run func(*Cluster) int) (status int) {
	switch os.Getenv(role) {
	case roleInit:
		return complain(becomeInit())
	case roleTests:
		c, err := inside()
		if err != nil {
			return complain(err)
		}
		return run(c)
	}
	return outside(cfg, run)
}

// complain prints an error, and gives the status that stands for it. An [exec.ExitError] is the status of tests that ran.
func complain(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "e2e/kubernetes:", err)
	return 1
}

func outside(cfg Config, run func(*Cluster) int) int {
	if reason := impossible(); reason != "" {
		fmt.Fprintf(os.Stderr, "*** e2e/kubernetes: %s: NOTHING WAS TESTED IN A CLUSTER ***\n", reason)
		if os.Getenv(allowSkip) == "" {
			fmt.Fprintf(os.Stderr, "*** this counts as a failure unless %s is set ***\n", allowSkip)
			return 1
		}
		return run(&Cluster{skipped: reason})
	}
	removeStale()
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", stateDirs, os.Getpid()))
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	if err := prepare(cfg, dir); err != nil {
		return complain(err)
	}
	status, err := sealed(dir)
	if err != nil {
		return complain(err)
	}
	return status
}

// impossible says why there can be no cluster on this machine.
func impossible() string {
	if os.Getuid() != 0 {
		return "a cluster needs root"
	}
	for _, program := range []string{"containerd", "ctr", "runc", "ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is missing (apt-get install containerd runc iproute2 util-linux)"
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := cmd.Run(); err != nil {
		return fmt.Sprintf("no namespaces are to be had here: %v", err)
	}
	return ""
}

const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID

// sealed runs this binary again as the first process of new namespaces, and gives its status. All processes of the
// cluster are below it, and end with it.
func sealed(dir string) (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	group, err := makeCgroup(os.Getpid())
	if err != nil {
		return 0, err
	}
	defer removeCgroup(group)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), role+"="+roleInit, dirOf+"="+dir, cgroupOf+"="+group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal comes when the thread that started the process ends, not the process
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); ended && cmd.ProcessState.ExitCode() > 0 {
		return cmd.ProcessState.ExitCode(), nil
	}
	return 0, err
}

// becomeInit is the first process of the namespaces: it starts the tests, buries whatever loses its parent, and ends
// with the status of the tests.
func becomeInit() error {
	if pid := os.Getpid(); pid != 1 {
		return fmt.Errorf("process %d is not the first of its namespace", pid)
	}
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts from the machine: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv(role, roleTests); err != nil {
		return err
	}
	tests, err := os.StartProcess(self, os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for the tests: %w", err)
		case pid != tests.Pid:
		case status.Signaled():
			return fmt.Errorf("the tests ended by %v", status.Signal())
		default:
			os.Exit(status.ExitStatus())
		}
	}
}

// inside makes the namespaces into a node.
func inside() (*Cluster, error) {
	c := &Cluster{dir: os.Getenv(dirOf), cgroup: os.Getenv(cgroupOf)}
	for _, name := range []string{role, dirOf, cgroupOf} {
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	if err := c.seal(); err != nil {
		return nil, fmt.Errorf("making the node's namespaces: %w", err)
	}
	return c, os.Setenv("PATH", filepath.Join(c.dir, "bin")+":"+os.Getenv("PATH"))
}

// need skips where there is no cluster. Everything that a test calls first ends here.
func (c *Cluster) need(t *testing.T) {
	t.Helper()
	switch {
	case c == nil:
		t.Fatal("cluster: TestMain has not called Main")
	case c.skipped != "":
		t.Skip(c.skipped)
	}
}

// run runs a command whose output matters only if it fails.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

//go:build e2e && linux

package clients_test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	// inside holds the path of the built program, and tells the test binary
	// that it runs in the namespaces.
	inside = "CLIENTS_PROGRAM"
	// allowSkip lets a machine without namespaces, or without a language, pass.
	// Without it, what did not run fails: nobody reads skips.
	allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"
	// notPermitted is the status by which the inner run says that the
	// namespaces are there and may not be used.
	notPermitted = 77
)

var (
	update  = flag.Bool("update", false, "write docs/compatibility.md")
	program string // the built svidecar
	skipped string // why no test can run
	lenient bool   // skips are allowed
)

func TestMain(m *testing.M) {
	flag.Parse()
	lenient = os.Getenv(allowSkip) != ""
	if program = os.Getenv(inside); program == "" {
		os.Exit(outside(m))
	}
	if err := prepare(); err != nil {
		complain(err)
		os.Exit(notPermitted)
	}
	os.Exit(m.Run())
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e/clients:", err)
	return 1
}

// outside builds the program, fetches the clients, and runs this binary again in
// namespaces of its own.
func outside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "svidecar-clients-")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir)
	built := filepath.Join(dir, "svidecar")
	build := exec.Command("go", "build", "-o", built, "../../cmd/svidecar")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return complain(fmt.Errorf("%v: %w", build, err))
	}
	installed := install()
	status, err := reexecute(append(installed, inside+"="+built))
	if err == nil && status != notPermitted {
		return status
	}
	skipped = fmt.Sprintf("no network and mount namespaces are to be had here (status %d, %v): no client was run", status, err)
	fmt.Fprintln(os.Stderr, "*** e2e/clients:", skipped, "***")
	if !lenient {
		fmt.Fprintf(os.Stderr, "*** this counts as a failure unless %s is set ***\n", allowSkip)
		return 1
	}
	return m.Run()
}

// reexecute tries the namespaces alone, which root may have, and then those in a
// user namespace, which anybody may where the system allows it.
func reexecute(env []string) (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	for _, user := range []uintptr{0, syscall.CLONE_NEWUSER} {
		cmd := exec.Command(self, os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:   syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | user,
			Unshareflags: syscall.CLONE_NEWNS, // makes mounts private
			Pdeathsig:    syscall.SIGKILL,
		}
		if user != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		err = cmd.Run()
		if _, ended := errors.AsType[*exec.ExitError](err); err == nil || ended {
			if code := cmd.ProcessState.ExitCode(); code >= 0 {
				return code, nil
			}
			return 0, errors.New(cmd.ProcessState.String())
		}
	}
	return 0, err
}

// prepare raises the loopback link with the address of the metadata service, once it
// is sure that nothing that is sent can leave, and gives Azure Arc's clients a /var/opt that is not this machine's.
func prepare() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Name != "lo" {
			return fmt.Errorf("the namespace has the link %s: packets could leave it", link.Name)
		}
	}
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", "169.254.169.254/32", "dev", "lo"}, // or there is no route, and nothing to redirect
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
	}
	if err := syscall.Mount("none", "/var/opt", "tmpfs", 0, ""); err != nil {
		return err
	}
	return nameStandIns()
}

// nameStandIns puts an /etc/hosts of the stand-ins' names over the machine's.
func nameStandIns() error {
	file := filepath.Join("/var/opt", "hosts")
	if err := os.WriteFile(file, []byte(hosts), 0o644); err != nil {
		return err
	}
	return syscall.Mount(file, "/etc/hosts", "", syscall.MS_BIND, "")
}

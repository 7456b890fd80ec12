//go:build e2e && linux

package netns_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const (
	// inside holds the path of the built program, and tells the test binary
	// that it runs in the namespace.
	inside = "NETNS_PROGRAM"
	// allowSkip lets a machine without namespaces pass. Without it, tests
	// that did not run fail: nobody reads skips.
	allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"
	// notPermitted is the status by which the inner run says that the
	// namespace is there and may not be used.
	notPermitted = 77

	address = "169.254.169.254"
)

var (
	program string // the built svidecar
	skipped string // why no test can run
	lenient bool   // skips are allowed
)

func TestMain(m *testing.M) {
	lenient = os.Getenv(allowSkip) != ""
	program = os.Getenv(inside)
	scrub()
	if program != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e/netns:", err)
			os.Exit(notPermitted)
		}
		os.Exit(m.Run())
	}
	os.Exit(outside(m))
}

// misleading matches variables by which a developer's machine would change
// what clients or the program do.
var misleading = regexp.MustCompile(`(?i)^(AZURE_|ARM_|MSI_|MSAL_|IDENTITY_|IMDS_|SVIDECAR_|APPSETTING_|DEFAULT_IDENTITY_|NETNS_)|^(https?|all|no)_proxy$`)

func scrub() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); misleading.MatchString(name) {
			_ = os.Unsetenv(name)
		}
	}
}

// outside builds the program, and runs this binary again in a namespace.
func outside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "svidecar-netns-")
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
	status, err := reexecute(built)
	if err == nil && status != notPermitted {
		return status
	}
	skipped = fmt.Sprintf("no network namespace is to be had here (status %d, %v): nothing was tested against %s", status, err, address)
	fmt.Fprintln(os.Stderr, "*** e2e/netns:", skipped, "***")
	if !lenient {
		fmt.Fprintf(os.Stderr, "*** this counts as a failure unless %s is set ***\n", allowSkip)
		return 1
	}
	return m.Run()
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "e2e/netns:", err)
	return 1
}

// reexecute tries a network namespace alone, which root may have, and then one
// in a user namespace, which anybody may where the system allows it.
func reexecute(built string) (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	for _, attributes := range []*syscall.SysProcAttr{
		{Cloneflags: syscall.CLONE_NEWNET},
		{
			Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	} {
		cmd := exec.Command(self, os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), inside+"="+built)
		if lenient {
			cmd.Env = append(cmd.Env, allowSkip+"=1")
		}
		cmd.SysProcAttr = attributes
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err = cmd.Run()
		if _, ended := errors.AsType[*exec.ExitError](err); err == nil || ended {
			return max(cmd.ProcessState.ExitCode(), 0), lost(cmd.ProcessState)
		}
	}
	return 0, err
}

// lost is an error if the inner run was killed and has no status.
func lost(state *os.ProcessState) error {
	if state.ExitCode() < 0 {
		return errors.New(state.String())
	}
	return nil
}

// prepare gives the address to the loopback link, once it is sure that nothing
// that is sent can leave.
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
		{"address", "add", address + "/32", "dev", "lo"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

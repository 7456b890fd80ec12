package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// inside tells the test binary that it runs in the namespace.
	inside = "REDIRECT_TEST_INSIDE"
	// notPermitted is the status by which the inner run says that the
	// namespace is there and may not be used.
	notPermitted = 77
	// outerFile is where the inner run finds the namespace that it left.
	outerFile = 3

	address = "169.254.169.254"
	podIP   = "10.244.0.5"
)

var skipped = "this is not the run in a namespace of its own"

// TestMain runs this binary again in a network namespace of its own. Outside of
// one, only the tests that touch no network are run.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(outside(m))
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "deploy/redirect:", err)
		os.Exit(notPermitted)
	}
	skipped = ""
	os.Exit(m.Run())
}

func outside(m *testing.M) int {
	status, err := reexecute()
	if err == nil && status != notPermitted {
		return status
	}
	skipped = fmt.Sprintf("no network namespace is to be had here (status %d, %v): no redirection was tested", status, err)
	fmt.Fprintln(os.Stderr, "*** deploy/redirect:", skipped, "***")
	return m.Run()
}

// reexecute tries a network namespace alone, which root may have, and then one
// in a user namespace, which anybody may where the system allows it.
func reexecute() (status int, err error) {
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	defer here.Close()
	for _, attributes := range []*syscall.SysProcAttr{
		{Cloneflags: syscall.CLONE_NEWNET},
		{
			Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	} {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.ExtraFiles = []*os.File{here}
		cmd.SysProcAttr = attributes
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err = cmd.Run()
		if _, ended := errors.AsType[*exec.ExitError](err); err == nil || ended {
			if cmd.ProcessState.ExitCode() < 0 {
				return 0, errors.New(cmd.ProcessState.String())
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
	return 0, err
}

// prepare makes of the bare namespace what looks like a pod's to an app: an
// address, and a default route without which a connection fails before any rule
// is asked. Both are lo's, so that nothing can leave.
func prepare() error {
	if err := closed(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	pod := net.ParseIP(podIP)
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return netlink.LinkSetUp(lo) },
		func() error {
			return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: pod.To4(), Mask: net.CIDRMask(32, 32)}})
		},
		func() error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Src: pod, Scope: unix.RT_SCOPE_LINK})
		},
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// closed is an error unless lo is the only link of this thread's namespace:
// packets could leave by any other.
func closed() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	if len(links) != 1 || links[0].Attrs().Name != "lo" {
		return fmt.Errorf("the namespace has %d links, not lo alone: packets could leave it", len(links))
	}
	return nil
}

// need skips where there is no namespace. Each test that touches the network
// begins with it.
func need(t *testing.T) {
	t.Helper()
	if skipped != "" {
		t.Skip(skipped)
	}
	requireClosed(t)
}

// requireClosed ends the test unless nothing can leave. It stands before each
// thing that may send.
func requireClosed(t *testing.T) {
	t.Helper()
	if skipped != "" {
		t.Fatal(skipped)
	}
	if err := closed(); err != nil {
		t.Fatal(err)
	}
}

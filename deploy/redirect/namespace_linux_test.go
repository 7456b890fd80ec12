package redirect_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/svidecar/svidecar/deploy/redirect"
)

// thread runs do on a thread of its own, which ends with it: what do changes of
// the thread is nobody else's.
func thread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: the thread is not used again
		do()
	}()
	<-done
}

// empty is a further network namespace, with lo alone.
func empty(t *testing.T) *os.File {
	t.Helper()
	var file *os.File
	var err error
	thread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			file, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// within runs do in the namespace. It reports whether that was permitted.
func within(t *testing.T, namespace *os.File, do func()) bool {
	t.Helper()
	var err error
	thread(func() {
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err == nil {
			do()
		}
	})
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	return err == nil
}

// cable is a pair of links: one end is in this thread's namespace, the other in
// the one given, or here too.
func cable(t *testing.T, name string, other *os.File, up bool) {
	t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = name
	link := &netlink.Veth{LinkAttrs: a, PeerName: "to-" + name}
	if other != nil {
		link.PeerNamespace = netlink.NsFd(int(other.Fd()))
	}
	if err := netlink.LinkAdd(link); err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if up {
		if err := netlink.LinkSetUp(link); err != nil {
			t.Error(err)
		}
	}
}

func kubelet(t *testing.T, at string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = l.Close() })
}

func loUp(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestHostNetworkIsRefused: whatever is not surely a pod's network is refused,
// by each command that would change it. Nothing is sent here:
// the refusals come first, and what is applied has no reader.
func TestHostNetworkIsRefused(t *testing.T) {
	need(t)
	for _, tt := range []struct {
		name string
		make func(t *testing.T, elsewhere *os.File)
		says string // empty if it is a pod's
	}{
		{"lo alone", func(*testing.T, *os.File) {}, ""},
		{"a pod's link", func(t *testing.T, o *os.File) { cable(t, "eth0", o, true) }, ""},
		{"a further link of a pod's", func(t *testing.T, o *os.File) { cable(t, "net1", o, true) }, ""},
		{"an idle link", func(t *testing.T, _ *os.File) { cable(t, "tunl0", nil, false) }, ""},
		{"a link that stays here", func(t *testing.T, _ *os.File) { cable(t, "eth0", nil, true) }, `the link "eth0" has no other end`},
		{"the node's end of a pod's link", func(t *testing.T, o *os.File) { cable(t, "veth1a2b3c", o, true) }, `the link "veth1a2b3c" is not called`},
		{"the node's end beside a good one", func(t *testing.T, o *os.File) { cable(t, "eth0", o, true); cable(t, "cali1a2b3c", o, true) }, `the link "cali1a2b3c"`},
		{"kubelet", func(t *testing.T, o *os.File) { cable(t, "eth0", o, true); kubelet(t, "0.0.0.0:10250") }, "as kubelet does"},
		{"kubelet, IPv6", func(t *testing.T, _ *os.File) { kubelet(t, "[::]:10250") }, "as kubelet does"},
		{"kubelet's health", func(t *testing.T, _ *os.File) { loUp(t); kubelet(t, "127.0.0.1:10248") }, "as kubelet does"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			elsewhere := empty(t)
			within(t, empty(t), func() {
				tt.make(t, elsewhere)
				p := plan(t, redirect.Config{})
				applied, removed := p.Apply(t.Context()), p.Remove(t.Context())
				if tt.says == "" {
					if err := errors.Join(applied, removed); err != nil {
						t.Error(err)
					}
					return
				}
				wantError(t, applied, tt.says)
				wantError(t, removed, tt.says)
				// What only asks goes on: the signs may have come after the redirection.
				wantError(t, p.Verify(t.Context(), "127.0.0.1:1"), "the sidecar's health listener gives no proof")
				if p.Check(t.Context()) == nil {
					t.Error("refused, and yet applied")
				}
				forced := plan(t, redirect.Config{UnsafeHostNetwork: true})
				if err := errors.Join(forced.Apply(t.Context()), forced.Remove(t.Context())); err != nil {
					t.Errorf("with UnsafeHostNetwork: %v", err)
				}
			})
		})
	}
}

// TestRealMachineIsRefused looks at the machine's first namespace, and does
// nothing to it.
func TestRealMachineIsRefused(t *testing.T) {
	need(t)
	outer, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", outerFile))
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	var name, sign string
	permitted := within(t, outer, func() {
		name, _ = os.Readlink("/proc/thread-self/ns/net")
		sign, err = redirect.InitialNamespace()
	})
	if !permitted || name != "net:[4026531833]" {
		t.Skipf("the outer namespace %s is not the machine's first, or may not be entered", name)
	}
	if err != nil || !strings.Contains(sign, "first namespace") {
		t.Errorf("got %q, %v", sign, err)
	}
}

// TestNetAdminIsNeeded: root in a container that drops all capabilities. A
// program that root runs would have them again.
func TestNetAdminIsNeeded(t *testing.T) {
	need(t)
	for _, method := range append(methods, redirect.IPTables) {
		t.Run(string(method), func(t *testing.T) {
			p := plan(t, redirect.Config{Method: method})
			var applied, removed, checked error
			thread(func() {
				header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
				var none [2]unix.CapUserData
				if err := unix.Capset(header, &none[0]); err != nil {
					t.Error(err)
					return
				}
				applied, removed, checked = p.Apply(t.Context()), p.Remove(t.Context()), p.Check(t.Context())
			})
			if method == redirect.NFTables {
				wantError(t, checked, "CAP_NET_ADMIN is missing")
			}
			for _, err := range []error{applied, removed} {
				for _, line := range []string{"CAP_NET_ADMIN is missing", "runAsUser: 0", "drop: [ALL]", "add: [NET_ADMIN]"} {
					wantError(t, err, line)
				}
			}
		})
	}
}

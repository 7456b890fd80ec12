package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var errNetAdmin = errors.New("CAP_NET_ADMIN is missing: the container needs securityContext: {runAsUser: 0, runAsNonRoot: false, capabilities: {drop: [ALL], add: [NET_ADMIN]}}; where Pod Security forbids that, point the app at the sidecar by IDENTITY_ENDPOINT")

// needNetAdmin looks at the capability itself: root in a container that drops
// all has none, and would get half-way.
func needNetAdmin() error {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errNetAdmin
	}
	return nil
}

// refuseHostNetwork refuses a network that others share. No system call tells a
// pod's namespace from a node's, so the question is turned around: what is not
// surely a pod's is refused.
func (p *Plan) refuseHostNetwork() error {
	return p.refuse(initialNamespace, linkOfNode, kubeletListens)
}

// refuseMachine refuses the machine's first network alone.
func (p *Plan) refuseMachine() error { return p.refuse(initialNamespace) }

func (p *Plan) refuse(looks ...func() (string, error)) error {
	if p.cfg.UnsafeHostNetwork {
		return nil
	}
	sign, err := firstSign(looks)
	switch {
	case err != nil:
		return fmt.Errorf("is this a pod's network? %w: add --unsafe-host-network if you are sure", err)
	case sign != "":
		return fmt.Errorf("this is not surely a pod's network: %s; a redirection here could take the requests of a whole node: remove hostNetwork: true, or add --unsafe-host-network if that is what you want", sign)
	}
	return nil
}

// firstSign is the first sign that this network is more than a pod's, if any.
func firstSign(looks []func() (string, error)) (sign string, err error) {
	for _, look := range looks {
		if sign, err = look(); err != nil || sign != "" {
			return sign, err
		}
	}
	return "", nil
}

// ownNamespace is the network namespace of this thread, which is the one that
// netlink changes.
const ownNamespace = "/proc/thread-self/ns/net"

// initialNamespace knows the machine's first namespace by its number, which
// Linux has fixed since 6.18 (NET_NS_INIT_INO in linux/nsfs.h).
func initialNamespace() (sign string, err error) {
	name, err := os.Readlink(ownNamespace)
	if err == nil && name == fmt.Sprintf("net:[%d]", 0xEFFFFFF9) {
		sign = "it is the machine's first namespace"
	}
	return sign, err
}

// podLink is what CNI plugins call a pod's links. Their other ends on the node
// are called vethX, caliX, lxcX, azvX and the like.
var podLink = regexp.MustCompile(`^(eth|net)[0-9]+$`)

// linkOfNode looks at all links that are up. A pod's have their other end in
// another namespace, of which the kernel tells a number; a machine's network
// card, a bridge and a tunnel do not.
func linkOfNode() (sign string, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("listing links: %w", err)
	}
	for _, link := range links {
		a := link.Attrs()
		switch {
		case a.Flags&net.FlagUp == 0 || a.Flags&net.FlagLoopback != 0:
		case a.NetNsID < 0:
			return fmt.Sprintf("the link %q has no other end in another namespace", a.Name), nil
		case !podLink.MatchString(a.Name):
			return fmt.Sprintf("the link %q is not called as a pod's is (eth0, net1)", a.Name), nil
		}
	}
	return "", nil
}

// kubeletPorts are those on which every kubelet listens: its API and its health.
var kubeletPorts = []string{"280A", "2808"} // 10250, 10248

// kubeletListens knows a node that is itself a container, whose links are a
// pod's, by its kubelet.
func kubeletListens() (sign string, err error) {
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + table)
		if errors.Is(err, fs.ErrNotExist) && table == "tcp6" { // IPv6 is off
			continue
		}
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			if port := listeningPort(line); slices.Contains(kubeletPorts, port) {
				return fmt.Sprintf("something listens on port 0x%s, as kubelet does", port), nil
			}
		}
	}
	return "", nil
}

// listeningPort is the port of a line of /proc/net/tcp, in hexadecimal, if it is
// a listener's: sl, local address, remote address, state (0A is LISTEN).
func listeningPort(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != "0A" {
		return ""
	}
	_, port, _ := strings.Cut(fields[1], ":")
	return port
}

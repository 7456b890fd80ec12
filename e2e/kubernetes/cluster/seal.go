//go:build e2e && linux

package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	nodeName    = "node1"
	nodeAddress = "10.0.0.1"
)

// kernelSettings are those that a kubelet wants, and would set for the whole machine.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// seal makes sure that nothing can leave, and gives the node its address, name and files.
func (c *Cluster) seal() error {
	if err := loopbackOnly(); err != nil {
		return err
	}
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", nodeAddress + "/32", "dev", "lo"}} {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	for name, text := range map[string]string{"/etc/hosts": "127.0.0.1 localhost " + nodeName + "\n", "/etc/resolv.conf": ""} {
		if err := c.cover(name, text); err != nil {
			return err
		}
	}
	return c.maskSettings()
}

// loopbackOnly refuses to go on where a packet could leave.
func loopbackOnly() error {
	links, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Name != "lo" {
			return fmt.Errorf("the namespace has the link %s: packets could leave it", link.Name)
		}
	}
	return nil
}

// maskSettings lets the kubelet find the settings that it wants, without setting them.
func (c *Cluster) maskSettings() error {
	for name, value := range kernelSettings {
		file := filepath.Join("/proc/sys", name)
		now, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) || strings.TrimSpace(string(now)) == value {
			continue
		}
		if err := c.cover(file, value+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// cover puts a file of ours over one of the machine's, for these namespaces alone.
func (c *Cluster) cover(file, text string) error {
	ours := filepath.Join(c.dir, "covers", strings.ReplaceAll(file, "/", "_"))
	if err := os.MkdirAll(filepath.Dir(ours), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(ours, []byte(text), 0o644); err != nil {
		return err
	}
	if err := syscall.Mount(ours, file, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("covering %s: %w", file, err)
	}
	return nil
}

// Command podlo is a CNI plugin, for pods that no packet may leave: it gives a pod its address, and a default route, on
// the pod's own loopback link. It never makes another link. By the name loopback it is the plugin that only brings that
// link up, which the container runtime asks for too.
package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// network is what the plugin reads of its configuration.
type network struct {
	Version string `json:"cniVersion"`
}

type object = map[string]any

func main() {
	var cfg network
	reply, err := object(nil), json.NewDecoder(os.Stdin).Decode(&cfg)
	switch command := os.Getenv("CNI_COMMAND"); {
	case command == "VERSION":
		reply, err = object{"cniVersion": "1.0.0", "supportedVersions": []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0"}}, nil
	case err != nil:
	case command == "ADD":
		reply, err = add(cfg)
	} // DEL and CHECK: all of it goes with the pod's namespace
	if err != nil {
		reply = object{"cniVersion": cfg.Version, "code": 100, "msg": "podlo: " + err.Error()}
	}
	if reply != nil {
		_ = json.NewEncoder(os.Stdout).Encode(reply)
	}
	if err != nil {
		os.Exit(1)
	}
}

// add sets up the loopback link in the pod's namespace. The runtime is told that it is called as it asked for, eth0.
func add(cfg network) (object, error) {
	address, route := netip.MustParsePrefix("127.0.0.1/8"), false
	if filepath.Base(os.Args[0]) != "loopback" {
		address, route = netip.PrefixFrom(addressOf(os.Getenv("CNI_CONTAINERID")), 32), true
	}
	if err := ip("link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	if route {
		if err := ip("address", "add", address.String(), "dev", "lo"); err != nil {
			return nil, err
		}
		if err := ip("route", "add", "default", "dev", "lo", "src", address.Addr().String()); err != nil {
			return nil, err
		}
	}
	return object{
		"cniVersion": cfg.Version,
		"interfaces": []object{{"name": os.Getenv("CNI_IFNAME"), "sandbox": os.Getenv("CNI_NETNS")}},
		"ips":        []object{{"version": "4", "address": address.String(), "interface": 0}},
	}, nil
}

// addressOf gives a pod an address of 10.244.0.0/16. That two pods get the same is unlikely and does not matter: neither
// sees the other.
func addressOf(pod string) netip.Addr {
	h := fnv.New32a()
	_, _ = h.Write([]byte(pod))
	n := h.Sum32()
	return netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), 1 + byte(n)%254})
}

func ip(args ...string) error {
	cmd := exec.Command("nsenter", append([]string{"--net=" + os.Getenv("CNI_NETNS"), "ip"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

package proxy

import (
	"net"
	"net/netip"
	"sync"
)

// Connections to health and metrics. That listener may be reached by every
// machine, and a probe that finds no place there ends the app: so nobody may
// hold all places, and this machine's own cannot be taken by another.
const (
	maxOpsConnections = 64
	maxOpsPeer        = 16                             // of one address
	maxOpsRemote      = maxOpsConnections - maxOpsPeer // of all other machines
	peerBits6         = 64                             // of an IPv6 address: hosts choose the rest
)

// shared closes at once the connections of a peer that has its share. It never
// waits: in the system's queue, one peer's connections would stand before the
// probes of all others.
type shared struct {
	net.Listener

	mu     sync.Mutex
	open   map[netip.Prefix]int
	remote int // of open, from other machines
}

func share(l net.Listener) net.Listener {
	return &shared{Listener: l, open: map[netip.Prefix]int{}}
}

// Accept implements net.Listener.
func (l *shared) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := peerOf(conn.RemoteAddr())
		if l.take(peer) {
			return &slotted{Conn: conn, release: sync.OnceFunc(func() { l.give(peer) })}, nil
		}
		_ = conn.Close()
	}
}

// take counts a connection, unless the peer, or all peers but this machine, have
// theirs.
func (l *shared) take(peer netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[peer] >= maxOpsPeer || peer.IsValid() && l.remote >= maxOpsRemote {
		return false
	}
	l.open[peer]++
	if peer.IsValid() {
		l.remote++
	}
	return true
}

func (l *shared) give(peer netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[peer]--; l.open[peer] == 0 {
		delete(l.open, peer)
	}
	if peer.IsValid() {
		l.remote--
	}
}

// peerOf is what a peer is counted by; this machine is the zero Prefix.
func peerOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return netip.Prefix{}
	}
	bits := ip.BitLen()
	if ip.Is6() {
		bits = peerBits6
	}
	peer, _ := ip.Prefix(bits) // of an address that is none, the zero one
	return peer
}

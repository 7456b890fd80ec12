package workloadapi

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// user is who opened a connection, as the kernel says.
type user struct {
	uid   uint32
	known bool
}

// gate accepts a bounded number of connections, and none that would give a user
// more than three quarters of them. What it accepts carries its user, who is thus
// known before the first byte is read. It closes what is too much, because a
// connection that waits in the system's queue looks to gRPC like one that hangs.
type gate struct {
	net.Listener
	most, share int

	mu     sync.Mutex
	open   int
	byUser map[uint32]int
}

func newGate(l net.Listener, most int) *gate {
	return &gate{Listener: l, most: most, share: max(1, most*3/4), byUser: map[uint32]int{}}
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		raw, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := peerOf(raw)
		if g.enter(who) {
			return &conn{Conn: raw, user: who, leave: sync.OnceFunc(func() { g.leave(who) })}, nil
		}
		_ = raw.Close()
	}
}

func (g *gate) enter(who user) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= g.most || who.known && g.byUser[who.uid] >= g.share {
		return false
	}
	g.open++
	if who.known {
		g.byUser[who.uid]++
	}
	return true
}

func (g *gate) leave(who user) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if !who.known {
		return
	}
	g.byUser[who.uid]--
	if g.byUser[who.uid] == 0 {
		delete(g.byUser, who.uid)
	}
}

// conn is a connection that the gate let in.
type conn struct {
	net.Conn
	user  user
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}

// kernel is the gRPC credentials of connections that come through a gate: there
// is no handshake, because the kernel has said who they are (Endpoint, section 5).
type kernel struct{}

// caller is what handlers see of a connection.
type caller struct {
	credentials.CommonAuthInfo
	user user
}

// AuthType implements credentials.AuthInfo.
func (caller) AuthType() string { return "kernel" }

// ServerHandshake implements credentials.TransportCredentials.
func (kernel) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, errors.New("workloadapi: internal error: a connection that came through no gate")
	}
	return c, caller{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, user: c.user}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (kernel) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("workloadapi: internal error: these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (kernel) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "kernel"}
}

// Clone implements credentials.TransportCredentials.
func (k kernel) Clone() credentials.TransportCredentials { return k }

// OverrideServerName implements credentials.TransportCredentials.
func (kernel) OverrideServerName(string) error { return nil }

//go:build !linux

package workloadapi

import "net"

// knowsUsers says whether peerOf can tell who opened a connection.
const knowsUsers = false

func peerOf(net.Conn) user { return user{} }

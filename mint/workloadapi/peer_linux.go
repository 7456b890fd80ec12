package workloadapi

import (
	"net"
	"syscall"
)

// knowsUsers says whether peerOf can tell who opened a connection.
const knowsUsers = true

// peerOf reads SO_PEERCRED, which the kernel noted when the peer connected (it
// says who connected, not who holds the connection now). The process id that
// comes with it is left out: by the time it is looked at it may be another's.
func peerOf(c net.Conn) user {
	socket, ok := c.(*net.UnixConn)
	if !ok {
		return user{}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return user{}
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || failed != nil {
		return user{}
	}
	return user{uid: cred.Uid, known: true}
}

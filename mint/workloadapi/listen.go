package workloadapi

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"strings"
)

// Listen makes the socket of address, unix:///path, with the permissions mode:
// 0600 (this user) to 0777; who may write it may connect. At no time does the
// socket let in more than mode says. A socket that is there already and that
// nobody answers on is removed; one that somebody answers on stays, as does
// anything else, and is an error. The directory must exist: who may write in it
// can put a socket of their own there. Closing the listener removes the socket.
//
// Two processes that call Listen at once are kept apart by a lock on the
// directory. Only unix systems have it.
func Listen(address string, mode fs.FileMode) (net.Listener, error) {
	file, err := socketPath(address)
	if err != nil {
		return nil, fmt.Errorf("workloadapi: listen on %q: %w", address, err)
	}
	if mode&^fs.ModePerm != 0 || mode&0o600 != 0o600 {
		return nil, fmt.Errorf("workloadapi: listen on %q: the mode %#o is not between 0600 and 0777", address, uint32(mode))
	}
	l, err := listen(file, mode)
	if err != nil {
		return nil, fmt.Errorf("workloadapi: listen on %q: %w", address, err)
	}
	return l, nil
}

// socketPath takes what all SPIFFE clients read alike (Endpoint, section 4): no
// authority, and nothing that one of them might decode or clean.
func socketPath(address string) (string, error) {
	file, ok := strings.CutPrefix(address, "unix://")
	switch {
	case !ok:
		return "", errors.New("not a unix socket: give unix:/// and a path, such as unix:///run/svidecar/api.sock")
	case !strings.HasPrefix(file, "/"):
		return "", errors.New("the path must be absolute, as in unix:///run/svidecar/api.sock (three slashes)")
	case strings.ContainsAny(file, "?#%\\") || strings.ContainsFunc(file, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the path may have printable ASCII only, and none of ? # % and backslash")
	case path.Clean(file) != file || file == "/":
		return "", errors.New("the path has an empty or a dot segment, or ends in a slash")
	case len(file) > maxSocketPath:
		return "", fmt.Errorf("the path has %d bytes; that of a unix socket has at most %d here", len(file), maxSocketPath)
	}
	return file, nil
}

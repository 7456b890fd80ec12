package workloadapi

import (
	"io/fs"
	"syscall"
)

// restrictSocket gives the socket the mode that its file will have: Linux makes
// the file with the socket's own, less the umask. So there is no moment at which
// it is more open, and the umask, which is every goroutine's, stays as it is.
func restrictSocket(fd uintptr, mode fs.FileMode) error {
	return syscall.Fchmod(int(fd), uint32(mode))
}

func restrict(fs.FileMode) (restore func()) { return func() {} }

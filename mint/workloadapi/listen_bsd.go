//go:build unix && !linux

package workloadapi

import (
	"io/fs"
	"syscall"
)

// restrict has only the umask here. It is the whole process's: a file that
// another goroutine makes in this moment may get fewer permissions, never more.
func restrict(mode fs.FileMode) (restore func()) {
	old := syscall.Umask(int(fs.ModePerm &^ mode))
	return func() { syscall.Umask(old) }
}

func restrictSocket(uintptr, fs.FileMode) error { return nil }

//go:build unix

package mint

import (
	"os"
	"syscall"
)

// openFlags: opening a FIFO without a writer returns at once, and opening a
// terminal does not make it ours.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

// ownedByAnother reports whether the file belongs to a user that we do not run
// as.
func ownedByAnother(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) != os.Geteuid()
}

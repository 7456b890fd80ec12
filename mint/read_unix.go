//go:build unix

package mint

import (
	"os"
	"syscall"
)

// openFlags: opening a FIFO without a writer returns at once, and opening a
// terminal does not make it ours.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

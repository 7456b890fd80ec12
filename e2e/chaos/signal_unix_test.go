//go:build unix

package chaos_test

import (
	"os"
	"syscall"
)

// canStop says whether a process can be stopped and resumed.
const canStop = true

func stop(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resume(p *os.Process) { _ = p.Signal(syscall.SIGCONT) }

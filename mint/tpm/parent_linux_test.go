package tpm_test

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends a process even if these tests are killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

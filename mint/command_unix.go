//go:build unix

package mint

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts the command and what it starts into a process group of its own,
// all of which ends when the command's context does.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) != nil {
			return os.ErrProcessDone // nobody is left in the group
		}
		return nil
	}
}

// killGroup ends what a command that has ended left behind in its group. The
// number may be free by now, but the system does not give it away again before
// it has been through all others.
func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}

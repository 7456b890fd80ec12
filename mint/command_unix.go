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

// reap takes leave of those of a killed group that have become our children, as
// orphans become those of process 1, which svidecar is in its container: nobody
// else would, and each counts towards the container's limit. It waits for none,
// and reports whether none is left.
func reap(group int) (done bool) {
	for {
		pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return err != nil // ECHILD
		}
	}
}

// killGroup ends what a command that has ended left behind in its group. The
// number may be free by now, but the system does not give it away again before
// it has been through all others.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

//go:build unix

package mint

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the command and what it starts into a process group of its own.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

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

// killGroup ends what a command that ended, or was killed, left in its group. The
// number may be free by now, but the system does not give it away again before
// it has been through all others.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

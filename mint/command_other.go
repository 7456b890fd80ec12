//go:build !unix

package mint

import "os/exec"

// ownGroup: there is none, and the command's context ends the command alone.
func ownGroup(*exec.Cmd) {}

func killGroup(*exec.Cmd) {}

func reap(int) (done bool) { return true }

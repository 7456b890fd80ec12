package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// misleading variables would send an SDK past the sidecar, or to a protocol
// that is not served.
var misleading = []string{"AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"}

// environment is ours with the variables set and the misleading ones gone.
func (g guide) environment(environ []string) []string {
	gone := slices.Clone(misleading)
	for _, v := range g.variables() {
		gone = append(gone, v.name)
	}
	environ = slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.ContainsFunc(gone, func(v string) bool { return same(v, name) })
	})
	for _, v := range g.variables() {
		environ = append(environ, v.name+"="+v.value)
	}
	return environ
}

// same compares names of variables, which Windows does without regard to case.
func same(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(a, b)
}

// runCommand runs the user's command; once ctx ends it is asked to end too, and
// after 10 s made to.
func (g guide) runCommand(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = g.environment(os.Environ())
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return cmd.Process.Kill() // Windows has no such signal
		}
		return nil
	}
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return statusOf(ended)
	}
	if err != nil {
		return fmt.Errorf("dev: running %q: %w", args[0], err)
	}
	return nil
}

// statusOf is what a shell would report: 128 and the signal for a command that
// died by one.
func statusOf(ended *exec.ExitError) exitCode {
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitCode(128 + int(status.Signal()))
	}
	return exitCode(max(ended.ExitCode(), 1))
}

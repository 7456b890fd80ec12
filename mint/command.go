package mint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// temporaryStatusCode is by which a command says that trying again helps:
	// EX_TEMPFAIL of BSD's sysexits.h.
	temporaryStatusCode = 75
	// afterEnd is how long an ended command's output may stay open: what it
	// started holds it, and is killed.
	afterEnd = time.Second
	// ourVariables begin the names of svidecar's own settings.
	ourVariables = "SVIDECAR_"
)

// CommandConfig configures [NewCommand].
type CommandConfig struct {
	// Argv is the program and its arguments. No shell reads them. The program is
	// an absolute path, or a name that is looked up in PATH once, by NewCommand,
	// and not in the current directory. Required.
	Argv []string

	// Audience is what the token's aud claim must hold, 1 to 600 printable ASCII
	// characters, as the cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Timeout bounds one run, 1 s to 1 min. Zero means 10 s.
	Timeout time.Duration
}

// NewCommand returns a source that runs a command, whose standard output is the
// token, at most 64 KiB with white space around it. It runs nothing yet.
//
// The command gets no input, and this process's environment without svidecar's
// own variables. It ends by its time, with its whole process group (on Windows it
// alone); what it leaves behind in the group is killed too. Exit status 75 says
// that a later run may succeed. Its output is never shown, on standard error
// neither: a secret may be in it.
func NewCommand(cfg CommandConfig) (*Fetcher, error) {
	f, err := newFetcher("CommandConfig", cfg.Audience, cfg.Timeout)
	if err != nil {
		return nil, err
	}
	program, err := findProgram(cfg.Argv)
	if err != nil {
		return nil, fmt.Errorf("mint: CommandConfig.Argv: %w", err)
	}
	c := &command{
		program:     program,
		args:        slices.Clone(cfg.Argv[1:]),
		environment: withoutOurs(os.Environ()),
	}
	f.from = fmt.Sprintf("command %q", program)
	f.advice = byIssuer("have the command ask for that audience")
	f.get = c.run
	return f, nil
}

// findProgram resolves the program once, so that a later change of PATH or of the
// directory changes nothing.
func findProgram(argv []string) (string, error) {
	if len(argv) == 0 || argv[0] == "" {
		return "", errors.New("no program: name it, with its absolute path")
	}
	if slices.ContainsFunc(argv, func(arg string) bool { return strings.ContainsRune(arg, 0) }) {
		return "", errors.New("a zero byte in an argument, which no program can be given: remove it")
	}
	program := argv[0]
	switch {
	case filepath.IsAbs(program):
		return program, nil
	case filepath.Base(program) != program:
		return "", fmt.Errorf("the program %q is a relative path, which depends on the current directory: give the absolute path", program)
	}
	found, err := exec.LookPath(program)
	switch {
	case errors.Is(err, exec.ErrDot), err == nil && !filepath.IsAbs(found):
		return "", fmt.Errorf("the program %q is found in the current directory only: give the absolute path, and take the directory out of PATH", program)
	case err != nil:
		return "", fmt.Errorf("the program %q is not in PATH: give the absolute path", program)
	}
	return found, nil
}

// withoutOurs leaves out svidecar's settings: one is a secret, and a command that
// runs svidecar again must not run itself.
func withoutOurs(environ []string) []string {
	return slices.DeleteFunc(environ, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		return strings.HasPrefix(name, ourVariables)
	})
}

// command is one that is run again and again, once at a time.
type command struct {
	program     string
	args        []string
	environment []string
	groups      []int // killed, and not all of them gone yet
}

// run runs it once, and waits for its end.
func (c *command) run(ctx context.Context) (string, *trouble) {
	ctx, kill := context.WithCancel(ctx)
	defer kill()
	out := &output{full: kill}
	cmd := exec.CommandContext(ctx, c.program, c.args...)
	cmd.Env, cmd.Stdout, cmd.WaitDelay = c.environment, out, afterEnd
	ownGroup(cmd)
	err := cmd.Run()
	if cmd.Process != nil {
		killGroup(cmd)
		c.groups = append(c.groups, cmd.Process.Pid)
	}
	c.groups = slices.DeleteFunc(c.groups, reap)
	switch {
	case out.over:
		return "", &trouble{problem: "its output is larger than 64 KiB", advice: "have it print the token alone"}
	case err != nil:
		return "", c.failure(err)
	}
	return strings.TrimSpace(string(out.data)), nil
}

// failure explains an error of os/exec, which knows nothing of the output.
func (c *command) failure(err error) *trouble {
	byHand := fmt.Sprintf("run %q by hand, as the user and in the environment of svidecar, to see its output, which is not shown here", c.program)
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return &trouble{problem: "it ended with " + ended.String(), advice: byHand, temporary: ended.ExitCode() == temporaryStatusCode}
	}
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		return &trouble{problem: "it ended, and something that it started held its output open", advice: "have it wait for what it starts"}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &trouble{problem: "it was stopped", advice: byHand, temporary: true}
	case errors.Is(err, fs.ErrNotExist):
		return &trouble{problem: "there is no such program, or its interpreter is missing", advice: "check the path", cause: err}
	case errors.Is(err, fs.ErrPermission):
		return &trouble{problem: "permission denied", advice: "make it executable for the user that svidecar runs as", cause: err}
	}
	return &trouble{problem: "it cannot be started (" + pathCause(err) + ")", advice: byHand, cause: err, temporary: true}
}

// output keeps what is written up to a bound, and calls full at the first byte
// beyond. It is written by one goroutine, and read once that has ended.
type output struct {
	data []byte
	over bool
	full func()
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	if len(o.data)+len(p) > maxFetched {
		o.over = true
		o.full()
		return 0, errTooLarge
	}
	o.data = append(o.data, p...)
	return len(p), nil
}

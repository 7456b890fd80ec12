package mint_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// childMark makes TestCommandChild act as the command.
const childMark = "MINT_TEST_IS_THE_COMMAND"

// TestCommandChild is the command of the other tests; by itself it does nothing.
func TestCommandChild(t *testing.T) {
	if os.Getenv(childMark) == "" {
		return
	}
	os.Exit(child(flag.Args()))
}

// child does what its words say, one after the other, and gives the exit status.
func child(words []string) (status int) {
	for i := 0; i < len(words); i++ {
		rest := words[i+1:]
		switch words[i] {
		case "print": // a file, to standard output
			data, err := os.ReadFile(rest[0])
			if err != nil {
				return 98
			}
			_, _ = os.Stdout.Write(data)
			i++
		case "scream": // a file, to standard error
			data, _ := os.ReadFile(rest[0])
			_, _ = os.Stderr.Write(data)
			i++
		case "flood":
			signal.Ignore(syscall.SIGPIPE)
			for {
				if _, err := os.Stdout.WriteString(strings.Repeat("x", 4<<10)); err != nil {
					<-time.After(time.Minute) // one who does not take the hint
				}
			}
		case "environ": // writes the names and the working input to a file
			input, _ := io.ReadAll(os.Stdin)
			text := strings.Join(os.Environ(), "\n") + fmt.Sprintf("\ninput %d", len(input))
			if os.WriteFile(rest[0], []byte(text), 0o600) != nil {
				return 98
			}
			i++
		case "spawn", "spawn-holding": // one that does the rest, with our output or without
			cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestCommandChild$", "--"}, "hang", rest[0])...)
			if words[i] == "spawn-holding" {
				cmd.Stdout = os.Stdout
			}
			ready, err := cmd.StderrPipe()
			if err != nil || cmd.Start() != nil {
				return 98
			}
			_, _ = ready.Read(make([]byte, 1)) // it has connected
			i++
		case "hang": // connected to an address, by which its end is seen
			conn, err := net.Dial("tcp", rest[0])
			if err != nil {
				return 98
			}
			_, _ = fmt.Fprint(conn, os.Getpid())
			_, _ = os.Stderr.WriteString("!")
			<-time.After(time.Minute)
			_ = conn.Close()
		case "die":
			self, _ := os.FindProcess(os.Getpid())
			_ = self.Kill()
			<-time.After(time.Minute)
		case "exit":
			_, _ = fmt.Sscan(rest[0], &status)
			return status
		}
	}
	return 0
}

// childArgv is a command that does what the words say.
func childArgv(t *testing.T, words ...string) []string {
	t.Helper()
	t.Setenv(childMark, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at the end
	return append([]string{os.Args[0], "-test.run=^TestCommandChild$", "--"}, words...)
}

func newCommand(t *testing.T, timeout time.Duration, words ...string) *mint.Fetcher {
	t.Helper()
	f, err := mint.NewCommand(mint.CommandConfig{Argv: childArgv(t, words...), Audience: audience, Timeout: timeout})
	return closing(t, f, err)
}

// tokenFile holds raw.
func tokenFile(t *testing.T, raw string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, raw)
	return path
}

// lifeline accepts one connection, and tells when it begins and when it ends.
func lifeline(t *testing.T) (address string, begun, ended <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	came, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		close(came)
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}()
	return l.Addr().String(), came, done
}

func wantEnd(t *testing.T, what string, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Errorf("%s still runs", what)
	}
}

func TestNewCommandRefuses(t *testing.T) {
	dir := t.TempDir()
	name := "svidecar-test-program"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("PATH", "."+string(os.PathListSeparator)+string(os.PathListSeparator)+"sub")
	for _, tt := range []struct {
		name string
		argv []string
		says string
	}{
		{"nothing", nil, "no program"},
		{"empty", []string{""}, "no program"},
		{"relative path", []string{"./" + name}, "relative path"},
		{"relative path below", []string{"sub/" + name}, "relative path"},
		{"found in the current directory", []string{name}, "found in the current directory only"},
		{"not found", []string{"svidecar-no-such-program"}, "not in PATH"},
		{"zero byte", []string{os.Args[0], "a\x00b"}, "zero byte"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mint.NewCommand(mint.CommandConfig{Argv: tt.argv, Audience: audience})
			if err == nil || !strings.HasPrefix(err.Error(), "mint: CommandConfig.Argv: ") || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("NewCommand(%q): %v, want a refusal that says %q", tt.argv, err, tt.says)
			}
			checkOneLine(t, err)
		})
	}
	for _, cfg := range []mint.CommandConfig{
		{Argv: []string{os.Args[0]}}, {Argv: []string{os.Args[0]}, Audience: audience, Timeout: time.Second - 1},
		{Argv: []string{os.Args[0]}, Audience: audience, Timeout: time.Minute + 1},
	} {
		if _, err := mint.NewCommand(cfg); err == nil || !strings.HasPrefix(err.Error(), "mint: CommandConfig.") {
			t.Errorf("NewCommand(%+v): %v, want a refusal", cfg, err)
		}
	}
}

func TestCommandPrintsTheToken(t *testing.T) {
	raw := platformToken(t, time.Now(), time.Hour)
	for name, text := range map[string]string{"alone": raw, "with a line's end": raw + "\n", "with white space": " \t" + raw + "\r\n\n", "with all that fits": raw + strings.Repeat(" ", 64<<10-len(raw))} {
		t.Run(name, func(t *testing.T) {
			f := newCommand(t, 0, "scream", tokenFile(t, "progress\n"), "print", tokenFile(t, text))
			got := mustFetch(t, f)
			if !got.Value.Equal(raw) || got.Claims.Subject != githubSubject {
				t.Errorf("another token: %v", got.Claims)
			}
		})
	}
}

// TestCommandIsFoundOnce: what PATH or the variables say later does not count.
func TestCommandIsFoundOnce(t *testing.T) {
	argv := childArgv(t, "print", tokenFile(t, platformToken(t, time.Now(), time.Hour)))
	t.Setenv("PATH", filepath.Dir(argv[0]))
	argv[0] = filepath.Base(argv[0])
	f, err := mint.NewCommand(mint.CommandConfig{Argv: argv, Audience: audience})
	closing(t, f, err)
	argv[0], argv[3] = "/", "exit"
	t.Setenv("PATH", "")
	t.Setenv(childMark, "")
	mustFetch(t, f)
}

func TestCommandRunsOncePerHalfLife(t *testing.T) {
	path := tokenFile(t, platformToken(t, time.Now(), time.Hour))
	f := newCommand(t, 0, "print", path)
	first := mustFetch(t, f)
	write(t, path, platformToken(t, time.Now(), 2*time.Hour))
	if got := mustFetch(t, f); !same(got, first) {
		t.Error("it ran again in the first half of the life")
	}
	if got, err := f.Fresh(t.Context()); err != nil || same(got, first) {
		t.Errorf("Fresh gives the old one, or error %v", err)
	}
}

func TestCommandFails(t *testing.T) {
	raw := platformToken(t, time.Now(), time.Hour)
	secrets := tokenFile(t, raw+" "+jobToken)
	noise := []string{"scream", secrets, "print", secrets}
	missing, plain := filepath.Join(t.TempDir(), "missing"), tokenFile(t, raw)
	for _, tt := range []struct {
		name      string
		argv      []string
		temporary bool
		says      string
	}{
		{"exit 1", childArgv(t, append(noise, "exit", "1")...), false, "it ended with exit status 1"},
		{"exit 75", childArgv(t, append(noise, "exit", "75")...), true, "it ended with exit status 75"},
		{"two tokens", childArgv(t, noise...), false, "no assertion"},
		{"no output", childArgv(t, "scream", secrets), false, "no assertion"},
		{"missing", []string{missing}, false, "no such program"},
		{"not executable", []string{plain}, false, "permission denied"},
		{"a byte too much", childArgv(t, "print", tokenFile(t, raw+strings.Repeat(" ", 64<<10-len(raw)+1))), false, "larger than 64 KiB"},
		{"too much", childArgv(t, append(noise, "flood")...), false, "larger than 64 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && tt.name == "not executable" {
				t.Skip("Windows knows by the name")
			}
			f, err := mint.NewCommand(mint.CommandConfig{Argv: tt.argv, Audience: audience})
			closing(t, f, err)
			start := time.Now()
			_, err = f.Assertion(t.Context())
			checkTrouble(t, err, tt.temporary, []string{raw}, fmt.Sprintf("command %q", tt.argv[0]), tt.says)
			if waited := time.Since(start); waited > 8*time.Second {
				t.Errorf("it took %v", waited)
			}
		})
	}
}

func TestCommandDies(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	_, err := newCommand(t, 0, "die").Assertion(t.Context())
	checkTrouble(t, err, false, nil, "it ended with signal: killed", "by hand")
}

// TestCommandThatHasWorked may be being mended when it fails.
func TestCommandThatHasWorked(t *testing.T) {
	path := tokenFile(t, platformToken(t, time.Now(), time.Hour))
	f := newCommand(t, 0, "print", path)
	mustFetch(t, f)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := f.Fresh(t.Context())
	checkTrouble(t, err, true, nil, "exit status 98", "it worked before")
}

// TestCommandIsBounded: the command's time ends all that it started.
func TestCommandIsBounded(t *testing.T) {
	address, _, ended := lifeline(t)
	below, _, belowEnded := lifeline(t)
	f := newCommand(t, 3*time.Second, "spawn-holding", below, "hang", address)
	start := time.Now()
	_, err := f.Assertion(t.Context())
	checkTrouble(t, err, true, nil, "no answer within 3s", "by hand")
	if waited := time.Since(start); waited < 3*time.Second || waited > 8*time.Second {
		t.Errorf("waited %v, want 3 s", waited)
	}
	wantEnd(t, "the command", ended)
	if runtime.GOOS != "windows" {
		wantEnd(t, "what the command started", belowEnded)
	}
}

func TestCommandLeavesNothingBehind(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process groups")
	}
	token := tokenFile(t, platformToken(t, time.Now(), time.Hour))
	t.Run("silent", func(t *testing.T) {
		address, _, ended := lifeline(t)
		mustFetch(t, newCommand(t, 0, "print", token, "spawn", address))
		wantEnd(t, "what the command started", ended)
	})
	t.Run("with its output", func(t *testing.T) {
		address, _, ended := lifeline(t)
		_, err := newCommand(t, 0, "print", token, "spawn-holding", address).Assertion(t.Context())
		checkTrouble(t, err, false, nil, "held its output open")
		wantEnd(t, "what the command started", ended)
	})
}

func TestCommandEndsWithClose(t *testing.T) {
	address, begun, ended := lifeline(t)
	f := newCommand(t, time.Minute, "hang", address)
	failed := make(chan error, 1)
	go func() {
		_, err := f.Assertion(context.Background())
		failed <- err
	}()
	<-begun
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if strings.Contains(stacks(), "mint.(*command).run") {
		t.Error("Close did not wait for the command")
	}
	checkTrouble(t, <-failed, false, nil, "closed")
	wantEnd(t, "the command", ended)
}

// TestCommandEnvironment: the command has ours, less what is svidecar's own.
func TestCommandEnvironment(t *testing.T) {
	t.Setenv("SVIDECAR_IDENTITY_HEADER", "the-secret-of-the-app-service-endpoint")
	t.Setenv("SVIDECAR_SOURCE", "exec")
	t.Setenv("SVIDECARS", "kept")
	t.Setenv("AZURE_CLIENT_ID", "kept")
	path := filepath.Join(t.TempDir(), "environ")
	f := newCommand(t, 0, "environ", path, "print", tokenFile(t, platformToken(t, time.Now(), time.Hour)))
	mustFetch(t, f)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	for _, want := range []string{"SVIDECARS=kept", "AZURE_CLIENT_ID=kept", "input 0"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the command has no %s", want)
		}
	}
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "SVIDECAR_") }); i >= 0 {
		t.Errorf("the command has %s", lines[i])
	}
}

// TestCommandTakesNoShell: its words come as they are.
func TestCommandTakesNoShell(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a $HOME; `b` 'c' *")
	if runtime.GOOS == "windows" {
		odd = filepath.Join(dir, "a $HOME; `b` 'c'")
	}
	write(t, odd, platformToken(t, time.Now(), time.Hour))
	mustFetch(t, newCommand(t, 0, "print", odd))
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/mint"
)

// quickExit, as GORACE, keeps the race detector from waiting a second at the end
// of each process that these tests start.
const quickExit = "atexit_sleep_ms=0"

// TestScript runs each file of testdata/script.
func TestScript(t *testing.T) {
	const dir = "testdata/script"
	if files, err := filepath.Glob(filepath.Join(dir, "*.txtar")); err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", quickExit)
			env.Values["emulation"] = &emulationOf{}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, errors.New("unknown condition")
			}
			return os.Getuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent":    cmdAgent,
			"entra":    cmdEntra,
			"fault":    cmdFault,
			"free":     cmdFree,
			"get":      cmdGet,
			"host":     cmdHost,
			"key":      cmdKey,
			"occupy":   cmdOccupy,
			"platform": cmdPlatform,
			"refused":  cmdRefused,
			"sigterm":  cmdSigterm,
			"status":   cmdStatus,
			"until":    cmdUntil,
		},
	})
}

// emulationOf is what a script's commands hand on to each other.
type emulationOf struct {
	cloud  *emulation.Emulation
	source *mint.Local
	agent  *agent
}

// signingKey is one key for all scripts, because making one takes long.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// entra
//
// starts an issuer and Entra's emulator until the end of the script, which finds
// them by $ENTRA, $ENTRA_CA, $ISSUER, $SUBJECT, $KEY, $TOKEN (a file that holds
// an assertion), $TENANT, $CLIENT and $CONTROLS.
func cmdEntra(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: entra")
	}
	key, err := signingKey()
	ts.Check(err)
	keyFile := ts.MkAbs("issuer.pem")
	ts.Check(mint.WriteKey(keyFile, key))
	cloud, err := emulation.Start(emulation.Config{KeyFile: keyFile, Entra: entratest.Config{Key: key}})
	ts.Check(err)
	ts.Defer(cloud.Close)
	*ts.Value("emulation").(*emulationOf) = emulationOf{cloud: cloud, source: cloud.Source}
	assertion, err := cloud.Source.Assertion(context.Background())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(assertion.Value.Reveal()+"\n"), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("entra-ca.pem"), cloud.CA.PEM(), 0o600))
	for name, value := range map[string]string{
		"ENTRA": cloud.Entra.URL(), "ENTRA_CA": ts.MkAbs("entra-ca.pem"),
		"ISSUER": cloud.Issuer, "SUBJECT": emulation.Subject, "KEY": keyFile, "TOKEN": ts.MkAbs("token"),
		"TENANT": cloud.TenantID, "CLIENT": cloud.ClientID, "CONTROLS": cloud.Admin,
	} {
		ts.Setenv(name, value)
	}
}

// fault JSON
//
// makes the emulator misbehave for all resources.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fault JSON")
	}
	body, err := json.Marshal(map[string]any{"scope": "*", "fault": json.RawMessage(args[0])})
	ts.Check(err)
	req, err := http.NewRequest(http.MethodPut, ts.Getenv("CONTROLS")+"/faults", bytes.NewReader(body))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		ts.Fatalf("fault %s: %s", args[0], resp.Status)
	}
}

// free VARIABLE...
//
// sets each to an address that nothing listens on.
func cmdFree(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close() // after the last, so that they differ
		ts.Setenv(name, l.Addr().String())
	}
}

// occupy VARIABLE
//
// sets it to an address that is taken until the end of the script.
func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy VARIABLE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// key FILE
//
// writes a signing key.
func cmdKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: key FILE")
	}
	key, err := signingKey()
	ts.Check(err)
	ts.Check(mint.WriteKey(ts.MkAbs(args[0]), key))
}

// get STATUS URL [NAME:VALUE...]
//
// asks with the headers and wants the status; the body is the standard output.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: get STATUS URL [NAME:VALUE...]")
	}
	resp, err := request(args[1], args[2:])
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("got %s, want %s", resp.Status, args[0])
	}
}

// request asks with headers; one named Host is the request's.
func request(target string, headers []string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ":")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return http.DefaultClient.Do(req)
}

// until URL [NAME:VALUE...]
//
// asks until somebody answers.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: until URL [NAME:VALUE...]")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		resp, err := request(args[0], args[1:])
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("nobody answers: %v", err)
		}
	}
}

// status STATUS PROGRAM [ARGUMENT...]
//
// runs a program to its end and wants this status.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status STATUS PROGRAM [ARGUMENT...]")
	}
	got := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("got status %d, want %s", got, args[0])
	}
}

// refused PROGRAM [ARGUMENT...]
//
// wants the program to end with status 1, to print nothing to standard output,
// and to say why in exactly one line, beside lines of its log.
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: refused PROGRAM [ARGUMENT...]")
	}
	cmdStatus(ts, false, append([]string{"1"}, args...))
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output has %q", out)
	}
	reasons := 0
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		switch {
		case strings.HasPrefix(line, "svidecar: ") && len(line) > len("svidecar: \n"):
			reasons++
		case strings.HasPrefix(line, `{"time":`):
		default:
			ts.Fatalf("standard error has the line %q", line)
		}
	}
	if text := ts.ReadFile("stderr"); reasons != 1 || strings.Contains(text, "goroutine") || strings.Contains(text, "panic") {
		ts.Fatalf("standard error gives %d reasons, want one:\n%s", reasons, text)
	}
}

// sigterm
//
// sends SIGTERM to all that runs in the background.
func cmdSigterm(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: sigterm")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

//go:build unix

package tpm_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/svidecar/svidecar/mint/tpm"
)

// handle is where tests put their key.
const handle = 0x81000001

// softTPM is a TPM 2.0 in a process: swtpm, which is the code of the TPM's
// specification.
type softTPM struct {
	device  string
	process *os.Process
	ended   chan struct{}
}

// config is that of the key at handle.
func (s *softTPM) config() tpm.Config { return tpm.Config{Device: s.device, Handle: handle} }

// startTPM starts one with empty memory, until the end of the test.
func startTPM(t *testing.T) *softTPM {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		withoutTPM(t, err)
	}
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return serveTPM(t, program, dir)
}

// serveTPM hands swtpm a socket that listens already, so that nobody needs to
// wait for it.
func serveTPM(t *testing.T, program, dir string) *softTPM {
	t.Helper()
	path := filepath.Join(dir, "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	socket, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,fd=3", "--flags", "not-need-init,startup-clear")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &softTPM{device: "unix:" + path, process: cmd.Process, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(s.kill)
	return s
}

// kill ends the TPM as a crash would.
func (s *softTPM) kill() {
	_ = s.process.Kill()
	<-s.ended
}

// withoutTPM skips the test, and says so, as the Makefile does; in the end-to-end
// tests it fails.
func withoutTPM(t *testing.T, err error) {
	t.Helper()
	const allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"
	if mustRun && os.Getenv(allowSkip) == "" {
		t.Fatalf("%v; make e2e installs it, or set %s to do without", err, allowSkip)
	}
	fmt.Fprintf(os.Stderr, "*** mint/tpm: %s IS NOT TESTED: there is no swtpm (apt-get install swtpm; make e2e does so) ***\n", t.Name())
	t.Skip(err)
}

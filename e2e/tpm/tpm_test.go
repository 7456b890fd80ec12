//go:build e2e && linux

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// allowSkip lets a machine without the programs pass. Without it, tests that
// could not run are a failure.
const allowSkip = "SVIDECAR_E2E_ALLOW_SKIP"

// need skips or fails the test where a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv(allowSkip) == "" {
				t.Fatalf("%v; make e2e installs it, or set %s to do without", err, allowSkip)
			}
			fmt.Fprintf(os.Stderr, "*** e2e/tpm: NOTHING IS TESTED: %v ***\n", err)
			t.Skip(err)
		}
	}
}

// bed is one TPM, and a folder to work in.
type bed struct {
	t   *testing.T
	dir string
	env []string
}

func (b *bed) socket() string { return filepath.Join(b.dir, "tpm") }

// newBed starts swtpm with the two sockets that tpm2-tools want. They listen
// already, so that nobody needs to wait for it.
func newBed(t *testing.T) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bed{t: t, dir: dir}
	b.env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+b.socket())
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+t.TempDir(), "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,fd=3", "--ctrl", "type=unixio,fd=4")
	cmd.ExtraFiles = []*os.File{listening(t, b.socket()), listening(t, b.socket()+".ctrl")}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	for _, f := range cmd.ExtraFiles {
		_ = f.Close() // so that nothing listens once swtpm has ended
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return b
}

func listening(t *testing.T, path string) *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (b *bed) run(name string, args ...string) string {
	b.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("%v: %v\n%s%s", cmd, err, &out, &errors)
	}
	return out.String()
}

var toolsBlock = regexp.MustCompile("(?s)```sh\n(tpm2_createprimary .*?)```")

// documented gives the commands by which an operator makes a key.
func documented(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	block := toolsBlock.FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/operations.md has no block that begins with tpm2_createprimary")
	}
	return strings.Split(strings.TrimSpace(string(block[1])), "\n")
}

func TestKeyOfTPM2Tools(t *testing.T) {
	need(t, "swtpm", "tpm2_create", "tpm2_flushcontext")
	b := newBed(t)
	program := filepath.Join(b.dir, "svidecar")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/svidecar").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range documented(t) {
		b.run("sh", "-c", line)
		b.run("tpm2_flushcontext", "-t") // a resource manager does so by itself
	}
	assertion := b.run(program, "mint", "--raw", "--source", "local", "--key-file", "tpm:0x81000001?device=unix:"+b.socket(),
		"--issuer", "https://issuer.example.com", "--subject", "spiffe://example.com/orders")
	key, err := os.ReadFile(filepath.Join(b.dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	verify(t, strings.TrimSpace(assertion), key)
	if set := b.run(program, "jwks", "key.pem"); !strings.Contains(set, `"`+keyID(t, assertion)+`"`) {
		t.Errorf("svidecar jwks makes %s of key.pem, without the key of the assertion", set)
	}
	left, err := filepath.Glob(filepath.Join(b.dir, "*.*"))
	if want := []string{"key.pem", "tpm.ctrl"}; err != nil || len(left) != 2 || filepath.Base(left[0]) != want[0] || filepath.Base(left[1]) != want[1] {
		t.Errorf("the commands leave %q (%v), want %q", left, err, want)
	}
}

func keyID(t *testing.T, assertion string) string {
	t.Helper()
	encoded, _, _ := strings.Cut(assertion, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	if err := json.Unmarshal(text, &header); err != nil || header.KeyID == "" {
		t.Fatalf("the header is %s (%v)", text, err)
	}
	return header.KeyID
}

// verify uses nothing but the standard library and what tpm2-tools say is the
// public key.
func verify(t *testing.T, assertion string, key []byte) {
	t.Helper()
	block, _ := pem.Decode(key)
	if block == nil {
		t.Fatalf("key.pem holds %q", key)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signed := assertion[:strings.LastIndexByte(assertion, '.')]
	signature, err := base64.RawURLEncoding.DecodeString(assertion[len(signed)+1:])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(signed))
	if err := rsa.VerifyPKCS1v15(public.(*rsa.PublicKey), crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

package chaos_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/mint"
)

var (
	soakFor   = flag.Duration("soak", 0, "run TestSoak for this `long`, at most 24h")
	soakRate  = flag.Int("rate", 2000, "requests per second of TestSoak, at most 20000")
	soakWrite = flag.String("write", "", "Markdown `file` that TestSoak puts its table into")
)

// soakForm has faults that outlast a part of the short-lived tokens, and the
// sidecar at its defaults.
func soakForm(rate int) size {
	const clients = 1000
	return size{
		clients: clients, every: clients * time.Second / time.Duration(rate), perClass: 6,
		before: 5 * time.Second, fault: 5 * time.Second, after: 5 * time.Second,
		fresh: 3 * time.Second, growth: 48e6, retryAfter: 5,
		short: lives{10 * time.Second, 0}, medium: lives{60 * time.Second, 10 * time.Second}, long: lives{400 * time.Second, 20 * time.Second},
	}
}

// size is how much each scenario does.
type size struct {
	clients    int
	every      time.Duration // a client asks once in
	perClass   int           // resources of each class of tokens
	before     time.Duration // of fair weather
	fault      time.Duration
	after      time.Duration // without a failure, to be believed
	timeout    time.Duration // of an exchange; zero: the default
	parallel   int           // scenarios at once
	short      lives
	medium     lives
	long       lives
	fresh      time.Duration // that a request may take whose token is as good as new: a busy machine may stall, but not as long as an exchange hangs
	growth     float64       // bytes of memory that a fault may leave behind
	retryAfter int           // seconds that Entra asks for when it throttles
}

// lives of a class of tokens: how long, and from when they are to be renewed; zero
// leaves that to the sidecar, which takes half.
type lives struct{ life, refresh time.Duration }

// shortForm has tokens that end within the fault, tokens that are to be renewed in
// it, and tokens that SDKs take for fresh throughout.
func shortForm() size {
	return size{
		clients: 50, every: 500 * time.Millisecond, perClass: 1,
		before: 400 * time.Millisecond, fault: 2800 * time.Millisecond, after: 300 * time.Millisecond, timeout: 2 * time.Second,
		parallel: 24, fresh: 2 * time.Second, growth: 24e6, retryAfter: 1,
		short: lives{3 * time.Second, 0}, medium: lives{14 * time.Second, time.Second}, long: lives{340 * time.Second, time.Second},
	}
}

func fullForm() size {
	return size{
		clients: 1000, every: time.Second, perClass: 6,
		before: 3 * time.Second, fault: 8 * time.Second, after: 2 * time.Second, timeout: 4 * time.Second,
		parallel: 3, fresh: 2 * time.Second, growth: 48e6, retryAfter: 5,
		short: lives{8 * time.Second, 0}, medium: lives{60 * time.Second, 4 * time.Second}, long: lives{380 * time.Second, 4 * time.Second},
	}
}

func (s size) classes() []lives { return []lives{s.short, s.medium, s.long} }

// What all scenarios share.
var (
	form     size
	program  string            // the built svidecar
	keyFile  string            // of the assertions' issuer
	tokenKey string            // with which the emulator signs, a file
	judge    *entratest.Server // verifies what the emulator signed; it serves nothing
	shared   *cloud            // the emulator of the scenarios that leave its process alone
)

func TestMain(m *testing.M) {
	if os.Getenv(emulatorRole) != "" {
		os.Exit(runEmulator())
	}
	flag.Parse()
	form = shortForm()
	if fullByTag || os.Getenv("SVIDECAR_CHAOS") == "full" {
		form = fullForm()
	}
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given { // scenarios mostly wait
		_ = flag.Set("test.parallel", strconv.Itoa(form.parallel))
	}
	scrub()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = 1
	}
	os.Exit(code)
}

// misleading matches variables by which a developer's machine would change what
// the program does.
var misleading = regexp.MustCompile(`(?i)^(AZURE_|SVIDECAR_|SSL_CERT_)|^(https?|all|no)_proxy$`)

func scrub() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); misleading.MatchString(name) {
			_ = os.Unsetenv(name)
		}
	}
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "svidecar-chaos-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		return 1, err
	}
	if shared, err = startCloud(); err != nil {
		return 1, err
	}
	code = m.Run()
	return code, shared.close()
}

// prepare makes what takes long once: the program and the keys.
func prepare(dir string) error {
	program = filepath.Join(dir, "svidecar")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	if err := noteSources(); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", program, "../../cmd/svidecar")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("%v: %w", build, err)
	}
	keyFile, tokenKey = filepath.Join(dir, "issuer.pem"), filepath.Join(dir, "entra.pem")
	issuer, err := mint.GenerateKey(2048)
	if err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := errors.Join(mint.WriteKey(keyFile, issuer), os.WriteFile(tokenKey, block, 0o600)); err != nil {
		return err
	}
	judge, err = entratest.New(entratest.Config{Key: key})
	return err
}

// noteSources looks at the files that the program is built from: the go command
// remembers that a test passed for as long as nothing changes that it looked at.
func noteSources() error {
	const root = "../.."
	for _, dir := range []string{"cmd/svidecar", "exchange", "imds", "internal", "mint", "proxy"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := os.Stat(filepath.Join(root, "go.mod"))
	return err
}

// identity is an app in the emulated Entra.
type identity struct{ tenant, client string }

// identities are two of one tenant, whose assertions come from the token file, and
// one of another tenant, whose assertions the sidecar signs itself. Requests that
// name none get the first.
var identities = []identity{
	{emulation.TenantID, emulation.ClientID},
	{emulation.TenantID, "7b0f5a3d-2c94-4f6e-8d17-c5a1e9b24f60"},
	{"e4c8d1b2-6f3a-4097-9b5e-1a7d2c8f0e53", "c2d96e71-0a5b-4e83-b7f4-83d05b6a1c29"},
}

// ownSource is the index of the identity that needs no token file.
const ownSource = 2

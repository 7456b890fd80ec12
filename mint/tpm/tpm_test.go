//go:build unix

package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint/tpm"
)

// secretWord is an authorization value.
var secretWord = secret.New("the-right-word")

func create(t *testing.T, cfg tpm.CreateConfig) *tpm.Key {
	t.Helper()
	key, err := tpm.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func open(t *testing.T, cfg tpm.Config) *tpm.Key {
	t.Helper()
	key, err := tpm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signs has the key sign, and verifies with nothing of the TPM's.
func signs(key *tpm.Key, text string) error {
	digest := sha256.Sum256([]byte(text))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return err
	}
	return rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature)
}

// wantError wants one line that says this.
func wantError(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), "tpm: ") || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v; want one line that says %q", err, says)
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  tpm.CreateConfig
		says string
	}{
		{"no handle", tpm.CreateConfig{}, "Config.Handle: 0x0 is not from 0x81000000 to 0x817fffff"},
		{"a transient handle", tpm.CreateConfig{Config: tpm.Config{Handle: 0x80ffffff}}, "Config.Handle"},
		{"the platform's handle", tpm.CreateConfig{Config: tpm.Config{Handle: 0x81800000}}, "Config.Handle"},
		{"the highest handle", tpm.CreateConfig{Config: tpm.Config{Handle: math.MaxUint32}}, "Config.Handle"},
		{"relative device", tpm.CreateConfig{Config: tpm.Config{Handle: handle, Device: "dev/tpm0"}}, `Config.Device: "dev/tpm0" is neither`},
		{"relative socket", tpm.CreateConfig{Config: tpm.Config{Handle: handle, Device: "unix:tpm"}}, `Config.Device: "unix:tpm" is neither`},
		{"another scheme", tpm.CreateConfig{Config: tpm.Config{Handle: handle, Device: "tcp:localhost:2321"}}, `Config.Device: "tcp:localhost:2321" is neither`},
		{"negative timeout", tpm.CreateConfig{Config: tpm.Config{Handle: handle, Timeout: -1}}, "Config.Timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tpm.Open(tt.cfg.Config)
			wantError(t, err, tt.says)
			_, err = tpm.Create(tt.cfg)
			wantError(t, err, tt.says)
		})
	}
	for _, bits := range []int{-1, 1, 1024, 2049, 4096} {
		_, err := tpm.Create(tpm.CreateConfig{Config: tpm.Config{Handle: handle, Device: "/nowhere"}, Bits: bits})
		wantError(t, err, "CreateConfig.Bits")
	}
}

// TestNoTPM names what to do on machines without one.
func TestNoTPM(t *testing.T) {
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "socket")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ device, says string }{
		{dir + "/nowhere", "there is no such device: enable the TPM 2.0 in the machine's firmware"},
		{"unix:" + dir + "/nowhere", "there is no such device"},
		{file, "not a device: name one such as /dev/tpmrm0"},
		{"unix:" + socket, "nothing serves that socket: start the software TPM"},
	} {
		_, err := tpm.Open(tpm.Config{Device: tt.device, Handle: handle})
		wantError(t, err, tt.says)
		wantError(t, err, "open the key at 0x81000001 of "+tt.device)
		_, err = tpm.Create(tpm.CreateConfig{Config: tpm.Config{Device: tt.device, Handle: handle}})
		wantError(t, err, tt.says)
	}
}

func TestNoPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may open anything")
	}
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	_, err = tpm.Open(tpm.Config{Device: "unix:" + socket, Handle: handle})
	wantError(t, err, "run svidecar in the group that owns it, often tss")
}

func TestCreate(t *testing.T) {
	s := startTPM(t)
	for i, bits := range []int{0, 2048, 3072} {
		cfg := tpm.CreateConfig{Config: s.config(), Bits: bits}
		cfg.Handle += uint32(i)
		made := create(t, cfg)
		if got, want := made.Public().(*rsa.PublicKey).N.BitLen(), max(bits, 2048); got != want {
			t.Errorf("Bits %d: a key of %d bits, want %d", bits, got, want)
		}
		if found := open(t, cfg.Config); !found.Public().(*rsa.PublicKey).Equal(made.Public()) {
			t.Error("Open finds another key than was created")
		}
		if err := signs(made, "x"); err != nil {
			t.Errorf("Bits %d: %v", bits, err)
		}
	}
	s.wantEmptyMemory(t)
}

// TestKeyCannotLeaveTheTPM looks at what the TPM itself goes by.
func TestKeyCannotLeaveTheTPM(t *testing.T) {
	s := startTPM(t)
	for i, auth := range []string{"", "a-word"} {
		cfg := tpm.CreateConfig{Config: s.config()}
		cfg.Handle, cfg.Auth = handle+uint32(i), secret.New(auth)
		create(t, cfg)
		object := s.readPublic(t, cfg.Handle)
		want := tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true,
			NoDA: auth == "",
		}
		if object.ObjectAttributes != want {
			t.Errorf("the key is %+v, want %+v", object.ObjectAttributes, want)
		}
		_, err := tpm2.Duplicate{
			ObjectHandle:    tpm2.AuthHandle{Handle: tpm2.TPMHandle(cfg.Handle), Name: s.name(t, cfg.Handle), Auth: tpm2.PasswordAuth([]byte(auth))},
			NewParentHandle: tpm2.TPMRHNull,
			Symmetric:       tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(s.connect(t))
		if err == nil {
			t.Error("the TPM hands the key out")
		}
	}
}

func TestCreateRefusesATakenHandle(t *testing.T) {
	s := startTPM(t)
	first := create(t, tpm.CreateConfig{Config: s.config()})
	_, err := tpm.Create(tpm.CreateConfig{Config: s.config()})
	wantError(t, err, "create the key at 0x81000001 of "+s.device+": the handle is taken: choose another")
	if err := signs(first, "x"); err != nil {
		t.Errorf("the first key: %v", err)
	}
	s.wantEmptyMemory(t)
}

func TestCreateWithOwnerAuth(t *testing.T) {
	s := startTPM(t)
	owner := secret.New("the-owner's-word")
	if _, err := (tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(owner.Reveal())},
	}).Execute(s.connect(t)); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []secret.Value{{}, secret.New("another-word")} {
		_, err := tpm.Create(tpm.CreateConfig{Config: s.config(), OwnerAuth: wrong})
		wantError(t, err, "the TPM refuses the owner's authorization value")
		if !wrong.IsZero() && strings.Contains(err.Error(), wrong.Reveal()) {
			t.Errorf("%v shows the value", err)
		}
	}
	if err := signs(create(t, tpm.CreateConfig{Config: s.config(), OwnerAuth: owner}), "x"); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	s := startTPM(t)
	_, err := tpm.Open(s.config())
	wantError(t, err, "open the key at 0x81000001 of "+s.device+": there is no key: create it, or correct the handle")
	for i, tt := range []struct {
		name   string
		change func(*tpm2.TPMTPublic)
		says   string
	}{
		{"EC key", ecKey, "no RSA key, and Entra accepts RS256 only"},
		{"storage key", func(p *tpm2.TPMTPublic) { *p = tpm2.RSASRKTemplate }, "a key that may not sign"},
		{"restricted", func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = true }, "a restricted key"},
		{"by policy", func(p *tpm2.TPMTPublic) { p.ObjectAttributes.UserWithAuth = false }, "a key that is used by policy only"},
		{"PSS", func(p *tpm2.TPMTPublic) {
			scheme(p, tpm2.TPMAlgRSAPSS, tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256}))
		}, "a key of another scheme"},
		{"SHA-384", func(p *tpm2.TPMTPublic) {
			scheme(p, tpm2.TPMAlgRSASSA, tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA384}))
		}, "a key of another scheme"},
		{"no scheme", func(p *tpm2.TPMTPublic) { scheme(p, tpm2.TPMAlgNull, tpm2.TPMUAsymScheme{}) }, ""},
		{"RSASSA with SHA-256", func(*tpm2.TPMTPublic) {}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := s.config()
			cfg.Handle += uint32(i)
			s.persist(t, cfg.Handle, tt.change)
			key, err := tpm.Open(cfg)
			if tt.says != "" {
				wantError(t, err, tt.says)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := signs(key, "x"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignRefuses asks a TPM that would answer otherwise, or not at all: it is
// gone.
func TestSignRefuses(t *testing.T) {
	s := startTPM(t)
	key := create(t, tpm.CreateConfig{Config: s.config()})
	s.kill()
	digest := make([]byte, 64)
	for _, tt := range []struct {
		name   string
		digest []byte
		opts   crypto.SignerOpts
	}{
		{"no options", digest[:32], nil},
		{"no hash", digest[:32], crypto.Hash(0)},
		{"SHA-1", digest[:20], crypto.SHA1},
		{"SHA-384", digest[:48], crypto.SHA384},
		{"SHA-512/256", digest[:32], crypto.SHA512_256},
		{"PSS", digest[:32], &rsa.PSSOptions{Hash: crypto.SHA256}},
		{"no digest", nil, crypto.SHA256},
		{"short digest", digest[:31], crypto.SHA256},
		{"long digest", digest[:33], crypto.SHA256},
	} {
		_, err := key.Sign(nil, tt.digest, tt.opts)
		wantError(t, err, "only SHA-256 digests with PKCS #1 v1.5 are signed")
	}
	_, err := key.Sign(nil, digest[:32], crypto.SHA256)
	wantError(t, err, "sign with the key at 0x81000001 of "+s.device+": nothing serves that socket")
}

// TestWrongAuthIsShownOnce: a TPM locks itself for the whole machine after a few
// wrong values, swtpm after three.
func TestWrongAuthIsShownOnce(t *testing.T) {
	s := startTPM(t)
	cfg := tpm.CreateConfig{Config: s.config()}
	cfg.Auth = secretWord
	right := create(t, cfg)
	cfg.Auth = secret.New("a-wrong-word")
	wrong := open(t, cfg.Config)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			err := signs(wrong, "x")
			wantError(t, err, "the TPM refuses the key's authorization value, and is not asked again: restart with the right one")
			if err != nil && strings.Contains(err.Error(), "word") {
				t.Errorf("%v shows the value", err)
			}
		})
	}
	callers.Wait()
	if err := signs(right, "x"); err != nil {
		t.Errorf("with the right value: %v", err)
	}
	if n := s.property(t, tpm2.TPMPTLockoutCounter); n != 1 {
		t.Errorf("the TPM has counted %d wrong values, want 1", n)
	}
	none := open(t, s.config())
	for range 5 {
		wantError(t, signs(none, "x"), "the key has an authorization value and none is given, so that the TPM is not asked again: create a key without one")
	}
	if n := s.property(t, tpm2.TPMPTLockoutCounter); n != 2 {
		t.Errorf("the TPM has counted %d wrong values, want 2", n)
	}
	if got := fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg); strings.Contains(got, "wrong-word") {
		t.Errorf("the configuration prints as %s", got)
	}
}

// TestAuthIsNotOnTheBus: where the TPM is a chip of its own, its wires can be
// listened to.
func TestAuthIsNotOnTheBus(t *testing.T) {
	s := startTPM(t)
	between := s.between(t)
	owner := secret.New("the-owner's-word")
	if _, err := (tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(owner.Reveal())},
	}).Execute(s.connect(t)); err != nil {
		t.Fatal(err)
	}
	cfg := tpm.CreateConfig{Config: s.config(), OwnerAuth: owner}
	cfg.Device, cfg.Auth = between.device, secretWord
	if err := signs(create(t, cfg), "x"); err != nil {
		t.Fatal(err)
	}
	between.mu.Lock()
	defer between.mu.Unlock()
	if digest := sha256.Sum256([]byte("x")); !bytes.Contains(between.seen, digest[:]) {
		t.Fatal("nothing was overheard")
	}
	for _, word := range []secret.Value{owner, secretWord} {
		if bytes.Contains(between.seen, []byte(word.Reveal())) {
			t.Errorf("%q went over the bus", word.Reveal())
		}
	}
}

func TestLockedTPM(t *testing.T) {
	s := startTPM(t)
	cfg := tpm.CreateConfig{Config: s.config()}
	cfg.Auth = secretWord
	right := create(t, cfg)
	free := s.config()
	free.Handle++
	unguarded := create(t, tpm.CreateConfig{Config: free})
	cfg.Auth = secret.New("a-wrong-word")
	for range 5 {
		_ = signs(open(t, cfg.Config), "x")
	}
	wantError(t, signs(right, "x"), "the TPM is locked after wrong authorization values: wait until it unlocks")
	if err := signs(unguarded, "x"); err != nil {
		t.Errorf("a key without a value, which nobody can guess: %v", err)
	}
}

// TestConcurrentSignatures: each caller gets its own, and the TPM one command at
// a time.
func TestConcurrentSignatures(t *testing.T) {
	s := startTPM(t)
	between := s.between(t)
	cfg := tpm.CreateConfig{Config: s.config()}
	cfg.Device = between.device
	key := create(t, cfg)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for j := range 3 {
				if err := signs(key, fmt.Sprint(i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if between.crowded.Load() {
		t.Error("the TPM was asked by several at once")
	}
}

func TestSilentTPM(t *testing.T) {
	s := startTPM(t)
	between := s.between(t)
	cfg := s.config()
	cfg.Device, cfg.Timeout = between.device, 500*time.Millisecond
	create(t, tpm.CreateConfig{Config: s.config()})
	key := open(t, cfg)
	between.silent.Store(true)
	_, err := tpm.Open(cfg)
	wantError(t, err, "no answer within 500ms")
	var callers sync.WaitGroup
	begin := time.Now()
	for range 20 {
		callers.Go(func() {
			if err := signs(key, "x"); err == nil || !strings.Contains(err.Error(), "500ms") {
				t.Errorf("%v, want that there was no answer within 500ms", err)
			}
		})
	}
	callers.Wait()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("20 callers waited for %v together, want 500 ms", took)
	}
	between.silent.Store(false)
	cfg.Timeout = 0 // 10 s
	if err := signs(open(t, cfg), "x"); err != nil {
		t.Errorf("once it answers again: %v", err)
	}
}

// TestGarbledAnswers: what answers may not be a TPM at all.
func TestGarbledAnswers(t *testing.T) {
	s := startTPM(t)
	between := s.between(t)
	create(t, tpm.CreateConfig{Config: s.config()})
	cfg := s.config()
	cfg.Device = between.device
	key := open(t, cfg)
	for _, answer := range []string{
		"\x00", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00", "\x80\x02\xff\xff\xff\xff\x00\x00\x00\x00",
		"\x80\x01\x00\x00\x00\x0c\x00\x00\x00\x00\xff\xff", "\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01", strings.Repeat("\xff", 4096), strings.Repeat("\x00", 4096),
	} {
		between.answer.Store(&answer)
		if _, err := tpm.Open(cfg); err == nil {
			t.Errorf("Open takes %.20q for a key", answer)
		} else {
			wantError(t, err, "open the key at")
		}
		err := signs(key, "x")
		if err == nil {
			t.Errorf("Sign takes %.20q for a signature", answer)
			continue
		}
		wantError(t, err, "sign with the key at")
	}
}

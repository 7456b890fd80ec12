package mint_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/svidecar/svidecar/mint"
)

func TestGenerateKeyRefuses(t *testing.T) {
	for _, bits := range []int{-1, 0, 1024, 2047, 4097, 1 << 30} {
		if _, err := mint.GenerateKey(bits); err == nil {
			t.Errorf("GenerateKey(%d) succeeds", bits)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	pkcs8, pkcs1 := string(testdata(t, "test-only-rsa2048-pkcs8.pem")), string(testdata(t, "test-only-rsa2048-pkcs1.pem"))
	lines := strings.SplitAfter(pkcs8, "\n")
	for _, tt := range []struct{ name, pem, says string }{
		{"empty", "", "0 PEM blocks"},
		{"text", "hello", "0 PEM blocks"},
		{"DER", string(der(t, pkcs8)), "0 PEM blocks"},
		{"two keys", pkcs8 + pkcs1, "2 PEM blocks"},
		{"key twice", pkcs8 + pkcs8, "2 PEM blocks"},
		{"damaged block before", "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n" + pkcs8, "2 PEM blocks"},
		{"text before", "my key:\n" + pkcs8, "before"},
		{"text after", pkcs8 + "that was my key\n", "after"},
		{"no end", strings.Join(lines[:len(lines)-2], ""), "damaged"},
		{"a damaged line", lines[0] + "!" + strings.Join(lines[1:], ""), "damaged"},
		{"a missing line", lines[0] + strings.Join(lines[2:], ""), "PKCS #8"},
		{"empty block", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "PKCS #8"},
		{"PKCS #1 called PKCS #8", strings.ReplaceAll(pkcs1, "RSA PRIVATE", "PRIVATE"), "PKCS #8"},
		{"PKCS #8 called PKCS #1", strings.ReplaceAll(pkcs8, "PRIVATE", "RSA PRIVATE"), "PKCS #1"},
		{"public key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "neither"},
		{"certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "neither"},
		{"OpenSSH", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "neither"},
		{"encrypted PKCS #8", string(testdata(t, "test-only-encrypted.pem")), "decrypt it"},
		{"PEM headers", strings.Replace(pkcs1, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1), "decrypt it"},
		{"EC key", string(testdata(t, "test-only-p256-pkcs8.pem")), "RS256"},
		{"1,024 bits", string(testdata(t, "test-only-rsa1024.pem")), "1024 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key.pem")
			write(t, path, tt.pem)
			_, parseErr := mint.ParseKey([]byte(tt.pem))
			_, loadErr := mint.LoadKey(path)
			for _, err := range []error{parseErr, loadErr} {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("error %v, want it to say %q", err, tt.says)
				}
				checkNoLeak(t, err, strings.Join(lines[1:len(lines)-2], ""))
				checkOneLine(t, err)
			}
			if !strings.Contains(loadErr.Error(), path) {
				t.Errorf("LoadKey: %v does not name %s", loadErr, path)
			}
		})
	}
}

// A key of the right form with wrong numbers must not be taken, nor shown.
func TestParseKeyRefusesWrongNumbers(t *testing.T) {
	good := der(t, string(testdata(t, "test-only-rsa2048-pkcs8.pem")))
	for i := 0; i < len(good); i += 31 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x55
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bad})
		if _, err := mint.ParseKey(text); err == nil {
			t.Errorf("ParseKey takes a key with byte %d changed", i)
		} else {
			checkNoLeak(t, err, string(text[len("-----BEGIN PRIVATE KEY-----\n"):len(text)-30]))
		}
	}
}

func der(t *testing.T, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no PEM block")
	}
	return block.Bytes
}

func TestLoadKeyRefusesFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	write(t, large, strings.Repeat("\n", 64<<10)+string(testdata(t, "test-only-rsa2048-pkcs8.pem")))
	for _, tt := range []struct {
		name, path string
		cause      error
	}{
		{"missing", filepath.Join(dir, "missing"), fs.ErrNotExist},
		{"directory", dir, nil},
		{"too large", large, nil},
		{"no name", "", fs.ErrNotExist},
	} {
		_, err := mint.LoadKey(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.path) || tt.cause != nil && !errors.Is(err, tt.cause) {
			t.Errorf("%s: LoadKey(%q): %v, want %v", tt.name, tt.path, err, tt.cause)
		}
	}
}

func TestParseKey(t *testing.T) {
	pkcs8 := string(testdata(t, "test-only-rsa2048-pkcs8.pem"))
	for _, tt := range []struct{ name, pem string }{
		{"PKCS #8", pkcs8},
		{"PKCS #1", string(testdata(t, "test-only-rsa2048-pkcs1.pem"))},
		{"white space around", "\n\n " + pkcs8 + " \r\n"},
		{"lines of Windows", strings.ReplaceAll(pkcs8, "\n", "\r\n")},
		{"no last newline", strings.TrimSpace(pkcs8)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, err := mint.ParseKey([]byte(tt.pem))
			if err != nil {
				t.Fatal(err)
			}
			checkSigns(t, key)
		})
	}
}

func checkSigns(t *testing.T, key crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

func TestWriteKeyAndLoadKey(t *testing.T) {
	key, err := mint.GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pem")
	if err := mint.WriteKey(path, key); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, err %v; want 0600", info.Mode(), err)
	}
	loaded, err := mint.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, loaded)
	if !key.Public().(*rsa.PublicKey).Equal(loaded.Public()) {
		t.Error("LoadKey returns another key than WriteKey wrote")
	}
	checkOnly(t, dir, "key.pem")
}

// checkOnly fails if a temporary file was left.
func checkOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestWriteKeyRefuses(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	write(t, taken, "precious")
	link(t, "nowhere", filepath.Join(dir, "dangling"))
	key := testKey(t)
	small, err := x509.ParsePKCS8PrivateKey(der(t, string(testdata(t, "test-only-rsa1024.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, path string
		key        crypto.Signer
		cause      error
	}{
		{"file there", taken, key, fs.ErrExist},
		{"directory there", dir, key, fs.ErrExist},
		{"dangling link there", filepath.Join(dir, "dangling"), key, fs.ErrExist},
		{"no such folder", filepath.Join(dir, "none", "key"), key, fs.ErrNotExist},
		{"no key", filepath.Join(dir, "new"), nil, nil},
		{"nil key", filepath.Join(dir, "new"), (*rsa.PrivateKey)(nil), nil},
		{"remote key", filepath.Join(dir, "new"), publicOnly{key.Public()}, nil},
		{"1,024 bits", filepath.Join(dir, "new"), small.(crypto.Signer), nil},
	} {
		err := mint.WriteKey(tt.path, tt.key)
		if err == nil || !strings.Contains(err.Error(), tt.path) || tt.cause != nil && !errors.Is(err, tt.cause) {
			t.Errorf("%s: WriteKey: %v, want %v", tt.name, err, tt.cause)
		}
	}
	if data, err := os.ReadFile(taken); err != nil || string(data) != "precious" {
		t.Errorf("the file that was there holds %q, err %v", data, err)
	}
	checkOnly(t, dir, "dangling", "taken")
}

func TestWriteKeyOnceAmongMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	keys := []crypto.Signer{testKey(t), otherKey(t)}
	errs := make([]error, 16)
	var writers sync.WaitGroup
	for i := range errs {
		writers.Go(func() { errs[i] = mint.WriteKey(path, keys[i%len(keys)]) })
	}
	writers.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won < 0:
			won = i
		case err == nil:
			t.Errorf("writers %d and %d both succeed", won, i)
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("writer %d: %v, want fs.ErrExist", i, err)
		}
	}
	loaded, err := mint.LoadKey(path)
	if err != nil || won < 0 {
		t.Fatalf("winner %d, LoadKey: %v", won, err)
	}
	if !loaded.Public().(*rsa.PublicKey).Equal(keys[won%len(keys)].Public()) {
		t.Error("the file does not hold the winner's key")
	}
	checkOnly(t, filepath.Dir(path), "key.pem")
}

func TestWriteKeyTakesRSAPrivateKey(t *testing.T) {
	parsed, err := x509.ParsePKCS8PrivateKey(der(t, string(testdata(t, "test-only-rsa2048-pkcs8.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := mint.WriteKey(path, parsed.(crypto.Signer)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, testdata(t, "test-only-rsa2048-pkcs8.pem")) {
		t.Errorf("WriteKey writes another text than OpenSSL, err %v", err)
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	key := testKey(t)
	parsed, err := x509.ParsePKCS8PrivateKey(der(t, string(testdata(t, "test-only-rsa2048-pkcs8.pem"))))
	if err != nil {
		t.Fatal(err)
	}
	d := parsed.(*rsa.PrivateKey).D
	var out bytes.Buffer
	for _, subject := range []any{key, &key, struct{ K crypto.Signer }{key}, []crypto.Signer{key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%p"} {
			fmt.Fprintf(&out, verb+"\n", subject)
		}
		if err := json.NewEncoder(&out).Encode(subject); err != nil {
			t.Fatal(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "key", subject)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "key", subject)
	}
	for _, secret := range []string{d.String(), fmt.Sprintf("%x", d)[:16], fmt.Sprintf("%X", d)[:16], base64.StdEncoding.EncodeToString(d.Bytes())[:16]} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the private exponent is printed")
		}
	}
}

func TestKeyID(t *testing.T) {
	for _, bad := range []crypto.PublicKey{nil, "key", (*rsa.PublicKey)(nil), &rsa.PublicKey{}, 7} {
		if got, err := mint.KeyID(bad); err == nil {
			t.Errorf("KeyID(%T) = %q", bad, got)
		}
	}
	// openssl pkey -pubout -outform DER | openssl dgst -sha256 -binary | basenc --base64url
	for want, key := range map[string]crypto.Signer{
		"piZBUJRvx6TTN4EwCSyVYYzs35ju8hgyG_ZxlusbQeE": testKey(t),
		"xr5HIhPYludACgkgLVV5O0rQY9rovN7_ENb-EsdH2u4": otherKey(t),
	} {
		if got, err := mint.KeyID(key.Public()); err != nil || got != want {
			t.Errorf("KeyID = %q, %v; want %q", got, err, want)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, name := range []string{"test-only-rsa2048-pkcs8.pem", "test-only-rsa2048-pkcs1.pem", "test-only-rsa1024.pem", "test-only-p256-pkcs8.pem", "test-only-encrypted.pem"} {
		f.Add(testdata(f, name))
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := mint.ParseKey(data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "mint: parse key: ") || len(err.Error()) > 200 {
				t.Errorf("ParseKey: %v", err)
			}
			return
		}
		bits := key.Public().(*rsa.PublicKey).N.BitLen()
		if bits < 2048 || bits > 4096 || bytes.Count(data, []byte("-----BEGIN")) != 1 {
			t.Errorf("ParseKey takes a key of %d bits from %q", bits, data)
		}
	})
}

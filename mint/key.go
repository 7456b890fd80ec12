package mint

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	minKeyBits  = 2048
	maxKeyBits  = 4096
	maxKeyBytes = 64 << 10 // of a key file
	pemPKCS8    = "PRIVATE KEY"
	pemPKCS1    = "RSA PRIVATE KEY"
)

// privateKey keeps a key's numbers behind a func, so that no verb of fmt and no
// encoder reaches them.
type privateKey struct{ reveal func() *rsa.PrivateKey }

func newPrivateKey(key *rsa.PrivateKey) *privateKey {
	return &privateKey{reveal: func() *rsa.PrivateKey { return key }}
}

// Public implements [crypto.Signer].
func (k *privateKey) Public() crypto.PublicKey { return k.reveal().Public() }

// Sign implements [crypto.Signer].
func (k *privateKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.reveal().Sign(random, digest, opts)
}

// Format implements [fmt.Formatter] with a fixed text for every verb.
func (*privateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private key]") }

// MarshalText implements [encoding.TextMarshaler], which JSON and YAML use.
func (*privateKey) MarshalText() ([]byte, error) { return []byte("[private key]"), nil }

// GenerateKey makes an RSA key of 2,048 to 4,096 bits. It takes 0.1 s to several
// seconds. The key cannot be printed; [WriteKey] stores it.
func GenerateKey(bits int) (crypto.Signer, error) {
	if err := checkBits(bits); err != nil {
		return nil, fmt.Errorf("mint: generate a key: %w", err)
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("mint: generate a key: %v", err)
	}
	return newPrivateKey(key), nil
}

// LoadKey reads a key file as [ParseKey] does: a regular file of at most 64 KiB
// that, on unix, only its owner may read (mode 0600 or less). No error holds
// key material.
func LoadKey(path string) (crypto.Signer, error) {
	data, info, err := readRegular(path, maxKeyBytes)
	switch {
	case err != nil:
		return nil, &fs.PathError{Op: "mint: load key", Path: path, Err: bare(err)}
	case tooOpen(info):
		return nil, fmt.Errorf("mint: load key %q: mode %#o lets others at the private key: run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("mint: load key %q: %w", path, err)
	}
	return key, nil
}

// tooOpen reports whether others than the owner and we may read the file, or
// anyone but the owner may write it. A group may read what another user owns:
// that is how kubelet hands a Secret to a pod that does not run as root
// (fsGroup), and the group is ours. Windows keeps its access lists elsewhere.
func tooOpen(info fs.FileInfo) bool {
	allowed := fs.FileMode(0o600)
	if ownedByAnother(info) {
		allowed |= 0o040
	}
	return runtime.GOOS != "windows" && info.Mode().Perm()&^allowed != 0
}

// ParseKey reads one PEM block and nothing else: an unencrypted RSA key of 2,048
// to 4,096 bits as PKCS #8 ("PRIVATE KEY", RFC 5958) or PKCS #1 ("RSA PRIVATE
// KEY", RFC 8017). No error holds key material.
func ParseKey(data []byte) (crypto.Signer, error) {
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("mint: parse key: %w", err)
	}
	return key, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, err := onlyBlock(data)
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(block)
	if err != nil {
		return nil, err
	}
	if _, err := rsaPublic(key.Public()); err != nil {
		return nil, err
	}
	return newPrivateKey(key), nil
}

// onlyBlock counts the openings itself, since the decoder silently skips what it
// cannot read and would take a later block.
func onlyBlock(data []byte) (*pem.Block, error) {
	data = bytes.TrimSpace(data)
	if n := bytes.Count(data, []byte("-----BEGIN ")); n != 1 {
		return nil, fmt.Errorf("%d PEM blocks, want exactly one", n)
	}
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, errors.New("text before the PEM block")
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("the PEM block is damaged")
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, errors.New("text after the PEM block")
	case len(block.Headers) != 0 || block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("an encrypted key, or one with PEM headers, is not supported: decrypt it, for instance with openssl pkey")
	}
	return block, nil
}

// decodeKey drops the decoder's errors, which describe the bytes.
func decodeKey(block *pem.Block) (*rsa.PrivateKey, error) {
	switch block.Type {
	case pemPKCS1:
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not a valid PKCS #1 private key")
		}
		return key, nil
	case pemPKCS8:
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not a valid PKCS #8 private key")
		}
		key, ok := parsed.(*rsa.PrivateKey)
		if !ok {
			return nil, errors.New("not an RSA key; Entra accepts RS256 only")
		}
		return key, nil
	}
	return nil, fmt.Errorf("the PEM block is neither %q nor %q", pemPKCS8, pemPKCS1)
}

// WriteKey stores a key of [GenerateKey], [ParseKey] or [LoadKey], or an
// [*rsa.PrivateKey], as PKCS #8 in a new file of mode 0600. The file appears
// whole or not at all. If path exists, whatever it is, it stays and the error
// matches [io/fs.ErrExist]. No error holds key material.
func WriteKey(path string, key crypto.Signer) error {
	private, err := exportable(key)
	if err != nil {
		return fmt.Errorf("mint: write key %q: %w", path, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("mint: write key %q: the key does not encode", path)
	}
	defer clear(der)
	if err := writeNew(path, pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: der})); err != nil {
		return &fs.PathError{Op: "mint: write key", Path: path, Err: bare(err)}
	}
	return nil
}

func exportable(key crypto.Signer) (*rsa.PrivateKey, error) {
	var private *rsa.PrivateKey
	switch key := key.(type) {
	case *privateKey:
		private = key.reveal()
	case *rsa.PrivateKey:
		private = key
	}
	if private == nil {
		return nil, errors.New("not an RSA key held in memory, so it cannot be exported")
	}
	_, err := rsaPublic(private.Public())
	return private, err
}

// writeNew fills a temporary file beside path and then gives it its name.
func writeNew(path string, data []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".svidecar-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails harmlessly after a rename
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := nameNew(tmp.Name(), path); err != nil {
		return err
	}
	syncDir(dir)
	return nil
}

// nameNew links, because that cannot overwrite while a rename would. Where the
// file system has no hard links a look ahead must do.
func nameNew(tmp, path string) error {
	err := os.Link(tmp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, path)
}

// syncDir makes the new name last through a power cut where the system can; the
// file is complete either way.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

// bare strips the paths that the message names itself, or that nobody knows.
func bare(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	if linkErr, ok := errors.AsType[*os.LinkError](err); ok {
		return linkErr.Err
	}
	return err
}

// KeyID is base64url(SHA-256(DER SubjectPublicKeyInfo)), as Kubernetes names its
// keys; it is not the thumbprint of RFC 7638. It takes what
// [x509.MarshalPKIXPublicKey] takes.
func KeyID(pub crypto.PublicKey) (string, error) {
	if key, ok := pub.(*rsa.PublicKey); ok && (key == nil || key.N == nil) {
		return "", errors.New("mint: key id: the public key is empty")
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("mint: key id: %v", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// rsaPublic holds the one key type that Entra accepts, within our range.
func rsaPublic(pub crypto.PublicKey) (*rsa.PublicKey, error) {
	key, ok := pub.(*rsa.PublicKey)
	if !ok || key == nil || key.N == nil {
		return nil, errors.New("not an RSA key; Entra accepts RS256 only")
	}
	if key.E < 3 || key.E%2 == 0 {
		return nil, errors.New("an RSA key with an impossible exponent")
	}
	return key, checkBits(key.N.BitLen())
}

func checkBits(bits int) error {
	if bits < minKeyBits || bits > maxKeyBits {
		return fmt.Errorf("an RSA key of %d bits; want %d to %d", bits, minKeyBits, maxKeyBits)
	}
	return nil
}

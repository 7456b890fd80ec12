// Package tpm owns the signing key that lives in a TPM 2.0: it makes one there,
// finds one by its persistent handle, and has the TPM sign with it. The private
// key never leaves the TPM, and the package never writes it anywhere.
//
// A TPM does one thing at a time and is shared with the rest of the machine, so
// that it is opened for each use and held no longer.
package tpm

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/svidecar/svidecar/internal/secret"
)

// The persistent handles that the owner of a TPM gives out (TCG Registry of
// Reserved TPM 2.0 Handles, section 2.3.1); the ones above are the platform's.
const (
	MinHandle = 0x81000000
	MaxHandle = 0x817fffff
)

const (
	// DefaultDevice is Linux's TPM behind the kernel's resource manager, which
	// lets several programs share it.
	DefaultDevice  = "/dev/tpmrm0"
	defaultTimeout = 10 * time.Second
)

// Config says where a key is.
type Config struct {
	// Device is the path of a character device, or unix: and the path of a socket
	// that a software TPM serves, such as unix:/run/swtpm.sock. Both are absolute.
	// Empty means [DefaultDevice].
	Device string

	// Handle is the key's persistent one, from MinHandle to MaxHandle. Required.
	Handle uint32

	// Auth is the key's authorization value. The zero Value means an empty one.
	Auth secret.Value

	// Timeout bounds one use of the key, with the wait for the TPM to be free.
	// Zero means 10 s.
	Timeout time.Duration
}

func (cfg *Config) check() error {
	if cfg.Device == "" {
		cfg.Device = DefaultDevice
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	switch {
	case !strings.HasPrefix(strings.TrimPrefix(cfg.Device, unixPrefix), "/"):
		return fmt.Errorf("tpm: Config.Device: %q is neither an absolute path nor %s and one: give one such as %s", cfg.Device, unixPrefix, DefaultDevice)
	case cfg.Handle < MinHandle || cfg.Handle > MaxHandle:
		return fmt.Errorf("tpm: Config.Handle: %#x is not from %#x to %#x, the persistent handles of the TPM's owner", cfg.Handle, MinHandle, MaxHandle)
	case cfg.Timeout < 0:
		return fmt.Errorf("tpm: Config.Timeout: %v is negative", cfg.Timeout)
	}
	return nil
}

// Key is an RSA key in a TPM. It implements [crypto.Signer], for PKCS #1 v1.5
// with SHA-256 only, and is safe for concurrent use: signatures are made one
// after the other. Nothing of the TPM is held between them, so that there is
// nothing to close.
type Key struct {
	chip   *chip
	cfg    Config
	public *rsa.PublicKey
	name   tpm2.TPM2BName // binds an authorization to this key and no other

	refused atomic.Bool // the TPM has refused our Auth
}

// Open looks at the key at cfg.Handle. It fails if there is none, or one that
// cannot sign assertions: one that is not RSA, may not sign, signs only what the
// TPM itself has hashed (restricted), by another scheme than RSASSA with SHA-256,
// or by policy only. The authorization value shows at the first signature.
func Open(cfg Config) (*Key, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := newChip(cfg.Device)
	seen, err := do(c, cfg.Timeout, func(t transport.TPM) (*tpm2.ReadPublicResponse, error) {
		return tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(cfg.Handle)}.Execute(t)
	})
	if err != nil {
		return nil, cfg.failed("open", err)
	}
	public, err := signingKey(seen.OutPublic)
	if err != nil {
		return nil, cfg.failed("open", err)
	}
	return &Key{chip: c, cfg: cfg, public: public, name: seen.Name}, nil
}

// signingKey refuses keys that could not sign an assertion.
func signingKey(from tpm2.TPM2BPublic) (*rsa.PublicKey, error) {
	object, err := from.Contents()
	if err != nil {
		return nil, errors.New("its public part does not parse")
	}
	if object.Type != tpm2.TPMAlgRSA {
		return nil, errors.New("no RSA key, and Entra accepts RS256 only: create one there with rsa2048")
	}
	parms, err := object.Parameters.RSADetail()
	if err != nil {
		return nil, errors.New("its public part does not parse")
	}
	switch attributes := object.ObjectAttributes; {
	case !attributes.SignEncrypt:
		return nil, errors.New("a key that may not sign: create one with the attribute sign")
	case attributes.Restricted:
		return nil, errors.New("a restricted key, which signs only what the TPM itself has hashed: create one without the attribute restricted")
	case !attributes.UserWithAuth:
		return nil, errors.New("a key that is used by policy only, which is not supported: create one with the attribute userwithauth")
	case !signsRS256(parms.Scheme):
		return nil, errors.New("a key of another scheme than RSASSA with SHA-256: create one with rsa2048:rsassa-sha256")
	}
	unique, err := object.Unique.RSA()
	if err != nil {
		return nil, errors.New("its public part does not parse")
	}
	return tpm2.RSAPub(parms, unique)
}

func signsRS256(scheme tpm2.TPMTRSAScheme) bool {
	if scheme.Scheme == tpm2.TPMAlgNull { // each signature names its own
		return true
	}
	details, err := scheme.Details.RSASSA()
	return scheme.Scheme == tpm2.TPMAlgRSASSA && err == nil && details.HashAlg == tpm2.TPMAlgSHA256
}

// Public implements [crypto.Signer] with an [*rsa.PublicKey].
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign implements [crypto.Signer]. The digest is SHA-256's, and opts say so; the
// TPM needs no randomness. An error is one line that says what to do.
//
// Once the TPM has refused the authorization value it is not shown again: a TPM
// counts wrong ones, and locks itself for the whole machine after a few.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := checkDigest(digest, opts); err != nil {
		return nil, k.cfg.failed("sign with", err)
	}
	if k.refused.Load() {
		return nil, k.cfg.failed("sign with", errRefused)
	}
	signature, err := do(k.chip, k.cfg.Timeout, func(t transport.TPM) ([]byte, error) {
		if k.refused.Load() { // meanwhile
			return nil, errRefused
		}
		signature, err := k.sign(t, digest)
		if isRefusal(err) {
			k.refused.Store(true)
		}
		return signature, err
	})
	if err != nil {
		return nil, k.cfg.failed("sign with", err)
	}
	return signature, nil
}

func checkDigest(digest []byte, opts crypto.SignerOpts) error {
	if _, pss := opts.(*rsa.PSSOptions); pss || opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return errors.New("only SHA-256 digests with PKCS #1 v1.5 are signed")
	}
	return nil
}

func (k *Key) sign(t transport.TPM, digest []byte) ([]byte, error) {
	answer, err := tpm2.Sign{
		KeyHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(k.cfg.Handle), Name: k.name, Auth: session(k.cfg.Auth)},
		Digest:    tpm2.TPM2BDigest{Buffer: digest},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	signature, err := answer.Signature.Signature.RSASSA()
	if err != nil {
		return nil, err
	}
	return signature.Sig.Buffer, nil
}

// session proves knowledge of auth without sending it over the bus, where the
// TPM is a chip of its own. An empty one needs no proof.
func session(auth secret.Value) tpm2.Session {
	if auth.IsZero() {
		return tpm2.PasswordAuth(nil)
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes, tpm2.Auth([]byte(auth.Reveal())))
}

const nonceBytes = 16

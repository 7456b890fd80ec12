package tpm

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/svidecar/svidecar/internal/secret"
)

// creation is how long a TPM may take to find two primes: minutes, in hardware.
const creation = 3 * time.Minute

// CreateConfig says what key to create, and where.
type CreateConfig struct {
	Config // of the new key; Timeout is for its use, not for the creation

	// OwnerAuth is the authorization value of the owner hierarchy. The zero Value
	// means an empty one, as TPMs have it unless somebody took ownership.
	OwnerAuth secret.Value

	// Bits is the key's size: 2048 or 3072. Zero means 2048, which all TPMs make.
	Bits int
}

// Create makes an RSA key inside the TPM and gives it the persistent handle,
// which must be free. It takes seconds, in some hardware a minute, and at most
// three. The key can sign assertions and nothing but sign, and cannot leave the
// TPM (fixedTPM, fixedParent, sensitiveDataOrigin; not decrypt, not restricted).
//
// It is an ordinary key below the storage primary key, not a primary key itself:
// who has the owner's authorization value could make a primary key again with
// another authorization value.
func Create(cfg CreateConfig) (*Key, error) {
	if cfg.Bits == 0 {
		cfg.Bits = 2048
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Bits != 2048 && cfg.Bits != 3072 {
		return nil, fmt.Errorf("tpm: CreateConfig.Bits: %d is neither 2048 nor 3072", cfg.Bits)
	}
	if _, err := do(newChip(cfg.Device), creation, cfg.create); err != nil {
		return nil, cfg.failed("create", cfg.explainCreation(err))
	}
	return Open(cfg.Config)
}

var errOccupied = errors.New("the handle is taken: choose another, or remove what is there (tpm2_evictcontrol)")

func (cfg CreateConfig) explainCreation(err error) error {
	switch {
	case isRefusal(err):
		return errors.New("the TPM refuses the owner's authorization value: give the one that was set when ownership was taken")
	case errors.Is(err, tpm2.TPMRCNVDefined):
		return errOccupied
	case errors.Is(err, tpm2.TPMRCNVSpace):
		return errors.New("the TPM has no room for another persistent key: remove one (tpm2_evictcontrol)")
	case errors.Is(err, tpm2.TPMRCValue), errors.Is(err, tpm2.TPMRCKeySize):
		return fmt.Errorf("this TPM makes no such key (%w): try 2048 bits", err)
	}
	return err
}

func (cfg CreateConfig) create(t transport.TPM) (struct{}, error) {
	if err := cfg.checkFree(t); err != nil {
		return struct{}{}, err
	}
	parent, err := tpm2.CreatePrimary{
		PrimaryHandle: cfg.owner(),
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(t)
	if err != nil {
		return struct{}{}, err
	}
	defer flush(t, parent.ObjectHandle)
	key, err := cfg.createBelow(t, parent)
	if err != nil {
		return struct{}{}, err
	}
	defer flush(t, key.ObjectHandle)
	_, err = tpm2.EvictControl{
		Auth:             cfg.owner(),
		ObjectHandle:     tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: tpm2.TPMIDHPersistent(cfg.Handle),
	}.Execute(t)
	return struct{}{}, err
}

// checkFree spares the minute that a key takes; the TPM itself refuses the
// handle at the end.
func (cfg CreateConfig) checkFree(t transport.TPM) error {
	_, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(cfg.Handle)}.Execute(t)
	if err == nil {
		return errOccupied
	}
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	return err
}

func (cfg CreateConfig) owner() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: session(cfg.OwnerAuth)}
}

// createBelow makes and loads the key. Its authorization value is encrypted on
// the way.
func (cfg CreateConfig) createBelow(t transport.TPM, parent *tpm2.CreatePrimaryResponse) (*tpm2.LoadResponse, error) {
	public, err := parent.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	above := tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonceBytes,
		tpm2.AESEncryption(128, tpm2.EncryptIn), tpm2.Salted(parent.ObjectHandle, *public))}
	sensitive := tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
		UserAuth: tpm2.TPM2BAuth{Buffer: []byte(cfg.Auth.Reveal())},
	}}
	made, err := tpm2.Create{ParentHandle: above, InSensitive: sensitive, InPublic: tpm2.New2B(cfg.template())}.Execute(t)
	if err != nil {
		return nil, err
	}
	above.Auth = tpm2.PasswordAuth(nil)
	return tpm2.Load{ParentHandle: above, InPrivate: made.OutPrivate, InPublic: made.OutPublic}.Execute(t)
}

// template is what the key may do. Without an authorization value there is none
// to guess, and a lockout that others cause must not stop us.
func (cfg CreateConfig) template() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgRSA,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true,
			NoDA: cfg.Auth.IsZero(),
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{
				Scheme:  tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			KeyBits: tpm2.TPMKeyBits(cfg.Bits),
		}),
	}
}

// flush takes an object out of the TPM's memory, which holds only a few.
func flush(t transport.TPM, handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(t)
}

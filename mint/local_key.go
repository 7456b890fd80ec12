package mint

import (
	"crypto"
	"crypto/rsa"
	"errors"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
)

// signingKey is a signer with what its assertions say of it.
type signingKey struct {
	signer crypto.Signer
	public *rsa.PublicKey
	id     string
}

// Public returns the key that verifies this source's assertions. With
// [LocalConfig.Keys] that is the one to be had at this moment, or nil.
func (l *Local) Public() crypto.PublicKey {
	key, err := l.key()
	if err != nil {
		return nil
	}
	return key.public
}

// key returns the key to sign with now. Without one the call may be repeated:
// keys come by themselves.
func (l *Local) key() (*signingKey, error) {
	if l.cfg.Signer != nil {
		return l.last.Load(), nil
	}
	signer, err := l.cfg.Keys()
	if err == nil && signer == nil {
		err = errors.New("no key")
	}
	if err != nil {
		return nil, signError(err, true, "there is no key to sign with: "+foreignText(err))
	}
	key, err := l.known(signer)
	if err != nil {
		return nil, signError(err, true, "the key does not do: "+foreignText(err))
	}
	return key, nil
}

// known checks a signer and names its key. Most times that is the last one's,
// which spares its hash.
func (l *Local) known(signer crypto.Signer) (*signingKey, error) {
	public, err := rsaPublic(signer.Public())
	if err != nil {
		return nil, err
	}
	if last := l.last.Load(); last != nil && last.public.Equal(public) {
		return &signingKey{signer, last.public, last.id}, nil
	}
	id, err := KeyID(public)
	if err != nil {
		return nil, err
	}
	key := &signingKey{signer, public, id}
	l.last.Store(key)
	return key, nil
}

// jose makes a signer of headers of exactly alg, kid and typ: JWT-SVID, section
// 2, allows no others, and Entra wants all three (typ JWT, kid present).
func (k *signingKey) jose() (jose.Signer, error) {
	opts := new(jose.SignerOptions).WithType("JWT").WithHeader("kid", k.id)
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: cryptosigner.Opaque(k.signer)}, opts)
}

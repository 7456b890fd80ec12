package mint

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-jose/go-jose/v4"
)

// KeySet returns the key set of [Documents] alone. A key set belongs to no
// issuer in particular.
func KeySet(keys ...crypto.PublicKey) ([]byte, error) {
	keySet, err := keySetDocument(keys)
	if err != nil {
		return nil, fmt.Errorf("mint: key set: %w", err)
	}
	return keySet, nil
}

// LoadPublicKeys reads the RSA public keys of 2,048 to 4,096 bits in a PEM file
// of at most 64 KiB: any number of public keys (PKIX, "PUBLIC KEY", or PKCS #1,
// "RSA PUBLIC KEY"; kube-apiserver's service-account key files hold several), or
// one certificate, or one private key, of which only the public half is kept; or
// in a JSON key set (RFC 7517) of public keys. No error holds key material.
func LoadPublicKeys(path string) ([]crypto.PublicKey, error) {
	data, _, err := readRegular(path, maxKeyBytes)
	if err != nil {
		return nil, &fs.PathError{Op: "mint: load public keys", Path: path, Err: bare(err)}
	}
	defer clear(data)
	parse := parsePublicKeys
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		parse = ParseKeySet
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("mint: load public keys %q: %w", path, err)
	}
	return keys, nil
}

func parsePublicKeys(data []byte) (keys []crypto.PublicKey, err error) {
	// The decoder silently skips what it cannot read.
	want := bytes.Count(data, []byte("-----BEGIN "))
	for n := 1; ; n++ {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := decodePublic(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", n, err)
		}
		if block.Type != pemPKIX && block.Type != pemPKCS1Public && want > 1 {
			return nil, fmt.Errorf("%d PEM blocks, and one is a %s: give a file of that one alone, lest a key be published that signs something else", want, block.Type)
		}
		keys = append(keys, key)
	}
	if want == 0 || len(keys) != want {
		return nil, errors.New("not a PEM file, or a damaged one: give a public key, a private key or a certificate in PEM form")
	}
	return keys, nil
}

// ParseKeySet reads the RSA public keys in a JSON key set (RFC 7517). It refuses a
// key whose kid is not [KeyID]'s: assertions that it signed name another one.
func ParseKeySet(data []byte) (keys []crypto.PublicKey, err error) {
	var set jose.JSONWebKeySet
	if json.Unmarshal(data, &set) != nil || len(set.Keys) == 0 {
		return nil, errors.New("not a JSON key set, or an empty one")
	}
	for i, jwk := range set.Keys {
		if !jwk.IsPublic() {
			return nil, fmt.Errorf("key %d is a private key: give a set of public keys", i)
		}
		made, err := publicJWK(jwk.Key)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if jwk.KeyID != made.KeyID {
			return nil, fmt.Errorf("key %d has the kid %.100q; as Kubernetes names it, it is %s: keep the set as it is, and do not mix it with ours", i, jwk.KeyID, made.KeyID)
		}
		keys = append(keys, made.Key)
	}
	return keys, nil
}

const (
	pemPKIX        = "PUBLIC KEY"
	pemPKCS1Public = "RSA PUBLIC KEY"
)

// decodePublic drops the decoders' errors, which describe the bytes.
func decodePublic(block *pem.Block) (crypto.PublicKey, error) {
	var key crypto.PublicKey
	var err error
	switch block.Type {
	case pemPKIX:
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case pemPKCS1Public:
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	case pemPKCS8, pemPKCS1:
		private, err := decodeKey(block)
		if err != nil {
			return nil, err
		}
		key = private.Public()
	default:
		return nil, errors.New("neither a public key, a private key nor a certificate; an encrypted key must be decrypted first")
	}
	if err != nil {
		return nil, errors.New("does not decode")
	}
	return rsaPublic(key)
}

package mint

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	discoveryPath = "/.well-known/openid-configuration" // OpenID Connect Discovery 1.0, section 4
	keySetPath    = "/openid/v1/jwks"                   // as Kubernetes has it
	maxKeys       = 100                                 // Entra reads no further
)

// discovery is the smallest document that Entra accepts. In particular it has
// no authorization_endpoint, which Entra would refuse if empty.
type discovery struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// Documents returns the two JSON documents that let anyone verify assertions of
// issuer: the discovery document, which belongs at issuer (less one trailing
// slash) followed by /.well-known/openid-configuration, and the key set, which
// belongs at jwks_uri: likewise followed by /openid/v1/jwks.
//
// The issuer is as [LocalConfig] describes it. The keys are 1 to 100 distinct
// RSA public keys of 2,048 to 4,096 bits, written in the order given with use
// "sig". (A SPIFFE bundle says "jwt-svid" instead, and is another document.)
func Documents(issuer string, keys ...crypto.PublicKey) (discovery, keySet []byte, err error) {
	discovery, err = discoveryDocument(issuer)
	if err != nil {
		return nil, nil, fmt.Errorf("mint: discovery document: %w", err)
	}
	keySet, err = keySetDocument(keys)
	if err != nil {
		return nil, nil, fmt.Errorf("mint: key set: %w", err)
	}
	return discovery, keySet, nil
}

func discoveryDocument(issuer string) ([]byte, error) {
	if _, err := issuerURL(issuer); err != nil {
		return nil, err
	}
	return encode(discovery{
		Issuer:        issuer,
		JWKSURI:       strings.TrimSuffix(issuer, "/") + keySetPath,
		ResponseTypes: []string{"id_token"},
		SubjectTypes:  []string{"public"},
		Algorithms:    []string{string(jose.RS256)},
	})
}

func keySetDocument(keys []crypto.PublicKey) ([]byte, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%d keys; want 1 to %d", len(keys), maxKeys)
	}
	var set jose.JSONWebKeySet
	seen := make(map[string]bool, len(keys))
	for i, pub := range keys {
		jwk, err := publicJWK(pub)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if seen[jwk.KeyID] {
			return nil, fmt.Errorf("key %d: kid %s is there already", i, jwk.KeyID)
		}
		seen[jwk.KeyID] = true
		set.Keys = append(set.Keys, jwk)
	}
	return encode(set)
}

func publicJWK(pub crypto.PublicKey) (jose.JSONWebKey, error) {
	key, err := rsaPublic(pub)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	kid, err := KeyID(key)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	return jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: string(jose.RS256), Use: "sig"}, nil
}

// encode leaves '&', '<' and '>' as they are: a URL should read as it is compared.
func encode(document any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(document)
	return out.Bytes(), err
}

// issuerURL checks what LocalConfig.Issuer promises. Whatever a server or a
// proxy might rewrite on the way is refused, because Entra compares verbatim.
func issuerURL(issuer string) (*url.URL, error) {
	if err := checkValue(issuer); err != nil {
		return nil, err
	}
	u, err := url.Parse(issuer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL", issuer)
	case !strings.HasPrefix(issuer, "https://"):
		return nil, fmt.Errorf("%q does not begin with https://", issuer)
	case u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%q has no host, or an empty port", issuer)
	case strings.ContainsAny(issuer, "?#@%\\"):
		return nil, fmt.Errorf("%q has a user, a query, a fragment, a percent sign or a backslash", issuer)
	}
	return u, checkSegments(u.Path)
}

// checkSegments refuses the paths that a server would clean or redirect.
func checkSegments(path string) error {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return errors.New("the path has an empty or a dot segment")
		}
	}
	return nil
}

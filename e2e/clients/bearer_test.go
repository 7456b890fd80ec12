//go:build e2e && linux

package clients_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"
)

// resourceServer is what the stand-ins for Azure's services have in common: which
// access tokens they believe. It is written on the standard library alone, so that a
// mistake in what makes the tokens is not repeated here.
type resourceServer struct {
	audiences []string
	tenants   []string
	// keySet gives the published key set of a tenant's issuer.
	keySet func(ctx context.Context, tenant string) ([]byte, error)
}

// bearer is what a believed token says.
type bearer struct {
	Aud, Iss, Tid, AppID, IDTyp string
	Exp, Nbf                    int64
}

// The reasons to refuse a token.
var (
	errNoBearer   = errors.New("there is no bearer token")
	errMalformed  = errors.New("the token is malformed")
	errAlgorithm  = errors.New("the token is not signed by RS256")
	errIssuer     = errors.New("the token is of another issuer")
	errSignature  = errors.New("the signature is not the issuer's")
	errAudience   = errors.New("the token is for another audience")
	errTenant     = errors.New("the token is of another tenant")
	errExpired    = errors.New("the token has expired")
	errNotYet     = errors.New("the token is not valid yet")
	errNoIdentity = errors.New("the token names no app")
)

// admit reads the Authorization header of a request. The algorithm is fixed and the
// issuer is one of a list before a key is looked for.
func (s resourceServer) admit(r *http.Request) (bearer, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(r.Header.Values("Authorization")) != 1 {
		return bearer{}, errNoBearer
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return bearer{}, errMalformed
	}
	var header struct{ Alg, Kid, Typ string }
	var said bearer
	if err := errors.Join(decodePart(parts[0], &header), decodePart(parts[1], &said)); err != nil {
		return bearer{}, fmt.Errorf("%w: %v", errMalformed, err)
	}
	if header.Alg != "RS256" || header.Typ != "JWT" {
		return bearer{}, errAlgorithm
	}
	tenant, known := strings.CutPrefix(said.Iss, "https://sts.windows.net/")
	tenant, whole := strings.CutSuffix(tenant, "/")
	if !known || !whole || !slices.Contains(s.tenants, tenant) {
		return bearer{}, errIssuer
	}
	if err := s.verify(r.Context(), tenant, header.Kid, parts); err != nil {
		return bearer{}, err
	}
	return said, s.judge(said, tenant, time.Now().Unix())
}

// judge looks at what a signed token says.
func (s resourceServer) judge(said bearer, tenant string, now int64) error {
	switch {
	case !slices.Contains(s.audiences, said.Aud):
		return errAudience
	case said.Tid != tenant:
		return errTenant
	case said.Exp <= now:
		return errExpired
	case said.Nbf > now:
		return errNotYet
	case said.AppID == "" || said.IDTyp != "app":
		return errNoIdentity
	}
	return nil
}

// verify checks the signature by the one key of that name which the issuer publishes.
func (s resourceServer) verify(ctx context.Context, tenant, kid string, parts []string) error {
	raw, err := s.keySet(ctx, tenant)
	if err != nil {
		return fmt.Errorf("%w: %v", errSignature, err)
	}
	var set struct {
		Keys []struct{ Kty, Use, Kid, N, E string }
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return fmt.Errorf("%w: %v", errSignature, err)
	}
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return fmt.Errorf("%w: %v", errMalformed, err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	for _, k := range set.Keys {
		n, errN := base64.RawURLEncoding.DecodeString(k.N)
		e, errE := base64.RawURLEncoding.DecodeString(k.E)
		if k.Kid != kid || k.Kty != "RSA" || k.Use != "sig" || errN != nil || errE != nil {
			continue
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
			return errSignature
		}
		return nil
	}
	return fmt.Errorf("%w: it publishes no key %q", errSignature, kid)
}

func decodePart(part string, to any) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to)
}

// publishedKeys asks the emulators for what they publish, at each request anew, since
// a sidecar that is restarted has another. The certificate is not checked: its
// authority is in the memory of that process alone, and there is nobody else in here.
func publishedKeys(sidecars ...*sidecar) func(context.Context, string) ([]byte, error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	return func(ctx context.Context, tenant string) ([]byte, error) {
		for _, s := range sidecars {
			if s.tenant == tenant {
				return get(ctx, client, s.emulator+"/"+tenant+"/discovery/v2.0/keys")
			}
		}
		return nil, fmt.Errorf("no emulator has the tenant %q", tenant)
	}
}

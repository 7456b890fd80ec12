package workloadapi

import (
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"github.com/svidecar/svidecar/mint"
)

// keySet is what verifies JWT-SVIDs, at one moment.
type keySet struct {
	order []*rsa.PublicKey
	byID  map[string]*rsa.PublicKey // by kid
	jwks  []byte                    // as FetchJWTBundles sends it
}

// keys asks for the keys of now, and makes a set of them if they are others than
// before.
func (s *Server) keys() (*keySet, error) {
	public := s.cfg.Keys()
	if held := s.held.Load(); held.is(public) {
		return held, nil
	}
	set, err := newKeySet(s.cfg.Issuer, public)
	if err != nil {
		return nil, fmt.Errorf("workloadapi: the trust domain's keys: %w", err)
	}
	s.held.Store(set)
	return set, nil
}

// is reports whether set, which may be nil, was made of these keys.
func (set *keySet) is(public []crypto.PublicKey) bool {
	return set != nil && slices.EqualFunc(set.order, public, func(a *rsa.PublicKey, b crypto.PublicKey) bool {
		key, ok := b.(*rsa.PublicKey)
		return ok && key != nil && a.Equal(key)
	})
}

// newKeySet takes what the published key document would hold, so that the two
// never differ, and says of each key that JWT-SVIDs are what it is for (SPIFFE
// Trust Domain and Bundle, section 4.2.2).
func newKeySet(issuer string, public []crypto.PublicKey) (*keySet, error) {
	_, document, err := mint.Documents(issuer, public...)
	if err != nil {
		return nil, err
	}
	var published jose.JSONWebKeySet
	if err := json.Unmarshal(document, &published); err != nil {
		return nil, errors.New("internal error: a key document made here does not parse")
	}
	set := &keySet{byID: map[string]*rsa.PublicKey{}}
	for i := range published.Keys {
		jwk := &published.Keys[i]
		jwk.Use = "jwt-svid"
		key := jwk.Key.(*rsa.PublicKey) // Documents takes no others
		set.order, set.byID[jwk.KeyID] = append(set.order, key), key
	}
	set.jwks, err = json.Marshal(published)
	return set, err
}

package workloadapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/mint"
)

// leeway is how far the clocks of an issuer and a verifier may be apart. Such
// clients as go-spiffe allow the same.
const leeway = time.Minute

// refusal says what is wrong with a token, and shows no part of it.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

// verified is a JWT-SVID that has passed verify.
type verified struct {
	id     spiffeid.ID
	kid    string
	claims jwt.Claims
	all    map[string]any
}

// verify holds raw against JWT-SVID, sections 2 to 4, and against what is minted
// here: RS256 alone, a kid of set, no header beside alg, kid and typ, this issuer,
// one of our trust domains. A refusal is of type refusal.
func (s *Server) verify(raw, audience string, set *keySet, now time.Time) (*verified, error) {
	unverified, err := mint.Parse(raw)
	if err != nil {
		return nil, refusal("it is not a compact JWS of at most 16 KiB with well-typed claims")
	}
	if err := checkHeader(raw, unverified); err != nil {
		return nil, err
	}
	key, ok := set.byID[unverified.KeyID]
	if !ok {
		return nil, refusal("the trust domain's bundle has no key of its kid")
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, refusal("it is not signed with RS256")
	}
	v := &verified{kid: unverified.KeyID}
	if err := token.Claims(key, &v.claims, &v.all); err != nil {
		return nil, refusal("the signature does not fit the key of its kid")
	}
	if err := s.checkClaims(v.claims, audience, now); err != nil {
		return nil, err
	}
	v.id, err = spiffeid.FromString(v.claims.Subject)
	if err != nil || !s.domains[v.id.TrustDomain()] {
		return nil, refusal("its sub is not a SPIFFE ID of a trust domain that is served here")
	}
	return v, nil
}

// checkHeader refuses what could point a verifier at another key, or mean what
// this one does not know: jku, jwk, x5c, x5u, crit and all others.
func checkHeader(raw string, c mint.Claims) error {
	encoded, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return refusal("its header is not base64url")
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(text, &header); err != nil {
		return refusal("its header is not a JSON object")
	}
	delete(header, "alg")
	delete(header, "kid")
	delete(header, "typ")
	switch {
	case len(header) != 0:
		return refusal("its header has more than alg, kid and typ")
	case c.Algorithm != string(jose.RS256):
		return refusal("it is not signed with RS256")
	case c.KeyID == "":
		return refusal("its header has no kid")
	case c.Type != "" && c.Type != "JWT" && c.Type != "JOSE":
		return refusal("its typ is neither JWT nor JOSE")
	}
	return nil
}

func (s *Server) checkClaims(c jwt.Claims, audience string, now time.Time) error {
	if c.Expiry == nil {
		return refusal("it has no exp")
	}
	err := c.ValidateWithLeeway(jwt.Expected{Issuer: s.cfg.Issuer, AnyAudience: jwt.Audience{audience}, Time: now}, leeway)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return refusal("it has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return refusal("it is not valid yet: check the clocks")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return refusal("it is for another audience")
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return refusal("another issuer issued it")
	}
	return refusal("its claims are not valid")
}

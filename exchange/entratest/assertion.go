package entratest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

const (
	maxAssertion = 16 << 10 // bytes of the compact form
	maxLifetime  = 25 * time.Hour
)

// compact is a JWS in compact form (RFC 7515 section 3.1), decoded but not
// verified.
type compact struct {
	header    map[string]json.RawMessage
	claims    map[string]json.RawMessage
	signed    string // what the signature covers
	signature []byte
}

// claimSet is what the emulator reads of an assertion.
type claimSet struct {
	issuer, subject, audience string
	issued, notBefore, expiry time.Time // issued and notBefore may be zero
	key                       keyID
}

// keyID names the signing key, by whichever of the three the header has.
type keyID struct{ kid, x5t, x5tS256 string }

func (id keyID) String() string {
	for _, s := range []string{id.kid, id.x5t, id.x5tS256} {
		if s != "" {
			return s
		}
	}
	return ""
}

func parseCompact(token string) (*compact, *refusal) {
	if len(token) > maxAssertion {
		return nil, malformed("It is longer than %d bytes.", maxAssertion)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, malformed("It has %d parts, not the 3 of a compact JWS.", len(parts))
	}
	c := &compact{signed: parts[0] + "." + parts[1]}
	var r *refusal
	if c.header, r = decodePart("header", parts[0]); r != nil {
		return nil, r
	}
	if c.claims, r = decodePart("claims", parts[1]); r != nil {
		return nil, r
	}
	sig, err := unbase64(parts[2])
	if err != nil || len(sig) == 0 {
		return nil, malformed("The signature is empty or not canonical base64url.")
	}
	c.signature = sig
	return c, nil
}

func decodePart(name, part string) (map[string]json.RawMessage, *refusal) {
	raw, err := unbase64(part)
	if err != nil {
		return nil, malformed("The %s: %v.", name, err)
	}
	members, err := object(raw)
	if err != nil {
		return nil, malformed("The %s: %v.", name, err)
	}
	return members, nil
}

// verifies reports whether key made the RS256 signature (RFC 7518 section 3.3).
func (c *compact) verifies(key *rsa.PublicKey) bool {
	sum := sha256.Sum256([]byte(c.signed))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], c.signature) == nil
}

// checkHeader checks the header's members in Entra's order.
func (c *compact) checkHeader() (keyID, *refusal) {
	alg, _, err := stringMember(c.header, "alg")
	if err != nil {
		return keyID{}, malformed("The header: %v.", err)
	}
	if alg != "RS256" {
		return keyID{}, refuse(5002738, "{alg}", alg)
	}
	typ, present, err := stringMember(c.header, "typ")
	if err != nil {
		return keyID{}, malformed("The header: %v.", err)
	}
	if present && typ != "JWT" {
		return keyID{}, refuse(5002727)
	}
	for name := range c.header {
		switch name {
		case "alg", "typ", "kid", "x5t", "x5t#S256":
		default:
			return keyID{}, malformed("The header has the member %q; a JWT-SVID has alg, kid and typ only.", name)
		}
	}
	return c.keyID()
}

func (c *compact) keyID() (id keyID, r *refusal) {
	for name, to := range map[string]*string{"kid": &id.kid, "x5t": &id.x5t, "x5t#S256": &id.x5tS256} {
		value, present, err := stringMember(c.header, name)
		if err != nil || present && value == "" {
			return keyID{}, malformed("The header's %s is not a string or empty.", name)
		}
		*to = value
	}
	if id == (keyID{}) {
		return keyID{}, refuse(5002723)
	}
	return id, nil
}

// readClaims reads the claims that Entra uses. The header is already checked.
func (c *compact) readClaims() (set claimSet, r *refusal) {
	for _, f := range []struct {
		name string
		to   *string
	}{{"iss", &set.issuer}, {"sub", &set.subject}} {
		value, _, err := stringMember(c.claims, f.name)
		if err != nil {
			return set, malformed("The claims: %v.", err)
		}
		if value == "" {
			return set, refuse(90014, "{name}", f.name)
		}
		*f.to = value
	}
	if set.audience, r = audience(c.claims["aud"]); r != nil {
		return set, r
	}
	r = c.readTimes(&set)
	return set, r
}

// audience reads aud, a string or an array of exactly one (RFC 7519 section
// 4.1.3 allows more, Entra matches one).
func audience(raw json.RawMessage) (string, *refusal) {
	if raw == nil {
		return "", refuse(90014, "{name}", "aud")
	}
	var one *string
	if json.Unmarshal(raw, &one) == nil && one != nil && *one != "" {
		return *one, nil
	}
	var many []*string
	if json.Unmarshal(raw, &many) != nil || raw[0] != '[' {
		return "", refuse(90014, "{name}", "aud")
	}
	if len(many) == 0 || many[0] == nil || *many[0] == "" {
		return "", refuse(90014, "{name}", "aud")
	}
	if len(many) > 1 {
		return "", malformed("It has %d audiences, not 1.", len(many))
	}
	return *many[0], nil
}

func (c *compact) readTimes(set *claimSet) *refusal {
	if _, ok := c.claims["exp"]; !ok {
		return refuse(90014, "{name}", "exp")
	}
	for name, to := range map[string]*time.Time{"exp": &set.expiry, "nbf": &set.notBefore, "iat": &set.issued} {
		raw, ok := c.claims[name]
		if !ok {
			continue
		}
		seconds, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || seconds < 0 || seconds > 1<<40 {
			return malformed("The claim %q is not a whole number of seconds.", name)
		}
		*to = time.Unix(seconds, 0)
	}
	return nil
}

// checkTimes checks the lifetime and then the validity at now, without leeway.
func (set *claimSet) checkTimes(now time.Time) *refusal {
	issued := max(0, unix(set.issued)) // a missing iat counts as 0
	if set.expiry.Unix()-issued > int64(maxLifetime/time.Second) {
		return refuse(70023, "{reason}", "Token issued at "+strconv.FormatInt(issued, 10)+
			". Token expires on "+strconv.FormatInt(set.expiry.Unix(), 10)+".")
	}
	if now.Before(set.notBefore) || now.Before(set.issued) || !now.Before(set.expiry) {
		const layout = "2006-01-02T15:04:05.0000000Z"
		return refuse(700024, "{reason}", "Current time: "+now.UTC().Format(layout)+
			", assertion valid from "+time.Unix(unix(set.notBefore), 0).UTC().Format(layout)+
			", expiry time of assertion "+set.expiry.UTC().Format(layout)+".")
	}
	return nil
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// checkAssertion verifies a client assertion for app, in Entra's order: form,
// header, claims, federated credential, lifetime, issuer, key, signature.
func (s *Server) checkAssertion(req *tokenRequest, app *App) (claimSet, *refusal) {
	c, r := parseCompact(req.assertion)
	if r != nil {
		return claimSet{}, r
	}
	key, r := c.checkHeader()
	if r != nil {
		return claimSet{}, r
	}
	set, r := c.readClaims()
	if r != nil {
		return set, r
	}
	set.key = key
	if s.issuedByEntra(set.issuer) {
		return set, refuse(700222)
	}
	if r := app.match(set, s.audience); r != nil {
		return set, r
	}
	if r := set.checkTimes(time.Now()); r != nil {
		return set, r
	}
	keys, r := s.issuers.keys(req.ctx, set.issuer)
	if r != nil {
		return set, r
	}
	pub, r := choose(keys, set.key, set.issuer)
	if r != nil {
		return set, r
	}
	if !c.verifies(pub) {
		return set, refuse(50012)
	}
	return set, nil
}

package mint

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	maxTokenBytes = 16 << 10     // of one compact JWS
	maxDate       = 253402300799 // 9999-12-31T23:59:59Z, the last second RFC 3339 can write
	maxValue      = 600          // characters of iss, sub and aud each that Entra takes, and that a message shows
	maxShownAuds  = 3            // audiences in a message
)

// Claims is what an assertion says of itself. It is parsed, NOT verified: use it
// to explain and to schedule, never to decide whom to trust. A claim that the
// token lacks is the zero value. Times are in UTC, in whole seconds (RFC 7519,
// section 4.1).
type Claims struct {
	Issuer    string
	Subject   string
	Audience  []string
	IssuedAt  time.Time
	NotBefore time.Time
	Expiry    time.Time
	KeyID     string // header kid
	Algorithm string // header alg
	Type      string // header typ
}

// String is one short line for messages. It holds no secret: the signature and
// the encoded text are not among the claims. Values are quoted and bounded.
func (c Claims) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "iss %s, sub %s, aud %s, exp %s", shown(c.Issuer), shown(c.Subject), shownList(c.Audience), shownTime(c.Expiry))
	if c.KeyID != "" {
		fmt.Fprintf(&b, ", kid %s", shown(c.KeyID))
	}
	if c.Algorithm != "" {
		fmt.Fprintf(&b, ", alg %s", c.Algorithm)
	}
	return b.String()
}

// Parse reads the header and the claims of a compact JWS of at most 16 KiB
// (RFC 7515, section 7.1) without verifying it. The algorithm must be an
// asymmetric one of JWT-SVID, section 2.1: RS, ES or PS with 256, 384 or 512.
// Every error matches [ErrMalformed] and holds no part of raw.
func Parse(raw string) (Claims, error) {
	claims, err := parse(raw)
	if err != nil {
		return Claims{}, fmt.Errorf("mint: parse: %w", err)
	}
	return claims, nil
}

// parse is Parse without the prefix. The library's own errors are dropped, since
// those of its decoders quote their input.
func parse(raw string) (Claims, error) {
	if err := checkCompact(raw); err != nil {
		return Claims{}, err
	}
	token, err := jwt.ParseSigned(raw, algorithms())
	if err != nil || len(token.Headers) != 1 {
		return Claims{}, malformed("the header is not that of a JWS signed with RS, ES or PS 256, 384 or 512, or a part is not base64url")
	}
	var std jwt.Claims
	var object map[string]any
	if err := token.UnsafeClaimsWithoutVerification(&object, &std); err != nil || object == nil {
		return Claims{}, malformed("the payload is not a JSON object of well-typed claims")
	}
	return claimsOf(token.Headers[0], std)
}

// algorithms lists what JWT-SVID, section 2.1, allows; no MAC and no "none".
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512,
		jose.ES256, jose.ES384, jose.ES512,
		jose.PS256, jose.PS384, jose.PS512,
	}
}

// checkCompact refuses what the decoder would let pass but another verifier
// would not: line breaks inside, padding, an absent signature.
func checkCompact(raw string) error {
	switch {
	case raw == "":
		return malformed("empty")
	case len(raw) > maxTokenBytes:
		return malformed("longer than 16 KiB")
	case strings.ContainsFunc(raw, notCompact):
		return malformed("has a character that a compact JWS cannot have")
	case strings.Count(raw, ".") != 2 || strings.HasSuffix(raw, "."):
		return malformed("not three parts divided by dots, as a compact JWS has")
	}
	return nil
}

func notCompact(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
		return false
	}
	return true
}

func claimsOf(header jose.Header, std jwt.Claims) (Claims, error) {
	for _, date := range []*jwt.NumericDate{std.IssuedAt, std.NotBefore, std.Expiry} {
		if date != nil && (*date < 0 || *date > maxDate) {
			return Claims{}, malformed("a date is not between the years 1970 and 9999")
		}
	}
	typ, present := header.ExtraHeaders[jose.HeaderType]
	text, ok := typ.(string)
	if present && !ok {
		return Claims{}, malformed("the header's typ is not a string")
	}
	return Claims{
		Issuer:    std.Issuer,
		Subject:   std.Subject,
		Audience:  std.Audience,
		IssuedAt:  utc(std.IssuedAt),
		NotBefore: utc(std.NotBefore),
		Expiry:    utc(std.Expiry),
		KeyID:     header.KeyID,
		Algorithm: header.Algorithm,
		Type:      text,
	}, nil
}

// utc keeps an absent date zero, and a present one free of a local zone.
func utc(date *jwt.NumericDate) time.Time {
	if date == nil {
		return time.Time{}
	}
	return date.Time().UTC()
}

func malformed(why string) error { return fmt.Errorf("%w: %s", ErrMalformed, why) }

func shown(s string) string {
	if len(s) <= maxValue {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes)", s[:maxValue], len(s))
}

func shownList(list []string) string {
	parts := make([]string, 0, maxShownAuds+1)
	for i, s := range list {
		if i == maxShownAuds {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		parts = append(parts, shown(s))
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.Format(time.RFC3339)
}

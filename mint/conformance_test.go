package mint_test

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// conforms holds a token to the letter of the JWT-SVID standard (sections 2 and 3),
// and of what we add to it: RS256, one audience, and the claims that Entra wants. It
// knows no JOSE library and none of our code.
func conforms(raw string, key *rsa.PublicKey) error {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%d parts, want the 3 of JWS compact serialization", len(parts))
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return fmt.Errorf("part %d is not canonical base64url (%v)", i, err)
		}
	}
	if want := fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, keyIDByHand(key)); string(decoded[0]) != want {
		return fmt.Errorf("header %s, want %s", decoded[0], want)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], decoded[2]); err != nil {
		return err
	}
	return conformingClaims(decoded[1])
}

var (
	// spiffeID is SPIFFE-ID sections 2.1 and 2.2, but for dot segments.
	spiffeID = regexp.MustCompile(`^spiffe://[a-z0-9._-]+(/[a-zA-Z0-9._-]+)+$`)
	number   = regexp.MustCompile(`^[1-9][0-9]*$`)
	text     = regexp.MustCompile(`^"[!#-\[\]-~]+"$`)
)

func conformingClaims(payload []byte) error {
	members, err := strictObject(payload)
	if err != nil {
		return err
	}
	if names := slices.Sorted(maps.Keys(members)); !slices.Equal(names, []string{"aud", "exp", "iat", "iss", "jti", "nbf", "sub"}) {
		return fmt.Errorf("the claims are %q", names)
	}
	times := map[string]int{}
	for name, value := range members {
		switch name {
		case "exp", "iat", "nbf":
			seconds, err := strconv.Atoi(value)
			if err != nil || !number.MatchString(value) {
				return fmt.Errorf("%s is %s, not a whole number", name, value)
			}
			times[name] = seconds
		default:
			if !text.MatchString(value) {
				return fmt.Errorf("%s is %s, not one plain string", name, value)
			}
		}
	}
	sub := strings.Trim(members["sub"], `"`)
	if len(sub) > 2048 || !spiffeID.MatchString(sub) || slices.ContainsFunc(strings.Split(sub, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return fmt.Errorf("sub %s is no SPIFFE ID", sub)
	}
	if times["nbf"] > times["iat"] || times["iat"] >= times["exp"] {
		return fmt.Errorf("the times %v are not in order", times)
	}
	return nil
}

// strictObject reads one JSON object without white space, and refuses a member that
// is there twice: RFC 7519 section 4 leaves open which of the two counts.
func strictObject(data []byte) (map[string]string, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil || !bytes.Equal(compact.Bytes(), data) {
		return nil, fmt.Errorf("no compact JSON (%v)", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	members := map[string]string{}
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := members[name.(string)]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		members[name.(string)] = string(value)
	}
	return members, nil
}

// keyIDByHand is the kid of Kubernetes and azwi, base64url(SHA-256(DER
// SubjectPublicKeyInfo)), with the DER built here (RFC 8017 appendix A.1, RFC 5280
// section 4.1): crypto/x509 has no part in it.
func keyIDByHand(key *rsa.PublicKey) string {
	inner, err := asn1.Marshal(struct {
		N *big.Int
		E int
	}{key.N, key.E})
	if err != nil {
		panic(err)
	}
	type algorithm struct {
		ID   asn1.ObjectIdentifier
		Null asn1.RawValue
	}
	der, err := asn1.Marshal(struct {
		Algorithm algorithm
		Key       asn1.BitString
	}{algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue}, asn1.BitString{Bytes: inner, BitLength: 8 * len(inner)}})
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestLocalConforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, subject := range []string{subject, "spiffe://a/b", "spiffe://a.b_c-d.0/X/..x/_", "spiffe://h/" + strings.Repeat("a", 589)} {
			for _, lifetime := range []time.Duration{0, time.Minute, 61 * time.Second, time.Hour} {
				for _, key := range []crypto.Signer{testKey(t), otherKey(t)} {
					cfg := localConfig(t)
					cfg.Signer, cfg.Subject, cfg.Lifetime = key, subject, lifetime
					local := newLocal(t, cfg)
					for range 3 {
						got, err := local.Fresh(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						if err := conforms(got.Value.Reveal(), key.Public().(*rsa.PublicKey)); err != nil {
							t.Errorf("subject %q, lifetime %v: %v", subject, lifetime, err)
						}
						time.Sleep(333 * time.Millisecond) // a fraction of a second
					}
				}
			}
		}
	})
}

// TestConformsRefuses holds what makes TestLocalConforms worth something.
func TestConformsRefuses(t *testing.T) {
	key := testKey(t).Public().(*rsa.PublicKey)
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, keyIDByHand(key))
	claims := fmt.Sprintf(`{"aud":%q,"exp":300,"iat":100,"iss":%q,"jti":"x","nbf":70,"sub":%q}`, audience, issuer, subject)
	if err := conforms(forge(t, header, claims), key); err != nil {
		t.Fatalf("a token by hand: %v", err)
	}
	change := func(old, fresh string) string {
		changed := strings.Replace(header+" "+claims, old, fresh, 1)
		if changed == header+" "+claims {
			t.Fatalf("there is no %s", old)
		}
		h, c, _ := strings.Cut(changed, "} {")
		return forge(t, h+"}", "{"+c)
	}
	good := forge(t, header, claims)
	for name, raw := range map[string]string{
		"another payload":      strings.Replace(good, ".", ".e30", 1),
		"two parts":            good[:strings.LastIndex(good, ".")],
		"padding":              good + "=",
		"a line break":         good + "\n",
		"not canonical":        good[:len(good)-1] + string(good[len(good)-1]+1),
		"alg":                  change("RS256", "RS384"),
		"kid":                  change(`"kid":"`, `"kid":"x`),
		"no kid":               change(`"kid"`, `"k"`),
		"typ":                  change(`"JWT"`, `"JOSE"`),
		"another member":       change(`"typ"`, `"cty":"x","typ"`),
		"a JWK in the header":  change(`"typ"`, `"jwk":{},"typ"`),
		"another claim":        change(`"exp"`, `"azp":"x","exp"`),
		"no jti":               change(`"jti":"x",`, ""),
		"no aud":               change(`"aud":"`+audience+`",`, ""),
		"aud twice":            change(`"exp"`, `"aud":"other","exp"`),
		"aud a list":           change(`"aud":"`+audience+`"`, `"aud":["`+audience+`"]`),
		"exp a string":         change("300", `"300"`),
		"exp with a fraction":  change("300", "300.5"),
		"exp with an exponent": change("300", "3e2"),
		"exp before iat":       change("300", "99"),
		"nbf after iat":        change(`"nbf":70`, `"nbf":101`),
		"sub without path":     change(subject, "spiffe://example.org"),
		"sub with a slash":     change(subject, subject+"/"),
		"sub with dots":        change(subject, "spiffe://example.org/a/../b"),
		"sub in capitals":      change(subject, "spiffe://Example.org/a"),
		"white space":          change(`"exp"`, ` "exp"`),
		"empty jti":            change(`"jti":"x"`, `"jti":""`),
	} {
		if err := conforms(raw, key); err == nil {
			t.Errorf("%s: conforms", name)
		}
	}
}

func TestKeyIDByHand(t *testing.T) {
	for _, key := range []crypto.Signer{testKey(t), otherKey(t)} {
		public := key.Public().(*rsa.PublicKey)
		if got, err := mint.KeyID(public); err != nil || got != keyIDByHand(public) {
			t.Errorf("KeyID = %q, %v; by hand %q", got, err, keyIDByHand(public))
		}
	}
}

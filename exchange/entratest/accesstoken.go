package entratest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// claimsBytes is the least size of an access token's claims before encoding;
// it makes a token of about 1.5 KB, as Entra's are.
const claimsBytes = 780

// signer is the emulator's own signing key.
type signer struct {
	key *rsa.PrivateKey
	kid string
}

func newSigner(key *rsa.PrivateKey) (*signer, error) {
	if key == nil {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, fmt.Errorf("entratest: making the token signing key: %w", err)
		}
	}
	if key.N.BitLen() != 2048 {
		return nil, fmt.Errorf("entratest: Config.Key has %d bits, want 2048", key.N.BitLen())
	}
	sum := sha256.Sum256(key.N.Bytes())
	return &signer{key: key, kid: base64.RawURLEncoding.EncodeToString(sum[:20])}, nil
}

// jwks is the emulator's own key set document.
func (s *signer) jwks(issuer string) any {
	return map[string]any{"keys": []map[string]any{{
		"kty": "RSA", "use": "sig", "kid": s.kid, "x5t": s.kid, "issuer": issuer,
		"n": base64.RawURLEncoding.EncodeToString(s.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(s.key.E)).Bytes()),
	}}}
}

// issue makes an access token for app and resource that lives from now.
func (s *signer) issue(app *App, resource string, life time.Duration) (string, error) {
	now := time.Now()
	claims := map[string]any{
		"aud":              resource,
		"iss":              "https://sts.windows.net/" + app.TenantID + "/",
		"iat":              now.Add(-5 * time.Minute).Unix(), // Entra backdates iat with nbf
		"nbf":              now.Add(-5 * time.Minute).Unix(),
		"exp":              now.Add(life).Unix(),
		"aio":              randomText(58) + "==",
		"appid":            app.ClientID,
		"appidacr":         "2", // authenticated by assertion
		"idp":              "https://sts.windows.net/" + app.TenantID + "/",
		"idtyp":            "app",
		"oid":              app.ObjectID,
		"rh":               "1." + randomText(54) + ".",
		"sub":              app.ObjectID,
		"tid":              app.TenantID,
		"uti":              randomText(22),
		"ver":              "1.0",
		"xms_az_nwperimid": []string{},
		"xms_idrel":        "7 2",
		"xms_ftd":          randomText(64),
	}
	return s.sign(pad(claims))
}

// pad brings the claims up to claimsBytes with an opaque one.
func pad(claims map[string]any) map[string]any {
	raw, err := json.Marshal(claims)
	if err != nil {
		panic("entratest: internal error: " + err.Error())
	}
	if short := claimsBytes - len(raw) - len(`,"xms_rd":""`); short > 0 {
		claims["xms_rd"] = randomText(short)
	}
	return claims
}

func (s *signer) sign(claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "RS256", "x5t": s.kid, "kid": s.kid})
	if err != nil {
		return "", fmt.Errorf("entratest: encoding a token header: %w", err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("entratest: encoding token claims: %w", err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(header) + "." + enc.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("entratest: signing a token: %w", err)
	}
	return signed + "." + enc.EncodeToString(sig), nil
}

// VerifyAccessToken checks that the emulator issued the token (RS256) and that
// it has not expired, and returns its claims; numbers are float64.
func (s *Server) VerifyAccessToken(token string) (map[string]any, error) {
	c, r := parseCompact(token)
	if r != nil {
		return nil, fmt.Errorf("entratest: reading an access token: %s", r.text())
	}
	id, r := c.checkHeader()
	if r != nil {
		return nil, fmt.Errorf("entratest: reading an access token's header: %s", r.text())
	}
	if id.kid != s.signer.kid || !c.verifies(&s.signer.key.PublicKey) {
		return nil, errors.New("entratest: the access token is not signed by this emulator")
	}
	claims := make(map[string]any, len(c.claims))
	for name, raw := range c.claims {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("entratest: reading an access token's claims: %w", err)
		}
		claims[name] = v
	}
	exp, _ := claims["exp"].(float64)
	if expiry := time.Unix(int64(exp), 0); !time.Now().Before(expiry) {
		return nil, fmt.Errorf("entratest: the access token expired at %s", expiry.UTC().Format(time.RFC3339))
	}
	return claims, nil
}

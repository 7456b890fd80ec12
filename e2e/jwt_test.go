package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// decodeClaims reads the claims of a token, as a resource server's log would.
func decodeClaims(token string, to any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errNotJWT
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return errNotJWT
	}
	return json.Unmarshal(payload, to)
}

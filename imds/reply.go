package imds

import (
	"net/http"
	"strconv"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// Token is an access token ready to be written.
type Token struct {
	Value     secret.Value
	ClientID  string    // of the identity that the token is for
	NotBefore time.Time // from when it is known to be valid
	ExpiresOn time.Time // from when it is not
}

// WriteToken sends the one 200 reply that every client accepts (docs/protocol.md,
// "The reply"): all values are strings, none is empty, and the life that is left
// is counted from now. An error means that the client is gone.
func WriteToken(w http.ResponseWriter, req Request, tok Token, now time.Time) error {
	return send(w, http.StatusOK, appendToken(make([]byte, 0, 4<<10), req, tok, now))
}

func appendToken(b []byte, req Request, tok Token, now time.Time) []byte {
	// Whole seconds, rounded down: a client must never believe in a second
	// that the token does not have.
	left := strconv.FormatInt(max(int64(tok.ExpiresOn.Sub(now)/time.Second), 0), 10)
	clientID := tok.ClientID
	if req.Selector.Kind == ByClientID {
		clientID = req.Selector.Value // echoed as asked; some clients compare
	}
	b = append(b, '{')
	b = appendField(b, "access_token", tok.Value.Reveal())
	b = appendField(b, "client_id", clientID)
	b = appendField(b, "expires_in", left)
	b = appendField(b, "expires_on", strconv.FormatInt(tok.ExpiresOn.Unix(), 10))
	b = appendField(b, "ext_expires_in", left)
	b = appendField(b, "not_before", strconv.FormatInt(tok.NotBefore.Unix(), 10))
	if kind := req.Selector.Kind; kind == ByObjectID || kind == ByResourceID {
		b = appendField(b, req.Selector.Name, req.Selector.Value)
	}
	b = appendField(b, "resource", req.Resource)
	b = appendField(b, "token_type", "Bearer")
	b[len(b)-1] = '}' // in place of the last comma
	return b
}

// appendField writes "name":"value", — the values need no escaping: tokens are
// base64url and dots, and the rest was parsed as URI text.
func appendField(b []byte, name, value string) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	b = append(b, value...)
	return append(b, '"', ',')
}

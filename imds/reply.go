package imds

import (
	"net/http"
	"strconv"
	"sync"
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

// buffers hold replies while they are written. A token that was in one stays in
// memory no longer than the cache's own copy of it may.
var buffers = sync.Pool{New: func() any { return new([4 << 10]byte) }}

// WriteToken sends the one 200 reply that every client accepts (docs/protocol.md,
// "The reply"): all values are strings, none is empty, and the life that is left
// is counted from now. An error means that the client is gone.
func WriteToken(w http.ResponseWriter, req Request, tok Token, now time.Time) error {
	buffer := buffers.Get().(*[4 << 10]byte)
	defer buffers.Put(buffer)
	return send(w, http.StatusOK, appendToken(buffer[:0], req, tok, now))
}

func appendToken(b []byte, req Request, tok Token, now time.Time) []byte {
	// Whole seconds, rounded down: a client must never believe in a second
	// that the token does not have.
	left := max(int64(tok.ExpiresOn.Sub(now)/time.Second), 0)
	clientID := tok.ClientID
	if req.Selector.Kind == ByClientID {
		clientID = req.Selector.Value // echoed as asked; some clients compare
	}
	b = appendText(append(b, `{"access_token":"`...), tok.Value.Reveal())
	b = appendText(append(b, `"client_id":"`...), clientID)
	b = appendNumber(append(b, `"expires_in":"`...), left)
	b = appendNumber(append(b, `"expires_on":"`...), tok.ExpiresOn.Unix())
	b = appendNumber(append(b, `"ext_expires_in":"`...), left)
	b = appendNumber(append(b, `"not_before":"`...), tok.NotBefore.Unix())
	if kind := req.Selector.Kind; kind == ByObjectID || kind == ByResourceID {
		b = append(append(append(b, '"'), req.Selector.Name...), `":"`...)
		b = appendText(b, req.Selector.Value)
	}
	b = appendText(append(b, `"resource":"`...), req.Resource)
	return append(b, `"token_type":"Bearer"}`...)
}

// appendText ends a value that needs no escaping: tokens have the characters of
// RFC 6750, and all else was parsed as URI text.
func appendText(b []byte, value string) []byte { return append(append(b, value...), `",`...) }

func appendNumber(b []byte, value int64) []byte {
	return append(strconv.AppendInt(b, value, 10), `",`...)
}

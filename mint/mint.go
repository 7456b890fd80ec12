// Package mint owns assertions, the JWTs that Microsoft Entra redeems for access
// tokens: it reads them from a file, fetches them from the SPIFFE Workload API or
// from another issuer, or signs them, and it owns the signing keys and the
// discovery and key documents that let others verify them. It never talks to
// Entra, never verifies an assertion it has not signed (unless
// [WorkloadConfig.VerifyBundle] asks for it), and logs nothing.
//
// A signing key is a [crypto.Signer] everywhere, so that it may live in a file,
// a TPM or a key service.
package mint

import (
	"errors"
	"fmt"
	"strings"

	"github.com/svidecar/svidecar/internal/secret"
)

// Causes that a caller may branch on with [errors.Is]. A file that is missing,
// already there, or that may not be read matches [io/fs.ErrNotExist],
// [io/fs.ErrExist] or [io/fs.ErrPermission] instead.
var (
	// ErrMalformed means that the bytes are not an assertion: no compact JWS,
	// too long, empty, or without an exp claim.
	ErrMalformed = errors.New("malformed assertion")
	// ErrExpired means that the time in exp has come.
	ErrExpired = errors.New("expired assertion")
	// ErrNotYetValid means that the time in nbf has not come yet.
	ErrNotYetValid = errors.New("assertion not yet valid")
)

// Assertion is a bearer credential with what its own text says of it.
type Assertion struct {
	Value  secret.Value // the compact JWS
	Claims Claims       // parsed from Value, not verified
}

// Error says why there is no assertion. Its text is one line, names what to do
// next, and never holds any part of a token, so that it may be logged and shown
// to an application.
type Error struct {
	Path   string // the assertion file; empty for one fetched or signed here
	Claims Claims // what was parsed before the refusal, not verified; else zero

	text      string
	temporary bool
	cause     error
}

// Error implements error.
func (e *Error) Error() string { return e.text }

// Unwrap returns the cause, if there is one beyond the text: one of this
// package's Err values, an error of the file system, a gRPC status, or whatever a
// remote signer answered.
func (e *Error) Unwrap() error { return e.cause }

// Temporary reports whether the same call may succeed later although nobody
// changes the configuration: the file may still appear, or be renewed, the
// agent come back.
func (e *Error) Temporary() bool { return e.temporary }

// foreignTextMax bounds, in bytes, the text of an error that is not ours.
const foreignTextMax = 300

// foreignText makes one bounded line of the text of another library's error.
func foreignText(err error) string {
	line := strings.Join(strings.Fields(fmt.Sprintf("%.*s", foreignTextMax, err.Error())), " ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, line)
}

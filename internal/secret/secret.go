// Package secret owns bearer values (access tokens, client assertions, shared
// headers) in a form that cannot be printed, logged, marshalled or compared by
// accident. It never stores, sends or parses them.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what a [Value] shows wherever something tries to print it.
const Redacted = "[redacted]"

// Value is a bearer credential. The bytes sit behind a func, so neither fmt nor
// reflection reaches them, even through an unexported field, and == does not
// compile. The zero Value is empty. A Value is immutable and safe for
// concurrent use.
type Value struct{ reveal func() string }

// New wraps s. An empty s gives the zero Value.
func New(s string) Value {
	if s == "" {
		return Value{}
	}
	return Value{reveal: func() string { return s }}
}

// Reveal returns the bytes. Call it only on the line that sends them out.
func (v Value) Reveal() string {
	if v.reveal == nil {
		return ""
	}
	return v.reveal()
}

// IsZero reports whether v is empty.
func (v Value) IsZero() bool { return v.reveal == nil }

// Equal reports whether v holds s, in time that depends on neither content nor
// on where they differ. An empty Value equals nothing, not even "", so that an
// unset secret can never be matched.
func (v Value) Equal(s string) bool {
	want, got := sha256.Sum256([]byte(v.Reveal())), sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && !v.IsZero()
}

// String implements [fmt.Stringer] with a fixed text.
func (Value) String() string { return Redacted }

// Format implements [fmt.Formatter], so that every verb, %#v and %p included,
// prints the fixed text.
func (Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements [slog.LogValuer].
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText implements [encoding.TextMarshaler], which JSON and YAML use.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

package exchange

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind is the closed set of ways in which an exchange fails.
type Kind uint8

const (
	Unavailable Kind = iota + 1 // Entra, the network or the source fails for now
	Throttled                   // Entra, or a bound of this program, asks to slow down
	Refused                     // Entra refuses the identity or its assertion, for good
	BadResource                 // Entra does not know, or does not grant, the resource
	BadRequest                  // Entra calls the request malformed
	NoAssertion                 // the source has no assertion, for good
)

// String is the constant name used in logs and metric labels.
func (k Kind) String() string {
	switch k {
	case Unavailable:
		return "unavailable"
	case Throttled:
		return "throttled"
	case Refused:
		return "refused"
	case BadResource:
		return "bad_resource"
	case BadRequest:
		return "bad_request"
	case NoAssertion:
		return "no_assertion"
	default:
		return "unknown"
	}
}

// Temporary reports whether the same request may succeed later by itself.
func (k Kind) Temporary() bool { return k == Unavailable || k == Throttled }

// Error is a failed exchange, in words. It is built from constants and from
// text of Entra's that was cleaned, so every field may be logged and shown.
type Error struct {
	Kind Kind
	// Code is Entra's, such as "AADSTS700213"; empty if Entra gave none.
	Code string
	// Cause says what is wrong; Fix says what to do next.
	Cause, Fix string
	// Detail is Entra's own sentence, cleaned and bounded; may be empty.
	Detail string
	// TraceID is what Microsoft's support asks for; may be empty.
	TraceID string
	// RetryAfter is what Entra asked for, or what is left of the time for
	// which the failure is remembered; zero if neither is known.
	RetryAfter time.Duration

	origin origin
}

// origin is where an exchange failed. Only Entra's failures say something of
// Entra.
type origin uint8

const (
	atEntra  origin = iota
	atSource        // there was no assertion: Entra was not asked
	atBound         // a bound of this program: nobody was asked
)

// class is that of Code.
func (e *Error) class() class {
	number, err := strconv.Atoi(strings.TrimPrefix(e.Code, "AADSTS"))
	if err != nil {
		return lasting
	}
	return codes[number].class
}

// doubtful reports whether the error may pass by itself if the identity is one
// that has worked.
func (e *Error) doubtful() bool { return e.class() == momentary || e.class() == spreading }

// Error implements error: code, cause, fix and Entra's sentence in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Code != "" {
		b.WriteString(e.Code + ": ")
	}
	b.WriteString(e.Cause)
	if e.Fix != "" {
		b.WriteString(". To fix: " + e.Fix)
	}
	if e.Detail != "" {
		fmt.Fprintf(&b, ". Entra said: %q", e.Detail)
	}
	if e.TraceID != "" {
		b.WriteString(". Trace ID: " + e.TraceID)
	}
	return b.String()
}

func unavailable(cause, fix string) *Error {
	return &Error{Kind: Unavailable, Cause: cause, Fix: fix}
}

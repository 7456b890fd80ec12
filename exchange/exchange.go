// Package exchange owns the redemption of assertions for access tokens at
// Microsoft Entra ID, and the one cache that holds these tokens. It never sees
// a workload's HTTP request, never logs, and never hands out an error that
// carries an assertion or a token.
package exchange

import (
	"context"
	"strings"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

// Key names one access token: which identity, in which tenant, for what. Keys
// are made by policy alone. They are comparable, and two different keys never
// share a token.
type Key struct {
	Tenant   string // GUID or verified domain
	ClientID string // GUID
	Scope    string // as Scope makes it
}

// Token is an access token and its life. It is immutable.
type Token struct {
	Value     secret.Value
	NotBefore time.Time // when its exchange began; it was valid by then
	ExpiresOn time.Time // wall time, as Entra counts it
	RefreshOn time.Time // when Entra wants it renewed; zero if Entra did not say

	// start and life bound the token by the monotonic clock too, so that a
	// wall clock that is set back cannot prolong it.
	start time.Time
	life  time.Duration
}

// maxLife is above the longest life that Entra gives (28 h, with continuous
// access evaluation). A reply that claims more is not believed.
const maxLife = 48 * time.Hour

// NewToken returns a token that lives for life from start, a reading of
// time.Now from before the token was asked for. RefreshIn of zero or less means
// that Entra did not say.
func NewToken(value secret.Value, start time.Time, life, refreshIn time.Duration) Token {
	life = min(life, maxLife)
	t := Token{
		Value:     value,
		NotBefore: start.Round(0),
		ExpiresOn: start.Round(0).Add(life),
		start:     start,
		life:      life,
	}
	if refreshIn > 0 {
		t.RefreshOn = start.Round(0).Add(refreshIn)
	}
	return t
}

// Left is the life left at now: the lesser of what the wall clock and the
// monotonic clock say. It is negative once the token has expired.
func (t Token) Left(now time.Time) time.Duration {
	return min(t.ExpiresOn.Sub(now.Round(0)), t.life-now.Sub(t.start))
}

// RedeemFunc exchanges an assertion for an access token. It is called
// concurrently, for one key at most once at a time.
type RedeemFunc func(ctx context.Context, key Key) (Token, error)

// AssertionFunc returns the client assertion of the key's identity. An error
// with a method Temporary() bool that returns true is taken as transient, any
// other as permanent; its text is shown to the client, so it must not contain
// the assertion. Fresh asks for another one than before, if there can be one:
// Entra found the last one outside its validity.
type AssertionFunc func(ctx context.Context, key Key, fresh bool) (secret.Value, error)

// defaultSuffix asks Entra for all that was granted to the identity on the
// resource, which is the only scope a client credential may ask for.
const defaultSuffix = "/.default"

// Scope turns a resource, as a managed-identity client names it, into the scope
// that Entra wants. Nothing is normalised, since Entra compares the resource
// with what the token's audience will be: "https://vault.azure.net/" becomes
// "https://vault.azure.net//.default". A resource that is a scope already is
// kept.
func Scope(resource string) string {
	if strings.HasSuffix(resource, defaultSuffix) {
		return resource
	}
	return resource + defaultSuffix
}

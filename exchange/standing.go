package exchange

import "time"

// identity is a key without its scope: what Entra knows an exchange by.
type identity struct{ tenant, clientID string }

func (k Key) identity() identity { return identity{k.Tenant, k.ClientID} }

// doubt is how long an identity that has worked is given the benefit of it:
// Entra refuses healthy credentials now and then, but not for this long; and
// takes up to half an hour to see a new key.
var doubt = map[class]time.Duration{momentary: 2 * time.Minute, spreading: 30 * time.Minute}

// standing is what is known of an identity. It is guarded by Source.mu.
type standing struct {
	lastSuccess time.Time // zero: never worked
	refused     time.Time // since when it has been refused without a success
	trouble     *failure  // transient failures in a row, of any of its keys
}

// believes reports whether a refusal may pass by itself: its class says so, the
// identity has worked, and has not been refused for too long.
func (s *standing) believes(err *Error, now time.Time) bool {
	return !s.lastSuccess.IsZero() && (s.refused.IsZero() && err.doubtful() || now.Sub(s.refused) < doubt[err.class()])
}

// note takes in how an exchange of the identity ended. Once there is trouble only
// probes move its pace: a resource that fails for ever, on demand, says nothing of
// the others.
func (s *standing) note(err *Error, now time.Time, probe bool) {
	switch {
	case err == nil:
		s.lastSuccess, s.refused, s.trouble = now, time.Time{}, nil
	case err.Kind.Temporary() && err.origin == atEntra && (s.trouble == nil || probe):
		s.trouble = s.trouble.after(err, "", now)
	}
	if err != nil && err.doubtful() && s.refused.IsZero() {
		s.refused = now
	}
}

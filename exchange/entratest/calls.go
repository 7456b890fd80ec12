package entratest

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// maxNames bounds the counters whose names come from clients.
const maxNames = 1000

// Calls is a snapshot of what the emulator was asked.
type Calls struct {
	Requests  int `json:"requests"`  // all HTTP requests, unknown paths included
	Instance  int `json:"instance"`  // instance discovery
	Discovery int `json:"discovery"` // OpenID configuration
	Keys      int `json:"keys"`      // the emulator's own key set
	Token     int `json:"token"`     // the token endpoint
	Successes int `json:"successes"` // tokens granted

	Scopes   map[string]int `json:"scopes"`   // token requests by scope; past 1,000 scopes, under "other"
	Refusals map[int]int    `json:"refusals"` // refusals by AADSTS code, faults included

	InFlight          int            `json:"in_flight"`            // at the token endpoint now
	MaxInFlight       int            `json:"max_in_flight"`        // the most at once
	ScopesInFlight    map[string]int `json:"scopes_in_flight"`     // now, by scope
	ScopesMaxInFlight map[string]int `json:"scopes_max_in_flight"` // the most at once, by scope
}

// Assertion is what was in a verified client assertion. The assertion itself
// is not kept.
type Assertion struct {
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Audience string    `json:"audience"`
	KeyID    string    `json:"key_id"`
	Issued   time.Time `json:"issued"` // zero if there was no iat
	Expires  time.Time `json:"expires"`
}

// tally counts under a lock. The zero value is ready.
type tally struct {
	mu         sync.Mutex
	c          Calls
	assertions map[string]Assertion
}

// Calls returns a copy of the counts since New or ResetCalls.
func (s *Server) Calls() Calls {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.ready()
	c := s.calls.c
	c.Scopes = maps.Clone(c.Scopes)
	c.Refusals = maps.Clone(c.Refusals)
	c.ScopesInFlight = maps.Clone(c.ScopesInFlight)
	c.ScopesMaxInFlight = maps.Clone(c.ScopesMaxInFlight)
	return c
}

// ResetCalls sets all counts to zero and forgets the assertions. Requests in
// flight stay counted as such.
func (s *Server) ResetCalls() {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.ready()
	old := s.calls.c
	s.calls.c = Calls{
		InFlight: old.InFlight, MaxInFlight: old.InFlight,
		ScopesInFlight: old.ScopesInFlight, ScopesMaxInFlight: maps.Clone(old.ScopesInFlight),
	}
	s.calls.assertions = nil
}

// Assertions returns, by client id in lower case, the last assertion that was
// verified and redeemed.
func (s *Server) Assertions() map[string]Assertion {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.ready()
	return maps.Clone(s.calls.assertions)
}

func (t *tally) ready() {
	for _, m := range []*map[string]int{&t.c.Scopes, &t.c.ScopesInFlight, &t.c.ScopesMaxInFlight} {
		if *m == nil {
			*m = map[string]int{}
		}
	}
	if t.c.Refusals == nil {
		t.c.Refusals = map[int]int{}
	}
	if t.assertions == nil {
		t.assertions = map[string]Assertion{}
	}
}

func (t *tally) add(change func(*Calls)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready()
	change(&t.c)
}

// begin counts a token request and returns what ends it.
func (t *tally) begin(scope string) (end func()) {
	t.add(func(c *Calls) {
		if _, known := c.Scopes[scope]; !known && len(c.Scopes) >= maxNames {
			scope = "other"
		}
		c.Token++
		c.Scopes[scope]++
		c.InFlight++
		c.ScopesInFlight[scope]++
		c.MaxInFlight = max(c.MaxInFlight, c.InFlight)
		c.ScopesMaxInFlight[scope] = max(c.ScopesMaxInFlight[scope], c.ScopesInFlight[scope])
	})
	return func() {
		t.add(func(c *Calls) {
			c.InFlight--
			if c.ScopesInFlight[scope]--; c.ScopesInFlight[scope] == 0 {
				delete(c.ScopesInFlight, scope)
			}
		})
	}
}

func (t *tally) verified(clientID string, set claimSet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready()
	t.assertions[strings.ToLower(clientID)] = Assertion{
		Issuer: set.issuer, Subject: set.subject, Audience: set.audience, KeyID: set.key.String(),
		Issued: set.issued, Expires: set.expiry,
	}
}

package mint

import (
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const maxEntraLife = 25 * time.Hour // exp minus iat

// rule is one that Entra holds every assertion to and that can be checked before
// Entra is asked. What mends a breach of it depends on who makes the assertion.
type rule int

const (
	ruleAlgorithm rule = iota
	ruleKeyID
	ruleType
	ruleIssuer
	ruleIssuedAt
	ruleExpiry // there is none
	ruleUnexpired
	ruleBegun
	ruleLife
	ruleSubject  // for sources that do not choose the subject themselves
	ruleAudience // the same
)

// breach is a rule that an assertion breaks.
type breach struct {
	rule      rule
	problem   string // with what the assertion says of itself
	cause     error
	temporary bool
}

// breachOf gives the first rule that an assertion with the claims c breaks at
// the time now, or nil.
func breachOf(c Claims, now time.Time) *breach {
	for _, b := range []*breach{headerBreach(c), claimsBreach(c), timesBreach(c, now)} {
		if b != nil {
			b.problem = fmt.Sprintf("%s (%v)", b.problem, c)
			return b
		}
	}
	return nil
}

func headerBreach(c Claims) *breach {
	switch {
	case c.Algorithm != string(jose.RS256):
		return &breach{rule: ruleAlgorithm, problem: fmt.Sprintf("signed with %s; Entra takes RS256 only", c.Algorithm)}
	case c.KeyID == "":
		return &breach{rule: ruleKeyID, problem: "the header has no kid, by which Entra finds the key"}
	case c.Type != "" && c.Type != "JWT":
		return &breach{rule: ruleType, problem: fmt.Sprintf("the header's typ is %s; Entra takes JWT only", shown(c.Type))}
	}
	return nil
}

func claimsBreach(c Claims) *breach {
	switch {
	case c.Issuer == "":
		return &breach{rule: ruleIssuer, problem: "no iss claim, which Entra requires"}
	case c.IssuedAt.IsZero():
		return &breach{rule: ruleIssuedAt, problem: "no iat claim, without which Entra takes the life for too long"}
	case c.Expiry.IsZero():
		return &breach{rule: ruleExpiry, problem: "no exp claim", cause: malformed("no exp claim")}
	}
	return nil
}

func timesBreach(c Claims, now time.Time) *breach {
	begin := c.NotBefore
	if begin.Before(c.IssuedAt) {
		begin = c.IssuedAt
	}
	switch life := c.Expiry.Sub(c.IssuedAt); {
	case !now.Add(lastUse).Before(c.Expiry):
		return &breach{rule: ruleUnexpired, problem: expired(now.Sub(c.Expiry)), cause: ErrExpired, temporary: true}
	case now.Add(notBeforeLeeway).Before(begin):
		return &breach{rule: ruleBegun, cause: ErrNotYetValid, temporary: true,
			problem: fmt.Sprintf("not valid before %s, in %v", shownTime(begin), begin.Sub(now).Round(time.Second))}
	case life > maxEntraLife:
		return &breach{rule: ruleLife, problem: fmt.Sprintf("it lives %v; Entra takes at most %v", life, maxEntraLife)}
	}
	return nil
}

package exchange

import (
	"math/rand/v2"
	"time"
)

// How long a failed exchange is remembered: each further one in a row twice as
// long as the one before. A permanent one may be under repair; a transient one
// is remembered no longer than clients are told to wait, and at first so briefly
// that clients which retry after a second whatever they are told get through.
const (
	firstPermanent, maxPermanent = 5 * time.Second, time.Minute
	firstTransient, maxTransient = 500 * time.Millisecond, 20 * time.Second
)

// sourceWait is how long it is remembered that there was no assertion.
const sourceWait = time.Second

// failure is the memory of a key's, or an identity's, failed exchanges.
type failure struct {
	err        *Error
	count      int       // in a row
	until      time.Time // when the next one may begin
	credential string    // what was sent; another one voids the memory
	checked    time.Time // when credential was last compared
}

// after returns the memory of one more failure. A renewed failure waits twice as
// long, with jitter, so that those who failed together do not return together;
// and never less than Entra asked for.
func (f *failure) after(err *Error, credential string, now time.Time) *failure {
	if err.origin == atSource {
		// To look again costs little, and Entra nothing; and what is missing
		// may be there at once: the first call compares.
		return &failure{err: err, until: now.Add(sourceWait), credential: credential}
	}
	count := 1
	if f != nil {
		count = f.count + 1
	}
	first, most := firstPermanent, maxPermanent
	if err.Kind.Temporary() {
		first, most = firstTransient, maxTransient
	}
	wait := min(first<<min(count-1, 10), most)
	wait -= jitter(wait / 4)
	return &failure{err: err, count: count, until: now.Add(max(wait, err.RetryAfter)), credential: credential, checked: now}
}

// recall is the remembered error as of now: with the wait that is left.
func (f *failure) recall(now time.Time) *Error {
	err := *f.err
	if err.Kind.Temporary() {
		err.RetryAfter = f.until.Sub(now)
	}
	return &err
}

// jitter is a random duration in [0, most).
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

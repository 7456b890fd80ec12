package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/exchange"
)

func failOf(kind exchange.Kind, after time.Duration) *exchange.Error {
	return &exchange.Error{Kind: kind, Cause: "no", RetryAfter: after}
}

// TestFailuresAreRemembered: callers in the meantime get the same answer without
// an exchange; the wait grows, and is what they are told.
func TestFailuresAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		name     string
		err      *exchange.Error
		least    []time.Duration // of each wait in a row
		most     []time.Duration
		announce bool
	}{
		{"permanent", failOf(exchange.Refused, 0),
			[]time.Duration{3750 * time.Millisecond, 7500 * time.Millisecond, 15 * time.Second, 30 * time.Second, 45 * time.Second, 45 * time.Second},
			[]time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}, false},
		{"transient", failOf(exchange.Unavailable, 0),
			[]time.Duration{375 * time.Millisecond, 750 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 6 * time.Second, 12 * time.Second, 15 * time.Second},
			[]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 20 * time.Second}, true},
		{"throttled", failOf(exchange.Throttled, 30*time.Second), []time.Duration{30 * time.Second}, []time.Duration{30 * time.Second}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &authority{err: tt.err}
				s, key := newSource(t, a, exchange.Config{}), keyOf("s")
				ask := func() *exchange.Error {
					_, err := s.Token(t.Context(), key)
					var failed *exchange.Error
					if !errors.As(err, &failed) || failed.Kind != tt.err.Kind {
						t.Fatalf("Token = %v, want %v", err, tt.err)
					}
					return failed
				}
				for i := range tt.least {
					ask()
					begun, calls := time.Now(), a.count(key)
					if remembered := ask(); tt.announce && remembered.RetryAfter < tt.least[i] {
						t.Errorf("failure %d: Retry-After %v, want at least %v", i, remembered.RetryAfter, tt.least[i])
					}
					for a.count(key) == calls {
						time.Sleep(10 * time.Millisecond)
						ask()
					}
					if took := time.Since(begun); took < tt.least[i] || took > tt.most[i]+20*time.Millisecond {
						t.Errorf("failure %d was remembered for %v, want %v to %v", i, took, tt.least[i], tt.most[i])
					}
				}
			})
		})
	}
}

func TestManyFailingRequestsAreOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: failOf(exchange.Refused, 0)}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		for range 200 {
			if _, err := s.Token(t.Context(), key); kindOf(err) != exchange.Refused {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if got := a.count(key); got != 1 {
			t.Errorf("%d exchanges for 200 failing requests, want 1", got)
		}
		if st := s.Stats(); st.Remembered != 199 {
			t.Errorf("Stats() = %+v, want 199 remembered", st)
		}
	})
}

// TestMemoryEndsWithTheCredential: someone has mended the assertion; the next
// call but a second later finds out.
func TestMemoryEndsWithTheCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: failOf(exchange.Refused, 0)}
		var (
			mu      sync.Mutex
			current = "old"
			asked   int
		)
		s, key := newSource(t, a, exchange.Config{Credential: func(context.Context, exchange.Key) string {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return current
		}}), keyOf("s")
		for range 1000 {
			if _, err := s.Token(t.Context(), key); err == nil {
				t.Fatal("a token came")
			}
			time.Sleep(time.Millisecond)
		}
		if asked > 3 {
			t.Errorf("the credential was looked at %d times in a second", asked)
		}
		a.set(func() { a.err = nil })
		if _, err := s.Token(t.Context(), key); err == nil {
			t.Error("the memory was void before the credential changed")
		}
		mu.Lock()
		current = "new"
		mu.Unlock()
		time.Sleep(time.Second)
		mustToken(t, s, key)
	})
}

// TestFailuresDoNotPushOutTokens: what fails has a memory of its own.
func TestFailuresDoNotPushOutTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s := newSource(t, a, exchange.Config{Entries: 4})
		mustToken(t, s, keyOf("good"))
		a.set(func() { a.err = failOf(exchange.Refused, 0) })
		for i := range 100 {
			if _, err := s.Token(t.Context(), keyOf(fmt.Sprint(i))); err == nil {
				t.Fatal("a token came")
			}
		}
		mustToken(t, s, keyOf("good"))
	})
}

// TestAutonomy: how long the tokens in use last without Entra.
func TestAutonomy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s := newSource(t, a, exchange.Config{})
		mustToken(t, s, keyOf("one"))
		begun := time.Now()
		time.Sleep(10 * time.Minute)
		mustToken(t, s, keyOf("two"))
		st := s.Stats()
		if len(st.Identities) != 1 || st.Identities[0].Autonomy != 50*time.Minute || !st.Identities[0].LastSuccess.Equal(begun.Add(10*time.Minute)) || st.Identities[0].ClientID != "c" {
			t.Errorf("Stats() = %+v, want one identity with 50m and its last success 10m in", st)
		}
		a.set(func() { a.err = errDown })
		time.Sleep(2 * time.Hour)
		if st := s.Stats(); st.Identities[0].Autonomy != 0 {
			t.Errorf("Autonomy %v after the tokens expired, want 0", st.Identities[0].Autonomy)
		}
	})
}

// TestIdentitiesTakeTurns: an identity with a thousand cold resources does not
// make another one wait, and does not take all slots.
func TestIdentitiesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s := newSource(t, a, exchange.Config{Concurrent: 8, Timeout: time.Hour})
		var callers sync.WaitGroup
		for i := range 1000 {
			callers.Go(func() { mustToken(t, s, keyOf(fmt.Sprint(i))) })
		}
		synctest.Wait()
		begun := time.Now()
		for i := range 2 { // two slots are left for others
			callers.Go(func() {
				mustToken(t, s, exchange.Key{Tenant: "t", ClientID: "other", Scope: fmt.Sprint(i)})
				if took := time.Since(begun); took != time.Second {
					t.Errorf("another identity waited %v, want 1s", took)
				}
			})
		}
		synctest.Wait()
		for i := range 3 { // these wait for a slot, in turn with the thousand
			callers.Go(func() {
				mustToken(t, s, exchange.Key{Tenant: "t", ClientID: "third", Scope: fmt.Sprint(i)})
				if took := time.Since(begun); took > 3*time.Second {
					t.Errorf("a third identity waited %v, want at most 3s", took)
				}
			})
		}
		callers.Wait()
	})
}

// TestLocalBoundsAreNotEntrasTrouble: a caller that was turned away by a bound
// of ours may come back at once.
func TestLocalBoundsAreNotEntrasTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s := newSource(t, a, exchange.Config{Concurrent: 1, Waiting: 1})
		var callers sync.WaitGroup
		for _, scope := range []string{"one", "two"} {
			callers.Go(func() { mustToken(t, s, keyOf(scope)) })
			synctest.Wait()
		}
		if _, err := s.Token(t.Context(), keyOf("three")); kindOf(err) != exchange.Throttled {
			t.Errorf("Token = %v, want Throttled", err)
		}
		callers.Wait()
		mustToken(t, s, keyOf("three"))
	})
}

// TestHealthyCredentialIsBelieved: docs/operations.md, "Refusals that pass".
func TestHealthyCredentialIsBelieved(t *testing.T) {
	refusal := func(code string) *exchange.Error {
		return &exchange.Error{Kind: exchange.Refused, Code: code, Cause: "no"}
	}
	t.Run("refused once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s := newSource(t, a, exchange.Config{})
			mustToken(t, s, keyOf("first"))
			a.set(func() { a.errs = []error{refusal("AADSTS700213"), refusal("AADSTS70021")} })
			begun := time.Now()
			mustToken(t, s, keyOf("second"))
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("took %v, want under 2s", took)
			}
			if st := s.Stats(); st.Exchanges != 2 || st.Failures != 0 {
				t.Errorf("Stats() = %+v, want 2 exchanges, none failed", st)
			}
		})
	})
	t.Run("refused for long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s, key := newSource(t, a, exchange.Config{}), keyOf("second")
			mustToken(t, s, keyOf("first"))
			a.set(func() { a.err = refusal("AADSTS700213") })
			begun := time.Now()
			for kind := exchange.Unavailable; kind == exchange.Unavailable; time.Sleep(time.Second) {
				_, err := s.Token(t.Context(), key)
				kind = kindOf(err)
				if took := time.Since(begun); kind == exchange.Refused && took < 2*time.Minute || took > 3*time.Minute {
					t.Fatalf("after %v: %v", took, err)
				}
			}
		})
	})
	t.Run("never worked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{err: refusal("AADSTS700213")}
			s, key := newSource(t, a, exchange.Config{}), keyOf("s")
			begun := time.Now()
			if _, err := s.Token(t.Context(), key); kindOf(err) != exchange.Refused || time.Since(begun) != 0 || a.count(key) != 1 {
				t.Errorf("Token = %v after %v and %d attempts, want Refused at once", err, time.Since(begun), a.count(key))
			}
		})
	})
	t.Run("another code", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s, key := newSource(t, a, exchange.Config{}), keyOf("second")
			mustToken(t, s, keyOf("first"))
			a.set(func() { a.err = refusal("AADSTS700016") })
			if _, err := s.Token(t.Context(), key); kindOf(err) != exchange.Refused || a.count(key) != 1 {
				t.Errorf("Token = %v after %d attempts, want Refused at once", err, a.count(key))
			}
		})
	})
	t.Run("new key", func(t *testing.T) { // takes minutes: no attempts in a row
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s, key := newSource(t, a, exchange.Config{}), keyOf("second")
			mustToken(t, s, keyOf("first"))
			a.set(func() { a.err = refusal("AADSTS700027") })
			if _, err := s.Token(t.Context(), key); kindOf(err) != exchange.Unavailable || a.count(key) != 1 {
				t.Errorf("Token = %v after %d attempts, want Unavailable after 1", err, a.count(key))
			}
		})
	})
}

package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/secret"
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
		if len(st.Identities) != 1 || st.Identities[0].InUse != 2 || st.Identities[0].Autonomy != 50*time.Minute || !st.Identities[0].LastSuccess.Equal(begun.Add(10*time.Minute)) || st.Identities[0].ClientID != "c" {
			t.Errorf("Stats() = %+v, want one identity with 50m and its last success 10m in", st)
		}
		// A caller that holds its own copy leaves the successors unused; they
		// count all the same.
		for range 50 {
			time.Sleep(time.Minute)
			if st := s.Stats(); st.Identities[0].Autonomy < 15*time.Minute {
				t.Fatalf("Autonomy %v in health", st.Identities[0].Autonomy)
			}
		}
		mustToken(t, s, keyOf("one"))
		a.set(func() { a.err = errDown })
		time.Sleep(2 * time.Hour)
		if st := s.Stats(); st.Identities[0].InUse != 1 || st.Identities[0].Autonomy != 0 {
			t.Errorf("%+v after the tokens expired, want 0 of the one that was used", st.Identities[0])
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
	t.Run("refused twice, with a success between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s := newSource(t, a, exchange.Config{})
			mustToken(t, s, keyOf("first"))
			for i := range 2 {
				a.set(func() { a.err = refusal("AADSTS700213") })
				for range 100 {
					if _, err := s.Token(t.Context(), keyOf(fmt.Sprint(i))); kindOf(err) != exchange.Unavailable {
						t.Fatalf("in doubt %d: %v, want Unavailable", i, err)
					}
					time.Sleep(time.Second)
				}
				a.set(func() { a.err = nil })
				mustToken(t, s, keyOf(fmt.Sprint("between", i)))
			}
		})
	})
	t.Run("new key for twenty minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{}
			s, key := newSource(t, a, exchange.Config{}), keyOf("second")
			mustToken(t, s, keyOf("first"))
			a.set(func() { a.err = refusal("AADSTS7000272") })
			begun := time.Now()
			for time.Since(begun) < 40*time.Minute {
				_, err := s.Token(t.Context(), key)
				want := exchange.Unavailable
				if time.Since(begun) > 31*time.Minute {
					want = exchange.Refused
				}
				if kindOf(err) != want && (time.Since(begun) < 29*time.Minute || want == exchange.Refused) {
					t.Fatalf("after %v: %v, want %v", time.Since(begun), err, want)
				}
				time.Sleep(30 * time.Second)
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

// TestMemoryEndsWithSuccess: after a success the waits begin anew.
func TestMemoryEndsWithSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{life: 3 * time.Second} // a second of use
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		a.set(func() { a.err = failOf(exchange.Refused, 0) })
		for begun := time.Now(); time.Since(begun) < 5*time.Minute; time.Sleep(time.Second) {
			if _, err := s.Token(t.Context(), key); err == nil {
				t.Fatal("a token came")
			}
		}
		a.set(func() { a.err = nil })
		time.Sleep(time.Minute)
		mustToken(t, s, key)
		a.set(func() { a.err = failOf(exchange.Refused, 0) })
		time.Sleep(1100 * time.Millisecond)
		if _, err := s.Token(t.Context(), key); err == nil {
			t.Fatal("a token came")
		}
		a.set(func() { a.err = nil })
		time.Sleep(5 * time.Second) // the first wait
		mustToken(t, s, key)
	})
}

// TestRefusedRenewalIsNoStorm: somebody has deleted the federated credential; the
// token held is served on, and Entra is asked at the memory's pace.
func TestRefusedRenewalIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		mustToken(t, s, key)
		a.set(func() { a.err = failOf(exchange.Refused, 0) })
		time.Sleep(34 * time.Minute)
		before := a.count(key)
		for range 6000 {
			mustToken(t, s, key)
			time.Sleep(100 * time.Millisecond)
		}
		if got := a.count(key) - before; got > 15 {
			t.Errorf("%d exchanges in ten minutes of refusals, want about one a minute", got)
		}
	})
}

// TestFailuresAreForgottenApart: keys that failed together do not come back
// together.
func TestFailuresAreForgottenApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: failOf(exchange.Refused, 0)}
		s := newSource(t, a, exchange.Config{})
		const keys = 50
		for i := range keys {
			_, _ = s.Token(t.Context(), keyOf(fmt.Sprint(i)))
		}
		most, before := 0, s.Stats().Exchanges
		for range 60 { // the memories end within 3.75 to 5 s
			time.Sleep(100 * time.Millisecond)
			for i := range keys {
				_, _ = s.Token(t.Context(), keyOf(fmt.Sprint(i)))
			}
			now := s.Stats().Exchanges
			most, before = max(most, int(now-before)), now
		}
		if most > keys/3 || before != 2*keys {
			t.Errorf("%d of %d exchanges within 100 ms, %d in all", most, keys, before)
		}
	})
}

// TestExpiredTokenIsNotRenewed: once a token in use has ended in an outage, only
// calls ask for another.
func TestExpiredTokenIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		mustToken(t, s, key)
		a.set(func() { a.err = errDown })
		time.Sleep(time.Hour + time.Minute)
		before := a.count(key)
		time.Sleep(time.Hour)
		if got := a.count(key); got != before {
			t.Errorf("%d exchanges for an expired token that nobody asks for", got-before)
		}
	})
}

// TestFailedRenewalsAreTold, and only those: what somebody waited for has its
// own reply.
func TestFailedRenewalsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		var told atomic.Int32
		s, key := newSource(t, a, exchange.Config{Failed: func(failed exchange.Key, err *exchange.Error) {
			if failed != keyOf("s") || err.Kind != exchange.Unavailable {
				t.Errorf("told of %v, %v", failed, err)
			}
			told.Add(1)
		}}), keyOf("s")
		mustToken(t, s, key)
		a.set(func() { a.err = errDown })
		if _, err := s.Token(t.Context(), keyOf("cold")); err == nil || told.Load() != 0 {
			t.Errorf("Token = %v, told %d times of what a caller waited for", err, told.Load())
		}
		time.Sleep(40 * time.Minute)
		if told.Load() == 0 {
			t.Error("nothing was told of failed renewals")
		}
	})
}

// TestQueueKeepsItsBounds: no more exchanges at once than slots, and of one
// identity no more than its share, while those who wait take turns.
func TestQueueKeepsItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s := newSource(t, a, exchange.Config{Concurrent: 8, Timeout: time.Hour})
		var (
			callers sync.WaitGroup
			order   []string
			mu      sync.Mutex
		)
		ask := func(clientID string, n int) {
			for i := range n {
				callers.Go(func() {
					mustToken(t, s, exchange.Key{Tenant: "t", ClientID: clientID, Scope: fmt.Sprint(i)})
					mu.Lock()
					defer mu.Unlock()
					order = append(order, clientID)
				})
			}
			synctest.Wait()
		}
		ask("one", 100)
		ask("two", 2) // fill the slots that "one" may not have
		ask("three", 30)
		ask("four", 30)
		callers.Wait()
		if a.most != 8 {
			t.Errorf("%d exchanges at once, want 8", a.most)
		}
		for clientID, most := range a.mostOf {
			if most > 6 {
				t.Errorf("%d exchanges of %q at once, want at most 6", most, clientID)
			}
		}
		// "three" and "four" began to wait after a hundred of "one", and end
		// when about as many of "one" have had their turns.
		last := map[string]int{}
		for i, clientID := range order {
			last[clientID] = i
		}
		if last["three"] > 110 || last["four"] > 110 || last["one"] < 150 {
			t.Errorf("turns were not taken: the last of each came at %v", last)
		}
	})
}

// TestGivingUpInTheQueueLeaksNoSlot: callers' exchanges that end while they wait
// leave the queue as it was.
func TestGivingUpInTheQueueLeaksNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := exchange.Key{Tenant: "t", ClientID: "hung", Scope: "s"}
		a := &authority{hangs: map[exchange.Key]bool{hung: true}}
		s := newSource(t, a, exchange.Config{Concurrent: 1, Timeout: 10 * time.Second})
		var callers sync.WaitGroup
		callers.Go(func() { _, _ = s.Token(t.Context(), hung) })
		synctest.Wait()
		for i := range 20 {
			callers.Go(func() { _, _ = s.Token(t.Context(), keyOf(fmt.Sprint(i))) })
		}
		callers.Wait()
		time.Sleep(time.Minute)
		mustToken(t, s, keyOf("later"))
		if st := s.Stats(); st.Waiting != 0 || st.Running != 0 {
			t.Errorf("Stats() = %+v, want nothing waiting or running", st)
		}
	})
}

// TestMissingAssertionIsLookedForAgain: without an assertion Entra is not asked,
// and the source not on every call; once there is one the next call gets a token.
func TestMissingAssertionIsLookedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, present atomic.Int64
		entra, err := exchange.NewEntra(exchange.EntraConfig{Assertion: func(context.Context, exchange.Key, bool) (secret.Value, error) {
			asked.Add(1)
			return secret.Value{}, sourceError{true}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer entra.Close()
		works := &authority{life: time.Hour}
		s, err := exchange.New(exchange.Config{
			Redeem: func(ctx context.Context, key exchange.Key) (exchange.Token, error) {
				if present.Load() == 0 {
					return entra.Redeem(ctx, key)
				}
				return works.redeem(ctx, key)
			},
			Credential: func(context.Context, exchange.Key) string { return fmt.Sprint(present.Load()) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 10_000 {
			if _, err := s.Token(t.Context(), keyOf("s")); kindOf(err) != exchange.Unavailable {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if n := asked.Load(); n < 5 || n > 15 {
			t.Errorf("the source was asked %d times in 10 s, want about 10", n)
		}
		if st := s.Stats(); st.Exchanges != 0 || st.SourceFailures != uint64(asked.Load()) {
			t.Errorf("Stats() = %+v, want no exchange and %d failures of the source", st, asked.Load())
		}
		time.Sleep(time.Second)
		if _, err := s.Token(t.Context(), keyOf("s")); err == nil {
			t.Fatal("a token came")
		}
		present.Store(1)
		mustToken(t, s, keyOf("s"))
	})
}

// TestOneSuccessForgivesAll: what the identity's keys failed on is over once one
// of them has worked.
func TestOneSuccessForgivesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: errDown}
		s := newSource(t, a, exchange.Config{})
		other := exchange.Key{Tenant: "t", ClientID: "other", Scope: "s"}
		for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(time.Second) {
			for _, key := range []exchange.Key{keyOf("one"), keyOf("two"), other} {
				_, _ = s.Token(t.Context(), key)
			}
		}
		_, _ = s.Token(t.Context(), other) // its memory may have ended in the last second
		refused := failOf(exchange.Refused, 0)
		a.set(func() { a.err = refused })
		if _, err := s.Token(t.Context(), keyOf("refused")); kindOf(err) != exchange.Refused {
			t.Fatal(err)
		}
		a.set(func() { a.err = nil })
		mustToken(t, s, keyOf("new"))
		mustToken(t, s, keyOf("one")) // at once
		mustToken(t, s, keyOf("two"))
		if _, err := s.Token(t.Context(), other); kindOf(err) != exchange.Unavailable {
			t.Errorf("another identity: %v, want its own memory", err)
		}
		if _, err := s.Token(t.Context(), keyOf("refused")); kindOf(err) != exchange.Refused {
			t.Errorf("a refusal for good: %v, want it remembered", err)
		}
	})
}

// TestPanicInCredentialIsContained, on both ways to it.
func TestPanicInCredentialIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: failOf(exchange.Refused, 0)}
		s := newSource(t, a, exchange.Config{Credential: func(context.Context, exchange.Key) string { panic("boom") }})
		for range 3 {
			if _, err := s.Token(t.Context(), keyOf("s")); kindOf(err) != exchange.Refused {
				t.Errorf("Token = %v, want Refused", err)
			}
			time.Sleep(1500 * time.Millisecond)
		}
	})
}

// TestRenewalsDoNotStarve: resources of the same identity that hang, and are asked
// for all the time, do not keep a good token from being renewed.
func TestRenewalsDoNotStarve(t *testing.T) {
	for _, failing := range []int{1, 3, 8} {
		synctest.Test(t, func(t *testing.T) {
			a := &authority{hangs: map[exchange.Key]bool{}}
			s, good := newSource(t, a, exchange.Config{}), keyOf("good")
			mustToken(t, s, good)
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for i := range failing {
				bad := keyOf(fmt.Sprint("bad", i))
				a.set(func() { a.hangs[bad] = true })
				callers.Go(func() {
					for ctx.Err() == nil {
						_, _ = s.Token(ctx, bad)
						time.Sleep(time.Second)
					}
				})
			}
			least := time.Hour
			for begun := time.Now(); time.Since(begun) < 3*time.Hour; time.Sleep(time.Second) {
				least = min(least, mustToken(t, s, good).Left(time.Now()))
			}
			cancel()
			callers.Wait()
			if least < 20*time.Minute {
				t.Errorf("beside %d resources that hang a token had %v left, want half of its life", failing, least)
			}
		})
	}
}

// TestForgivenessKeepsEntrasTime: a success of another resource does not shorten
// the wait that Entra asked for.
func TestForgivenessKeepsEntrasTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttled := keyOf("throttled")
		works := &authority{life: time.Hour}
		asked := 0
		s, err := exchange.New(exchange.Config{Redeem: func(ctx context.Context, key exchange.Key) (exchange.Token, error) {
			if key == throttled {
				asked++
				return exchange.Token{}, failOf(exchange.Throttled, time.Minute)
			}
			return works.redeem(ctx, key)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range 59 {
			_, _ = s.Token(t.Context(), throttled)
			mustToken(t, s, keyOf(fmt.Sprint(i)))
			time.Sleep(time.Second)
		}
		if asked != 1 {
			t.Errorf("Entra was asked %d times in a minute that it asked for", asked)
		}
	})
}

// TestCallerWhoGaveUpVoidsNoMemory: a credential that could not be looked at in a
// caller's time is not another credential.
func TestCallerWhoGaveUpVoidsNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{err: failOf(exchange.Refused, 0)}
		s, key := newSource(t, a, exchange.Config{Credential: func(ctx context.Context, _ exchange.Key) string {
			if ctx.Err() != nil {
				return "no time"
			}
			return "same"
		}}), keyOf("s")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 60 {
			_, _ = s.Token(gone, key)
			time.Sleep(time.Second)
		}
		if got := a.count(key); got > 6 {
			t.Errorf("%d exchanges in a minute, want about 4", got)
		}
	})
}

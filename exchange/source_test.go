package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/internal/secret"
)

var errDown = &exchange.Error{Kind: exchange.Unavailable, Cause: "down"}

// authority stands for Entra: every token names its key and its number.
type authority struct {
	mu      sync.Mutex
	calls   map[exchange.Key]int
	running map[exchange.Key]int
	most    int            // at once, of all keys
	mostOf  map[string]int // and by client id
	life    time.Duration
	refresh time.Duration
	takes   time.Duration
	err     error
	errs    []error // of the next calls
	hangs   map[exchange.Key]bool
	doubled bool // two exchanges of one key at once
}

func (a *authority) redeem(ctx context.Context, key exchange.Key) (exchange.Token, error) {
	start := time.Now()
	n, takes, hangs := a.enter(key)
	defer a.leave(key)
	if hangs {
		<-ctx.Done()
		return exchange.Token{}, &exchange.Error{Kind: exchange.Unavailable, Cause: "hung"}
	}
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return exchange.Token{}, errDown
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.errs) > 0 {
		err := a.errs[0]
		a.errs = a.errs[1:]
		return exchange.Token{}, err
	}
	if a.err != nil {
		return exchange.Token{}, a.err
	}
	return exchange.NewToken(secret.New(fmt.Sprintf("%v#%d", key, n)), start, a.life, a.refresh), nil
}

func (a *authority) enter(key exchange.Key) (n int, takes time.Duration, hangs bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls, a.running, a.mostOf = map[exchange.Key]int{}, map[exchange.Key]int{}, map[string]int{}
	}
	a.calls[key]++
	a.running[key]++
	a.doubled = a.doubled || a.running[key] > 1
	total, own := 0, 0
	for k, r := range a.running {
		total += r
		if k.ClientID == key.ClientID {
			own += r
		}
	}
	a.most, a.mostOf[key.ClientID] = max(a.most, total), max(a.mostOf[key.ClientID], own)
	return a.calls[key], a.takes, a.hangs[key]
}

func (a *authority) leave(key exchange.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running[key]--
}

func (a *authority) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

func (a *authority) count(key exchange.Key) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[key]
}

func keyOf(scope string) exchange.Key {
	return exchange.Key{Tenant: "t", ClientID: "c", Scope: scope}
}

func newSource(t *testing.T, a *authority, cfg exchange.Config) *exchange.Source {
	t.Helper()
	if a.life == 0 {
		a.life = time.Hour
	}
	cfg.Redeem = a.redeem
	s, err := exchange.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func mustToken(t *testing.T, s *exchange.Source, key exchange.Key) exchange.Token {
	t.Helper()
	token, err := s.Token(t.Context(), key)
	if err != nil {
		t.Fatalf("Token(%v): %v", key, err)
	}
	return token
}

func TestNewRefuses(t *testing.T) {
	redeem := (&authority{}).redeem
	for name, cfg := range map[string]exchange.Config{
		"no Redeem":           {},
		"negative timeout":    {Redeem: redeem, Timeout: -1},
		"negative entries":    {Redeem: redeem, Entries: -1},
		"negative concurrent": {Redeem: redeem, Concurrent: -1},
		"negative waiting":    {Redeem: redeem, Waiting: -1},
	} {
		if s, err := exchange.New(cfg); err == nil {
			t.Errorf("%s: New = %v, want an error", name, s)
		}
	}
}

// TestTokenLife walks tokens through their lives: renewed in the background,
// a little after half-life or after refresh_in, and never waited for.
func TestTokenLife(t *testing.T) {
	type step struct {
		sleep time.Duration
		want  int // exchanges afterwards
	}
	for _, tt := range []struct {
		name    string
		refresh time.Duration
		steps   []step
	}{
		// The jitter is at most a tenth of what is left: 3 minutes.
		{"half-life", 0, []step{{0, 1}, {30*time.Minute - 1, 1}, {4 * time.Minute, 2}, {26 * time.Minute, 2}, {8 * time.Minute, 3}}},
		// 2 minutes.
		{"refresh_in", 40 * time.Minute, []step{{0, 1}, {40*time.Minute - 1, 1}, {3 * time.Minute, 2}, {37*time.Minute - 2, 2}, {6 * time.Minute, 3}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &authority{refresh: tt.refresh}
				s, key := newSource(t, a, exchange.Config{}), keyOf("s")
				for i, step := range tt.steps {
					time.Sleep(step.sleep)
					synctest.Wait()
					begun := time.Now()
					token := mustToken(t, s, key)
					if time.Since(begun) != 0 || token.Left(time.Now()) <= 0 {
						t.Errorf("step %d: waited %v for a token with %v left", i, time.Since(begun), token.Left(time.Now()))
					}
					if got := a.count(key); got != step.want {
						t.Errorf("step %d: %d exchanges, want %d", i, got, step.want)
					}
				}
			})
		})
	}
}

// TestCallerThatCachesNeverWaits: an SDK that asks again only when its own copy
// has 5 minutes left always gets a token that lasts.
func TestCallerThatCachesNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: 300 * time.Millisecond}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		token := mustToken(t, s, key)
		for range 24 {
			time.Sleep(token.Left(time.Now()) - 5*time.Minute)
			begun := time.Now()
			token = mustToken(t, s, key)
			if waited, left := time.Since(begun), token.Left(time.Now()); waited != 0 || left < 20*time.Minute {
				t.Errorf("waited %v for a token with %v left", waited, left)
			}
		}
	})
}

// TestIdleTokenCostsNothing: a token that nobody used since it came is not
// renewed.
func TestIdleTokenCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		mustToken(t, s, key)
		time.Sleep(24 * time.Hour)
		if got := a.count(key); got != 2 { // the first was used, its successor was not
			t.Errorf("%d exchanges in a day without a call, want 2", got)
		}
		if token := mustToken(t, s, key); token.Left(time.Now()) != time.Hour {
			t.Errorf("a token with %v left came after a day", token.Left(time.Now()))
		}
	})
}

func TestRenewalsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s := newSource(t, a, exchange.Config{})
		const keys = 300
		for i := range keys {
			mustToken(t, s, keyOf(fmt.Sprint(i)))
		}
		time.Sleep(30 * time.Minute)
		most, before := 0, s.Stats().Exchanges
		for range 200 {
			time.Sleep(time.Second)
			now := s.Stats().Exchanges
			most, before = max(most, int(now-before)), now
		}
		if before != 2*keys || most > 20 {
			t.Errorf("%d exchanges, at most %d in a second; want %d, spread", before, most, 2*keys)
		}
	})
}

func TestExpiredTokenIsNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		first := mustToken(t, s, key)
		a.set(func() { a.err = errDown })
		time.Sleep(time.Until(first.ExpiresOn))
		if token, err := s.Token(t.Context(), key); kindOf(err) != exchange.Unavailable {
			t.Errorf("Token after expiry = %v, %v; want Unavailable", token, err)
		}
	})
}

func kindOf(err error) exchange.Kind {
	var failed *exchange.Error
	errors.As(err, &failed)
	if failed == nil {
		return 0
	}
	return failed.Kind
}

// TestOutage: while Entra is down a valid token is served at once, to the last
// seconds, and Entra is asked at the back-off's pace, not on each call.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*authority)
	}{
		{"refuses", func(a *authority) { a.err = errDown }},
		{"hangs", func(a *authority) { a.hangs = map[exchange.Key]bool{keyOf("s"): true} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &authority{}
				s, key := newSource(t, a, exchange.Config{}), keyOf("s")
				first := mustToken(t, s, key)
				a.set(func() { tt.set(a) })
				slow := 0
				for first.Left(time.Now()) > 3*time.Second {
					begun := time.Now()
					if got := mustToken(t, s, key); got.Value.Reveal() != first.Value.Reveal() {
						t.Fatalf("another token came with %v left", first.Left(time.Now()))
					}
					switch waited := time.Since(begun); {
					case waited > time.Second || waited > 0 && first.Left(time.Now()) > 5*time.Minute:
						t.Fatalf("waited %v with %v left", waited, first.Left(time.Now()))
					case waited > 0:
						slow++
					}
					time.Sleep(time.Second)
				}
				if got := a.count(key); got < 20 || got > 130 {
					t.Errorf("%d exchanges in half an hour of outage, want about one in 20 s", got)
				}
				a.set(func() { a.err, a.hangs = nil, nil })
				time.Sleep(45 * time.Second)
				if got := mustToken(t, s, key); got.Value.Reveal() == first.Value.Reveal() {
					t.Error("the old token came after the outage")
				}
			})
		})
	}
}

// TestOutageIsProbedOncePerIdentity: however many keys an identity has, one at a
// time probes; once it succeeds, the others follow, spread.
func TestOutageIsProbedOncePerIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s := newSource(t, a, exchange.Config{})
		const keys = 100
		use := func() {
			for i := range keys {
				mustToken(t, s, keyOf(fmt.Sprint(i)))
			}
		}
		use()
		a.set(func() { a.err, a.takes, a.most = errDown, 2*time.Second, 0 })
		time.Sleep(34 * time.Minute) // all are due, and in trouble
		use()
		before := s.Stats().Exchanges
		time.Sleep(15 * time.Minute)
		use()
		if probes := s.Stats().Exchanges - before; probes < 20 || probes > 100 {
			t.Errorf("%d probes of one identity with %d keys in 15 minutes, want about one in 20 s", probes, keys)
		}
		a.set(func() { a.err, a.most = nil, 0 })
		before = s.Stats().Exchanges
		time.Sleep(time.Minute)
		if got := s.Stats().Exchanges - before; got != keys {
			t.Errorf("%d exchanges in the minute after the outage, want %d", got, keys)
		}
		if a.most > 24 {
			t.Errorf("%d exchanges at once after the outage", a.most)
		}
	})
}

// TestBelowFloor: clients take less than 5 minutes for expired, so an idle
// entry that comes back into use is renewed before it is served, unless that
// takes long.
func TestBelowFloor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration
		fresh bool
	}{{"quick", 100 * time.Millisecond, true}, {"slow", 5 * time.Second, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &authority{}
				s, key := newSource(t, a, exchange.Config{}), keyOf("s")
				mustToken(t, s, key)
				time.Sleep(34 * time.Minute) // renewed once; its successor is idle
				renewed := s.Stats().Exchanges
				a.set(func() { a.takes = tt.takes })
				time.Sleep(54 * time.Minute) // 30 to 33 minutes after the first came the second
				begun := time.Now()
				got := mustToken(t, s, key)
				if waited := time.Since(begun); renewed != 2 || waited > time.Second || waited == 0 {
					t.Errorf("after %d exchanges waited %v, want at most 1s", renewed, waited)
				}
				if fresh := got.Left(time.Now()) > 5*time.Minute; fresh != tt.fresh {
					t.Errorf("%v left, want a new token: %v", got.Left(time.Now()), tt.fresh)
				}
				time.Sleep(10 * time.Second)
				if got := mustToken(t, s, key); got.Left(time.Now()) < 50*time.Minute {
					t.Error("the renewal that was not waited for was lost")
				}
			})
		})
	}
}

// TestShortLivedTokensAreNoStorm: tokens that live less than SDKs like are
// renewed at half-life too, not on every call.
func TestShortLivedTokensAreNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{life: 4 * time.Minute}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		for range 3600 {
			mustToken(t, s, key)
			time.Sleep(time.Second)
		}
		if got := a.count(key); got > 31 {
			t.Errorf("%d exchanges in an hour of 4-minute tokens, want at most 30", got)
		}
	})
}

func TestThousandColdCallersShareOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { mustToken(t, s, key) })
		}
		callers.Wait()
		if got := a.count(key); got != 1 {
			t.Errorf("%d exchanges, want 1", got)
		}
	})
}

// TestInstantExchangeIsShared: a caller who missed just before the shared
// exchange ended does not begin a second one.
func TestInstantExchangeIsShared(t *testing.T) {
	a := &authority{}
	s := newSource(t, a, exchange.Config{})
	for round := range 20 {
		key, begin := keyOf(fmt.Sprint(round)), make(chan struct{})
		var callers sync.WaitGroup
		for range 200 {
			callers.Go(func() {
				<-begin
				mustToken(t, s, key)
			})
		}
		close(begin)
		callers.Wait()
		if got := a.count(key); got != 1 {
			t.Fatalf("round %d: %d exchanges, want 1", round, got)
		}
	}
}

func TestCallerWhoGivesUpFailsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		leaves, leave := context.WithCancelCause(t.Context())
		var callers sync.WaitGroup
		gone := errors.New("gone")
		callers.Go(func() { // the first, whose exchange it is
			if _, err := s.Token(leaves, key); !errors.Is(err, gone) {
				t.Errorf("the caller who left got %v, want the cause", err)
			}
		})
		synctest.Wait()
		for range 9 {
			callers.Go(func() { mustToken(t, s, key) })
		}
		time.Sleep(time.Millisecond)
		leave(gone)
		callers.Wait()
		if got := a.count(key); got != 1 {
			t.Errorf("%d exchanges, want 1", got)
		}
	})
}

func TestKeysAreExchangedInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := keyOf("hung")
		a := &authority{takes: time.Second, hangs: map[exchange.Key]bool{hung: true}}
		s := newSource(t, a, exchange.Config{})
		var callers sync.WaitGroup
		callers.Go(func() {
			begun := time.Now()
			if _, err := s.Token(t.Context(), hung); err == nil || time.Since(begun) != 10*time.Second {
				t.Errorf("the hanging key ended after %v with %v", time.Since(begun), err)
			}
		})
		begun := time.Now()
		for i := range 10 {
			callers.Go(func() {
				mustToken(t, s, keyOf(fmt.Sprint(i)))
				if took := time.Since(begun); took != time.Second {
					t.Errorf("key %d took %v, want 1s", i, took)
				}
			})
		}
		callers.Wait()
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{takes: time.Second}
		s := newSource(t, a, exchange.Config{Entries: 8, Concurrent: 4, Waiting: 40})
		var callers sync.WaitGroup
		var throttled atomic.Int32
		for i := range 100 {
			callers.Go(func() {
				_, err := s.Token(t.Context(), keyOf(fmt.Sprint(i)))
				var failed *exchange.Error
				if errors.As(err, &failed) && failed.Kind == exchange.Throttled {
					throttled.Add(1)
				}
			})
		}
		callers.Wait()
		synctest.Wait()
		if a.most != 3 { // an identity has three quarters
			t.Errorf("%d exchanges at once, want 3", a.most)
		}
		if got := throttled.Load(); got != 57 {
			t.Errorf("%d callers throttled, want 57", got)
		}
		if got := s.Stats(); got.Entries != 8 || got.Running != 0 || got.Waiting != 0 {
			t.Errorf("Stats() = %+v, want 8 entries and nothing running or waiting", got)
		}
	})
}

func TestPanicInRedeemFailsOneExchange(t *testing.T) {
	s, err := exchange.New(exchange.Config{Redeem: func(context.Context, exchange.Key) (exchange.Token, error) { panic("boom") }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var failed *exchange.Error
	if _, err := s.Token(t.Context(), keyOf("s")); !errors.As(err, &failed) || failed.Kind != exchange.Unavailable {
		t.Errorf("Token = %v, want Unavailable", err)
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{hangs: map[exchange.Key]bool{keyOf("hung"): true}}
		s := newSource(t, a, exchange.Config{})
		mustToken(t, s, keyOf("s"))
		ended := make(chan error, 1)
		go func() {
			_, err := s.Token(t.Context(), keyOf("hung"))
			ended <- err
		}()
		synctest.Wait()
		s.Close() // the bubble fails if a goroutine outlives this
		if err := <-ended; err == nil {
			t.Error("the exchange under way brought a token after Close")
		}
		if token, err := s.Token(t.Context(), keyOf("s")); err == nil {
			t.Errorf("Token after Close = %v, want an error", token)
		}
	})
}

// TestProperties drives many keys with random pauses, faults and lives, and
// holds every token that comes back to what must always be true.
func TestProperties(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 0))
				a := &authority{}
				s := newSource(t, a, exchange.Config{Entries: 5, Concurrent: 3, Timeout: 5 * time.Second})
				var callers sync.WaitGroup
				for range 2000 {
					a.set(func() {
						a.life = time.Duration(1+random.IntN(5000)) * time.Second
						a.refresh = time.Duration(random.IntN(5000)) * time.Second
						a.takes = time.Duration(random.IntN(8)) * time.Second
						if a.err = nil; random.IntN(4) == 0 {
							a.err = errDown
						}
					})
					key := keyOf(fmt.Sprint(random.IntN(8)))
					callers.Go(func() {
						token, err := s.Token(t.Context(), key)
						if err != nil {
							return
						}
						if left := token.Left(time.Now()); left <= 0 {
							t.Errorf("a token with %v left came", left)
						}
						if owner := fmt.Sprint(key); token.Value.Reveal()[:len(owner)] != owner {
							t.Errorf("Token(%v) = %s", key, token.Value.Reveal())
						}
					})
					time.Sleep(time.Duration(random.IntN(100)) * time.Second)
				}
				callers.Wait()
				s.Close()
				if a.doubled || a.most > 2 || s.Stats().Entries > 5 {
					t.Errorf("one key twice at once: %v; at once: %d, want at most 2; entries: %d, want at most 5", a.doubled, a.most, s.Stats().Entries)
				}
			})
		})
	}
}

func TestTokenLeftIsTheLesserOfBothClocks(t *testing.T) {
	// A wall clock that was set back by two hours after the exchange: the
	// wall time says 3 h left, the monotonic reading says 1 h.
	token := exchange.NewToken(secret.New("x"), time.Now(), time.Hour, 0)
	token.ExpiresOn = token.ExpiresOn.Add(2 * time.Hour)
	if left := token.Left(time.Now()); left > time.Hour {
		t.Errorf("clock set back: %v left, want at most 1h", left)
	}
	// Set forward: the wall clock has it expired.
	token.ExpiresOn = token.ExpiresOn.Add(-4 * time.Hour)
	if left := token.Left(time.Now()); left > 0 {
		t.Errorf("clock set forward: %v left, want none", left)
	}
}

func TestScope(t *testing.T) {
	for resource, want := range map[string]string{
		"https://vault.azure.net":              "https://vault.azure.net/.default",
		"https://vault.azure.net/":             "https://vault.azure.net//.default",
		"https://vault.azure.net/.default":     "https://vault.azure.net/.default",
		"https://vault.azure.net/.Default":     "https://vault.azure.net/.Default/.default",
		"api://app":                            "api://app/.default",
		"00000003-0000-0000-c000-000000000000": "00000003-0000-0000-c000-000000000000/.default",
	} {
		if got := exchange.Scope(resource); got != want {
			t.Errorf("Scope(%q) = %q, want %q", resource, got, want)
		}
	}
}

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
	most    int // at once, of all keys
	life    time.Duration
	refresh time.Duration
	takes   time.Duration
	err     error
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
	if a.err != nil {
		return exchange.Token{}, a.err
	}
	return exchange.NewToken(secret.New(fmt.Sprintf("%v#%d", key, n)), start, a.life, a.refresh), nil
}

func (a *authority) enter(key exchange.Key) (n int, takes time.Duration, hangs bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls == nil {
		a.calls, a.running = map[exchange.Key]int{}, map[exchange.Key]int{}
	}
	a.calls[key]++
	a.running[key]++
	a.doubled = a.doubled || a.running[key] > 1
	total := 0
	for _, r := range a.running {
		total += r
	}
	a.most = max(a.most, total)
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

// TestTokenLife walks one token through its life: from the cache to half-life,
// renewed in the background from there on, never waited for.
func TestTokenLife(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refresh time.Duration
		steps   []struct {
			sleep time.Duration
			want  int // exchanges afterwards
		}
	}{
		{"half-life", 0, []struct {
			sleep time.Duration
			want  int
		}{{0, 1}, {29 * time.Minute, 1}, {time.Minute, 2}, {29 * time.Minute, 2}, {time.Minute, 3}}},
		{"refresh_in", 40 * time.Minute, []struct {
			sleep time.Duration
			want  int
		}{{0, 1}, {39 * time.Minute, 1}, {time.Minute, 2}, {39 * time.Minute, 2}, {time.Minute, 3}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &authority{refresh: tt.refresh}
				s, key := newSource(t, a, exchange.Config{}), keyOf("s")
				for i, step := range tt.steps {
					time.Sleep(step.sleep)
					begun := time.Now()
					token := mustToken(t, s, key)
					if time.Since(begun) != 0 || token.Left(time.Now()) <= 0 {
						t.Errorf("step %d: waited %v for a token with %v left", i, time.Since(begun), token.Left(time.Now()))
					}
					synctest.Wait()
					if got := a.count(key); got != step.want {
						t.Errorf("step %d: %d exchanges, want %d", i, got, step.want)
					}
				}
			})
		})
	}
}

func TestExpiredTokenIsNeverServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		first := mustToken(t, s, key)
		a.set(func() { a.err = errDown })
		time.Sleep(time.Until(first.ExpiresOn))
		if token, err := s.Token(t.Context(), key); !errors.Is(err, errDown) {
			t.Errorf("Token after expiry = %v, %v; want %v", token, err, errDown)
		}
	})
}

// TestOutage: while Entra is down a valid token is served at once, and Entra is
// not asked on each call.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{}
		s, key := newSource(t, a, exchange.Config{}), keyOf("s")
		first := mustToken(t, s, key)
		a.set(func() { a.err = errDown })
		for first.Left(time.Now()) > 3*time.Second {
			begun := time.Now()
			if got := mustToken(t, s, key); got.Value.Reveal() != first.Value.Reveal() {
				t.Fatalf("another token came with %v left", first.Left(time.Now()))
			}
			if waited := time.Since(begun); waited != 0 {
				t.Fatalf("waited %v with %v left", waited, first.Left(time.Now()))
			}
			time.Sleep(time.Second)
		}
		if got := a.count(key); got < 10 || got > 62 {
			t.Errorf("%d exchanges in half an hour of outage, want some, but at most two a minute", got)
		}
		a.set(func() { a.err = nil })
		time.Sleep(2 * time.Second)
		if got := mustToken(t, s, key); got.Value.Reveal() == first.Value.Reveal() {
			t.Error("the old token came after the outage")
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
				first := mustToken(t, s, key)
				a.set(func() { a.takes = tt.takes })
				time.Sleep(time.Until(first.ExpiresOn) - 4*time.Minute)
				begun := time.Now()
				got := mustToken(t, s, key)
				if waited := time.Since(begun); waited > time.Second {
					t.Errorf("waited %v, want at most 1s", waited)
				}
				if fresh := got.Value.Reveal() != first.Value.Reveal(); fresh != tt.fresh {
					t.Errorf("a new token came: %v, want %v", fresh, tt.fresh)
				}
				time.Sleep(10 * time.Second)
				if got := mustToken(t, s, key); got.Value.Reveal() == first.Value.Reveal() {
					t.Error("the renewal that was not waited for was lost")
				}
			})
		})
	}
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
		if a.most != 4 {
			t.Errorf("%d exchanges at once, want 4", a.most)
		}
		if got := throttled.Load(); got != 60 {
			t.Errorf("%d callers throttled, want 60", got)
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
				if a.doubled || a.most > 3 || s.Stats().Entries > 5 {
					t.Errorf("one key twice at once: %v; at once: %d, want at most 3; entries: %d, want at most 5", a.doubled, a.most, s.Stats().Entries)
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

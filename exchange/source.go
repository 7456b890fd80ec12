package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/singleflight"
)

const (
	// floor is the life below which SDKs take a token for expired and ask
	// again on each call.
	floor = 5 * time.Minute
	// grace is how long a caller waits for a renewal while a token below
	// the floor could be had at once.
	grace = time.Second
	// margin is kept so that a token does not expire on the way.
	margin = 2 * time.Second
	// pause is the time between two renewals of one key if the first failed.
	pause = 30 * time.Second
)

// Config bounds a Source.
type Config struct {
	// Redeem is required.
	Redeem RedeemFunc
	// Timeout bounds one exchange. Zero means 10 s.
	Timeout time.Duration
	// Entries bounds the tokens held; the least recently used goes. Zero
	// means 4,096.
	Entries int
	// Concurrent bounds the exchanges under way. Zero means 32.
	Concurrent int
	// Waiting bounds the exchanges under way and waiting to be; further keys
	// are refused with Throttled. Zero means 1,024.
	Waiting int
}

func (c *Config) defaults() {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Entries == 0 {
		c.Entries = 4096
	}
	if c.Concurrent == 0 {
		c.Concurrent = 32
	}
	if c.Waiting == 0 {
		c.Waiting = 1024
	}
}

// Source hands out access tokens: from its cache, or by an exchange that all
// who ask for the same key share. A valid token is served whatever Entra says;
// an expired one never is. It is safe for concurrent use. Close it after use.
type Source struct {
	cfg     Config
	base    context.Context // of every exchange; cancelled by Close
	cancel  context.CancelFunc
	slots   chan struct{}
	flights singleflight.Group
	running sync.WaitGroup
	stats   counters

	mu      sync.Mutex // held across no call that blocks
	entries *simplelru.LRU[Key, *entry]
	closed  bool
}

// entry is what is known of a key. It is guarded by Source.mu, but its token
// never changes.
type entry struct {
	token     Token
	renew     time.Time // when a renewal is due
	notBefore time.Time // of the next renewal, after a failed one
}

type counters struct {
	hits, misses, exchanges, failures atomic.Uint64
	waiting, running                  atomic.Int64
}

// Stats counts since New. It is a snapshot, each number by itself.
type Stats struct {
	Hits, Misses        uint64 // calls of Token, answered from the cache or not
	Exchanges, Failures uint64 // exchanges that ended, and those of them that failed
	Waiting, Running    int64  // exchanges that wait for a slot, and that are under way
	Entries             int    // tokens held
}

// New validates cfg and starts nothing.
func New(cfg Config) (*Source, error) {
	if cfg.Redeem == nil {
		return nil, errors.New("exchange: Config.Redeem is required")
	}
	if cfg.Timeout < 0 || cfg.Entries < 0 || cfg.Concurrent < 0 || cfg.Waiting < 0 {
		return nil, errors.New("exchange: a bound in Config is negative")
	}
	cfg.defaults()
	entries, err := simplelru.NewLRU[Key, *entry](cfg.Entries, nil)
	if err != nil {
		return nil, fmt.Errorf("exchange: making the cache: %w", err)
	}
	s := &Source{cfg: cfg, entries: entries, slots: make(chan struct{}, cfg.Concurrent)}
	s.base, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close cancels the exchanges under way and returns when they have ended.
// Tokens held are dropped.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	s.entries.Purge()
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}

// Token returns a token for key that is valid now. Its error is an *Error, or
// the cause of ctx if the caller gave up; the exchange goes on without it.
func (s *Source) Token(ctx context.Context, key Key) (Token, error) {
	now := time.Now()
	token, due, ok := s.lookup(key, now)
	switch left := token.Left(now); {
	case ok && (!due || left > floor):
		s.stats.hits.Add(1)
		if due {
			s.start(key) // in the background; nobody waits
		}
		return token, nil
	case ok:
		s.stats.hits.Add(1)
		return s.tokenBelowFloor(ctx, key, token), nil
	default:
		s.stats.misses.Add(1)
		return s.wait(ctx, s.start(key))
	}
}

// lookup returns a valid token, and whether its renewal is due and may be tried.
func (s *Source) lookup(key Key, now time.Time) (token Token, due, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries.Get(key)
	if !ok {
		return Token{}, false, false
	}
	if e.token.Left(now) <= margin {
		return Token{}, false, false
	}
	below := e.token.Left(now) <= floor
	return e.token, (below || !now.Before(e.renew)) && !now.Before(e.notBefore), true
}

// tokenBelowFloor prefers a new token to one that SDKs take for expired, but
// not at the price of a long wait.
func (s *Source) tokenBelowFloor(ctx context.Context, key Key, old Token) Token {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if token, err := s.wait(ctx, s.start(key)); err == nil {
		return token
	}
	return old
}

// wait returns what the flight brings, or the cause of ctx.
func (s *Source) wait(ctx context.Context, flight <-chan singleflight.Result) (Token, error) {
	select {
	case r := <-flight:
		if r.Err != nil {
			return Token{}, r.Err
		}
		return r.Val.(Token), nil
	case <-ctx.Done():
		return Token{}, context.Cause(ctx)
	}
}

// start joins the exchange for key that is under way, or begins one, on a
// context of its own: no caller who gives up takes it from the others.
func (s *Source) start(key Key) <-chan singleflight.Result {
	// Injective: a separator in one part cannot pose as another part.
	name := fmt.Sprintf("%q %q %q", key.Tenant, key.ClientID, key.Scope)
	return s.flights.DoChan(name, func() (any, error) {
		if !s.enter() {
			return nil, unavailable("svidecar is shutting down", "ask again")
		}
		defer s.running.Done()
		// Whoever missed just before the last flight landed finds its
		// token here.
		if token, due, ok := s.lookup(key, time.Now()); ok && !due {
			return token, nil
		}
		token, err := s.exchange(key)
		s.keep(key, token, err)
		if err != nil {
			return nil, err
		}
		return token, nil
	})
}

func (s *Source) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}

// exchange runs one redemption within the bounds.
func (s *Source) exchange(key Key) (token Token, err error) {
	ctx, cancel := context.WithTimeout(s.base, s.cfg.Timeout)
	defer cancel()
	if err := s.acquire(ctx); err != nil {
		return Token{}, err
	}
	defer s.release()
	defer func() {
		// singleflight would end the process, and with it every app's
		// identity, for a fault that concerns one key.
		if p := recover(); p != nil {
			token, err = Token{}, unavailable("an internal error stopped the exchange", "report this as a fault of svidecar")
		}
		s.stats.exchanges.Add(1)
		if err != nil {
			s.stats.failures.Add(1)
		}
	}()
	if token, err = s.cfg.Redeem(ctx, key); err == nil && token.Left(time.Now()) <= margin {
		return Token{}, unavailable("the token that Entra issued had expired when it came", "check the clock, and the network's delay; it is retried")
	}
	return token, err
}

func (s *Source) acquire(ctx context.Context) error {
	defer s.stats.waiting.Add(-1)
	if int(s.stats.waiting.Add(1)+s.stats.running.Load()) > s.cfg.Waiting {
		return &Error{Kind: Throttled, Cause: "too many different tokens are asked for at once", Fix: "ask again; find what asks for so many resources"}
	}
	select {
	case s.slots <- struct{}{}:
		s.stats.running.Add(1)
		return nil
	case <-ctx.Done():
		return unavailable("no exchange could be started in time", "other exchanges hang: see their errors")
	}
}

func (s *Source) release() {
	<-s.slots
	s.stats.running.Add(-1)
}

// keep stores a new token; a failure only postpones the next renewal and never
// touches a token that is still good.
func (s *Source) keep(key Key, token Token, err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && !s.closed {
		s.entries.Add(key, &entry{token: token, renew: renewal(token)})
		return
	}
	if e, ok := s.entries.Peek(key); ok {
		e.notBefore = now.Add(pause)
	}
}

// renewal is when Entra wants the token renewed, else half-way through its life.
func renewal(t Token) time.Time {
	if !t.RefreshOn.IsZero() && t.RefreshOn.Before(t.ExpiresOn) {
		return t.RefreshOn
	}
	return t.NotBefore.Add(t.life / 2)
}

// Stats returns the counts.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	entries := s.entries.Len()
	s.mu.Unlock()
	return Stats{
		Hits: s.stats.hits.Load(), Misses: s.stats.misses.Load(),
		Exchanges: s.stats.exchanges.Load(), Failures: s.stats.failures.Load(),
		Waiting: s.stats.waiting.Load(), Running: s.stats.running.Load(),
		Entries: entries,
	}
}

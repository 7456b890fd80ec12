package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
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
)

// Config bounds a Source.
type Config struct {
	// Redeem is required.
	Redeem RedeemFunc
	// Credential, if set, describes the assertion that would be sent for a
	// key now (issuer, subject and key id, say), without being secret. A
	// remembered failure is void once the description changes. It is asked
	// at most once a second for a failing key.
	Credential func(ctx context.Context, key Key) string
	// Failed, if set, is told of each exchange that failed and that nobody
	// waited for: a renewal, which no reply tells of. It must not block.
	Failed func(key Key, err *Error)
	// Timeout bounds one exchange, its retries included. Zero means 10 s.
	Timeout time.Duration
	// Entries bounds the tokens held; the least recently used goes. Zero
	// means 4,096.
	Entries int
	// Concurrent bounds the exchanges under way; one identity has at most
	// three quarters of them. Zero means 32.
	Concurrent int
	// Waiting bounds the exchanges that wait for others; further ones are
	// refused with Throttled. Zero means 1,024.
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
	if c.Failed == nil {
		c.Failed = func(Key, *Error) {}
	}
	if c.Credential == nil {
		c.Credential = func(context.Context, Key) string { return "" }
	}
}

// Source hands out access tokens: from its cache, or by an exchange that all
// who ask for the same key share. A valid token is served whatever Entra says;
// an expired one never is. Tokens in use are renewed in the background, and
// failures are remembered, so that neither a caller nor Entra pays for another
// caller's impatience. It is safe for concurrent use. Close it after use.
type Source struct {
	cfg     Config
	base    context.Context // of every exchange; cancelled by Close
	cancel  context.CancelFunc
	queue   *queue
	running sync.WaitGroup // flights
	stats   counters

	mu        sync.Mutex // held across no call that blocks
	entries   *simplelru.LRU[Key, *entry]
	failures  *simplelru.LRU[Key, *failure]
	standings *simplelru.LRU[identity, *standing]
	flights   map[Key]*flight
	closed    bool
}

// entry is a token held. It is guarded by Source.mu; the token never changes.
type entry struct {
	token     Token
	renewLeft time.Duration // the renewal is due when no more life is left
	used      bool          // since the token came
	wanted    bool          // used, or made to replace one that was
	timer     *time.Timer   // of the renewal
	forced    time.Time     // when a caller last had the key exchanged, for a token; kept by the next entry
}

type counters struct {
	hits, misses, remembered, exchanges, failures, sourceFailures atomic.Uint64
	running                                                       atomic.Int64
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
	s := &Source{cfg: cfg, queue: newQueue(cfg.Concurrent, cfg.Waiting), flights: map[Key]*flight{}}
	var err error
	if s.entries, err = simplelru.NewLRU(cfg.Entries, func(_ Key, e *entry) { e.timer.Stop() }); err != nil {
		return nil, fmt.Errorf("exchange: making the cache: %w", err)
	}
	// Failures have a bound of their own: what fails must not push out what
	// works.
	if s.failures, err = simplelru.NewLRU[Key, *failure](cfg.Entries, nil); err != nil {
		return nil, fmt.Errorf("exchange: making the memory: %w", err)
	}
	if s.standings, err = simplelru.NewLRU[identity, *standing](cfg.Entries, nil); err != nil {
		return nil, fmt.Errorf("exchange: making the memory: %w", err)
	}
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
	s.mu.Lock()
	if e, ok := s.entries.Get(key); ok {
		if left := e.token.Left(now); left > margin {
			e.used = true
			return s.hit(ctx, key, e, left, now)
		}
	}
	return s.miss(ctx, key, now)
}

// hit serves a valid token; if its renewal is due, that is begun in the
// background. It is called with the lock held, and releases it.
func (s *Source) hit(ctx context.Context, key Key, e *entry, left time.Duration, now time.Time) (Token, error) {
	token := e.token
	var f *flight
	if left <= e.renewLeft && s.mayRenew(key, now) {
		f = s.renew(key)
		f.wanted = f.wanted || left <= floor
	}
	s.mu.Unlock()
	s.stats.hits.Add(1)
	if f == nil || left > floor {
		return token, nil
	}
	// Below the floor a new token is better, but not worth a long wait.
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if renewed, err := f.wait(ctx); err == nil {
		return renewed, nil
	}
	return token, nil
}

// miss waits for an exchange, unless one has just failed. It is called with the
// lock held, and releases it.
func (s *Source) miss(ctx context.Context, key Key, now time.Time) (Token, error) {
	f, ok := s.flights[key]
	if !ok {
		if failed, ok := s.failures.Get(key); ok && now.Before(failed.until) {
			return s.recall(ctx, key, failed, now)
		}
		f = s.fly(key)
	}
	f.wanted = true
	s.mu.Unlock()
	s.stats.misses.Add(1)
	return f.wait(ctx)
}

// recall answers with a remembered failure, unless what was sent then is not
// what would be sent now. It is called with the lock held, and releases it.
func (s *Source) recall(ctx context.Context, key Key, failed *failure, now time.Time) (Token, error) {
	compare := now.Sub(failed.checked) >= time.Second
	if compare {
		failed.checked = now
	}
	s.mu.Unlock()
	if !compare || s.credential(ctx, key) == failed.credential {
		s.stats.remembered.Add(1)
		return Token{}, failed.recall(now)
	}
	if ctx.Err() != nil { // the source may have said no more than that
		return Token{}, context.Cause(ctx)
	}
	s.mu.Lock()
	if current, _ := s.failures.Peek(key); current == failed {
		s.failures.Remove(key)
	}
	return s.miss(ctx, key, now)
}

// Stats counts since New. It is a snapshot, each number by itself.
type Stats struct {
	Hits, Misses        uint64 // calls of Token, answered from the cache or by an exchange
	Remembered          uint64 // calls of Token, answered with a failure that was remembered
	Exchanges, Failures uint64 // exchanges at Entra that ended, and those of them that failed
	SourceFailures      uint64 // exchanges that ended before Entra was asked: there was no assertion
	Running             int64  // exchanges under way
	Waiting             int    // exchanges that wait for a slot
	Entries             int    // tokens held
	Identities          []IdentityStats
}

// IdentityStats tells how an identity stands.
type IdentityStats struct {
	Tenant, ClientID string
	// LastSuccess is when an exchange last succeeded; zero if none has.
	LastSuccess time.Time
	// Autonomy is how long the tokens in use last without Entra: the life
	// left of the one that ends first; zero if one has ended. Tokens that
	// ended without having been used do not count.
	Autonomy time.Duration
	// InUse is how many tokens Autonomy is of.
	InUse int
}

// Stats returns the counts. Its cost grows with the cache: it is for scrapes.
func (s *Source) Stats() Stats {
	st := Stats{
		Hits: s.stats.hits.Load(), Misses: s.stats.misses.Load(), Remembered: s.stats.remembered.Load(),
		Exchanges: s.stats.exchanges.Load(), Failures: s.stats.failures.Load(),
		SourceFailures: s.stats.sourceFailures.Load(),
		Running:        s.stats.running.Load(), Waiting: s.queue.waits(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Entries = s.entries.Len()
	autonomy := s.autonomy(time.Now())
	for _, id := range s.standings.Keys() {
		known, _ := s.standings.Peek(id)
		one := autonomy[id]
		one.Tenant, one.ClientID, one.LastSuccess = id.tenant, id.clientID, known.lastSuccess
		st.Identities = append(st.Identities, one)
	}
	return st
}

// autonomy fills in, by identity, the least life left of a token in use, and how
// many there are.
func (s *Source) autonomy(now time.Time) map[identity]IdentityStats {
	all := map[identity]IdentityStats{}
	for _, key := range s.entries.Keys() {
		e, _ := s.entries.Peek(key)
		left := max(e.token.Left(now), 0)
		if !e.wanted || left == 0 && !e.used {
			continue
		}
		st := all[key.identity()]
		if st.InUse == 0 || left < st.Autonomy {
			st.Autonomy = left
		}
		st.InUse++
		all[key.identity()] = st
	}
	return all
}

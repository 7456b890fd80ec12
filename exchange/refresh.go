package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// refreshPause is the least time between two exchanges of one key that callers
// have forced, and that brought a token: an app that asks in a loop must not
// wear out Entra.
const refreshPause = 30 * time.Second

// Refresh is Token for a caller who was refused with the token that it got: it
// waits for an exchange, whose token takes the place of the one held. Unwanted
// is the token's SHA-256 in lower-case hexadecimal; another token than that is
// served as it is, since it came after. An empty one means whichever is held.
//
// A key is exchanged so once in 30 s. If the exchange fails the caller gets its
// error, and others keep the token held: one caller's word must not cost them a
// token that may be good, while Entra is down. While that failure is remembered,
// and while the identity is in trouble, Entra is not asked: who has named the
// token held gets the failure again, if there is one, and else the token.
func (s *Source) Refresh(ctx context.Context, key Key, unwanted string) (Token, error) {
	now := time.Now()
	s.mu.Lock()
	e, ok := s.entries.Get(key)
	if !ok || e.token.Left(now) <= margin {
		return s.miss(ctx, key, now)
	}
	e.used = true
	if now.Sub(e.forced) < refreshPause || !e.token.is(unwanted) {
		return s.hit(ctx, key, e, e.token.Left(now), now)
	}
	if !s.mayRenew(key, now) {
		if failed, ok := s.failures.Get(key); ok && unwanted != "" {
			return s.recall(ctx, key, failed, now)
		}
		return s.hit(ctx, key, e, e.token.Left(now), now)
	}
	f := s.renew(key)
	f.wanted, f.forced = true, now
	s.mu.Unlock()
	s.stats.misses.Add(1)
	return f.wait(ctx)
}

// is reports whether the token has the digest, or the digest is empty.
func (t Token) is(digest string) bool {
	if digest == "" {
		return true
	}
	sum := sha256.Sum256([]byte(t.Value.Reveal()))
	return hex.EncodeToString(sum[:]) == digest
}

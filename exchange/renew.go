package exchange

import "time"

// hold puts a token into the cache and arms its renewal: when Entra wants it,
// else half-way through its life, and in either case a little later, by chance,
// so that tokens that came together are not renewed together. The lock is held.
func (s *Source) hold(key Key, token Token, f *flight) {
	after := token.life / 2
	if !token.RefreshOn.IsZero() && token.RefreshOn.Before(token.ExpiresOn) {
		after = token.RefreshOn.Sub(token.NotBefore)
	}
	after += jitter((token.life - after) / 10)
	old, renewed := s.entries.Peek(key)
	if renewed {
		old.timer.Stop() // Add replaces without telling
	}
	e := &entry{token: token, renewLeft: token.life - after, used: f.wanted, wanted: f.wanted || renewed, forced: f.forced}
	if renewed && f.forced.IsZero() {
		e.forced = old.forced
	}
	e.timer = time.AfterFunc(time.Until(token.start.Add(after)), func() { s.due(key, e) })
	s.entries.Add(key, e)
}

// due begins the renewal of a token that is in use. One that is not costs
// nothing from here on: the next call renews it.
func (s *Source) due(key Key, e *entry) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if current, ok := s.entries.Peek(key); !ok || current != e || s.closed {
		return
	}
	if !e.used || e.token.Left(now) <= margin {
		return
	}
	if !s.mayRenew(key, now) {
		s.rearm(key, now)
		return
	}
	s.renew(key)
}

// renew joins the flight for key, or begins one that counts as a probe. The lock
// is held.
func (s *Source) renew(key Key) *flight {
	_, joins := s.flights[key]
	f := s.fly(key)
	f.probe = f.probe || !joins
	return f
}

// mayRenew reports whether a background renewal of key may begin. While the
// identity is in trouble, one of its keys at a time probes, at the trouble's
// pace; the others follow once a probe succeeds. The lock is held.
func (s *Source) mayRenew(key Key, now time.Time) bool {
	if _, ok := s.flights[key]; ok {
		return true // joins it
	}
	if failed, ok := s.failures.Peek(key); ok && now.Before(failed.until) {
		return false
	}
	known, ok := s.standings.Peek(key.identity())
	return !ok || known.trouble == nil || !now.Before(known.trouble.until) && !s.probing(key)
}

// probing reports whether a renewal of another key of the identity is under way.
// What callers wait for does not count: a resource that fails for ever would keep
// the identity's other tokens from being renewed.
func (s *Source) probing(key Key) bool {
	for other, f := range s.flights {
		if f.probe && other.identity() == key.identity() {
			return true
		}
	}
	return false
}

// localWait is the pace of renewals that fail before Entra is asked.
const localWait = 5 * time.Second

// rearm sets the timer of a token in use to when its renewal may be tried again,
// by chance up to half as late again. The lock is held.
func (s *Source) rearm(key Key, now time.Time) {
	e, ok := s.entries.Peek(key)
	if !ok || !e.used {
		return
	}
	wait := localWait
	if failed, ok := s.failures.Peek(key); ok {
		wait = max(wait, failed.until.Sub(now))
	}
	if known, ok := s.standings.Peek(key.identity()); ok && known.trouble != nil {
		wait = max(wait, known.trouble.until.Sub(now))
	}
	e.timer.Reset(wait + jitter(wait/2))
}

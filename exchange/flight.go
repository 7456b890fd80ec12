package exchange

import (
	"context"
	"errors"
	"time"
)

// flight is one exchange that all who want its key share.
type flight struct {
	done   chan struct{} // closed when token and err are set
	token  Token
	err    error
	wanted bool // somebody waits for it; guarded by Source.mu
	probe  bool // begun as a renewal; guarded by Source.mu
	// forced is when a caller last would not have the token held; guarded by
	// Source.mu.
	forced time.Time
}

// wait returns what the flight brings, or the cause of ctx.
func (f *flight) wait(ctx context.Context) (Token, error) {
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return Token{}, context.Cause(ctx)
	}
}

// fly joins the flight for key, or begins one on a context of its own: no caller
// who gives up takes it from the others. It is called with the lock held, so
// that between a look into the cache and this nothing can land.
func (s *Source) fly(key Key) *flight {
	if f, ok := s.flights[key]; ok {
		return f
	}
	f := &flight{done: make(chan struct{})}
	if s.closed {
		f.err = unavailable("svidecar is shutting down", "ask again")
		close(f.done)
		return f
	}
	s.flights[key] = f
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(s.base, s.cfg.Timeout)
		defer cancel()
		credential := s.credential(ctx, key)
		token, err := s.exchange(ctx, key)
		if wanted := s.land(key, f, credential, token, err); err != nil && !wanted {
			s.cfg.Failed(key, err)
		}
	})
	return f
}

// exchange redeems within the bounds.
func (s *Source) exchange(ctx context.Context, key Key) (Token, *Error) {
	if err := s.queue.acquire(ctx, key.identity()); err != nil {
		return Token{}, whyNotStarted(err)
	}
	defer s.queue.release(key.identity())
	s.stats.running.Add(1)
	defer s.stats.running.Add(-1)
	token, err := s.persist(ctx, key)
	switch {
	case err != nil && err.origin == atSource:
		s.stats.sourceFailures.Add(1)
		return token, err
	case err != nil:
		s.stats.failures.Add(1)
	}
	s.stats.exchanges.Add(1)
	return token, err
}

// credential is Config.Credential, contained as attempt is.
func (s *Source) credential(ctx context.Context, key Key) (description string) {
	defer func() {
		if p := recover(); p != nil {
			description = ""
		}
	}()
	return s.cfg.Credential(ctx, key)
}

func whyNotStarted(err error) *Error {
	if errors.Is(err, errCrowded) {
		return &Error{Kind: Throttled, Cause: "too many different tokens are asked for at once", Fix: "ask again; find what asks for so many resources", origin: atBound}
	}
	return &Error{Kind: Unavailable, Cause: "no exchange could be started in time", Fix: "other exchanges hang: see their errors", origin: atBound}
}

// Pauses between attempts of one exchange, when Entra refuses a credential that
// works.
const (
	firstPause  = 250 * time.Millisecond
	maxAttempts = 4
)

// persist tries again, within the deadline, what Entra refuses now and then for
// a credential that has worked.
func (s *Source) persist(ctx context.Context, key Key) (Token, *Error) {
	for attempt := 1; ; attempt++ {
		token, err := s.attempt(ctx, key)
		if err == nil || !s.believes(key, err) {
			return token, err
		}
		// Not Entra's last word on a credential that works.
		doubted := *err
		doubted.Kind = Unavailable
		if attempt == maxAttempts || err.class() == spreading {
			return token, &doubted
		}
		pause := firstPause << (attempt - 1)
		select {
		case <-time.After(pause/2 + jitter(pause)):
		case <-ctx.Done():
			return token, &doubted
		}
	}
}

// believes reports whether a refusal may pass by itself.
func (s *Source) believes(key Key, err *Error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.standings.Peek(key.identity())
	return ok && known.believes(err, time.Now())
}

// attempt calls Redeem once. A panic in there would end the process, and with it
// every app's identity, for a fault that concerns one key.
func (s *Source) attempt(ctx context.Context, key Key) (token Token, failed *Error) {
	defer func() {
		if p := recover(); p != nil {
			token, failed = Token{}, unavailable("an internal error stopped the exchange", "report this as a fault of svidecar")
		}
	}()
	token, err := s.cfg.Redeem(ctx, key)
	switch {
	case errors.As(err, &failed):
		return Token{}, failed
	case err != nil:
		return Token{}, unavailable("the exchange failed for an unknown reason", "report this as a fault of svidecar")
	case token.Left(time.Now()) <= margin:
		return Token{}, unavailable("the token that Entra issued had expired when it came", "check the clock, and the network's delay; the next request tries again")
	}
	return token, nil
}

// land stores what the flight brought and lets those who wait go on. A failure
// never touches a token that is still good. It returns whether somebody waited.
func (s *Source) land(key Key, f *flight, credential string, token Token, err *Error) (wanted bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	delete(s.flights, key)
	if f.token = token; err != nil {
		f.err = err
	}
	if s.closed {
		return true
	}
	known := s.standing(key)
	if err == nil && known.trouble != nil {
		s.forgive(key.identity())
	}
	known.note(err, now, f.probe)
	switch {
	case err == nil:
		s.failures.Remove(key)
		s.hold(key, token, f)
		return f.wanted
	case err.origin != atBound:
		before, _ := s.failures.Peek(key)
		s.failures.Add(key, before.after(err, credential, now))
	}
	s.rearm(key, now)
	return f.wanted
}

// forgive drops the transient failures of an identity's keys once one of them has
// worked again: what they failed on is over. Those that Entra gave a time for keep
// it. The lock is held.
func (s *Source) forgive(id identity) {
	for _, key := range s.failures.Keys() {
		if failed, ok := s.failures.Peek(key); ok && key.identity() == id && failed.err.Kind.Temporary() && failed.err.RetryAfter == 0 {
			s.failures.Remove(key)
		}
	}
}

// standing returns the identity's, made if it is new. The lock is held.
func (s *Source) standing(key Key) *standing {
	known, ok := s.standings.Get(key.identity())
	if !ok {
		known = &standing{}
		s.standings.Add(key.identity(), known)
	}
	return known
}

package exchange_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/exchange"
)

func digestOf(token exchange.Token) string {
	sum := sha256.Sum256([]byte(token.Value.Reveal()))
	return hex.EncodeToString(sum[:])
}

func mustRefresh(t *testing.T, s *exchange.Source, key exchange.Key, unwanted string) exchange.Token {
	t.Helper()
	token, err := s.Refresh(t.Context(), key, unwanted)
	if err != nil {
		t.Fatalf("Refresh(%v): %v", key, err)
	}
	return token
}

// TestRefreshReplacesTheNamedToken: the token that a client was refused with is
// not given to anybody any more, once there is another.
func TestRefreshReplacesTheNamedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		second := mustRefresh(t, s, key, digestOf(first))
		if second.Value.Equal(first.Value.Reveal()) || entra.count(key) != 2 {
			t.Fatalf("Refresh gave %v after %d exchanges, want another token after 2", second, entra.count(key))
		}
		time.Sleep(time.Minute) // past the pause
		for _, unwanted := range []string{digestOf(first), digestOf(keyless(t, s))} {
			if got := mustRefresh(t, s, key, unwanted); !got.Value.Equal(second.Value.Reveal()) {
				t.Error("a token that was not named was replaced")
			}
		}
		if got := mustToken(t, s, key); !got.Value.Equal(second.Value.Reveal()) || entra.count(key) != 2 {
			t.Errorf("Token gives another token than the new one, after %d exchanges", entra.count(key))
		}
	})
}

// keyless is some other key's token.
func keyless(t *testing.T, s *exchange.Source) exchange.Token {
	t.Helper()
	return mustToken(t, s, keyOf("other"))
}

// TestRefreshIsBounded: an app that asks in a loop causes one exchange in 30 s,
// whatever it names.
func TestRefreshIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		mustToken(t, s, key)
		for range 600 { // one minute
			mustRefresh(t, s, key, "")
			mustRefresh(t, s, key, digestOf(mustToken(t, s, key)))
			time.Sleep(100 * time.Millisecond)
		}
		if n := entra.count(key); n != 3 {
			t.Errorf("%d exchanges in a minute, want the first and 2", n)
		}
	})
}

// TestRefreshOutlastsRenewal: the pause is the key's, not the token's.
func TestRefreshOutlastsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{life: time.Hour, refresh: 10 * time.Second}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		mustToken(t, s, key)
		time.Sleep(9 * time.Second)
		mustRefresh(t, s, key, "") // at 9 s: the second exchange
		entra.set(func() { entra.refresh = time.Second })
		time.Sleep(29 * time.Second)
		before := entra.count(key)
		mustRefresh(t, s, key, "")
		if n := entra.count(key); n != before {
			t.Errorf("29 s after a forced exchange another was forced")
		}
	})
}

func TestRefreshIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{takes: time.Second}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		done := make(chan struct{})
		for range 100 {
			go func() {
				defer func() { done <- struct{}{} }()
				mustRefresh(t, s, key, digestOf(first))
			}()
		}
		for range 100 {
			<-done
		}
		if n := entra.count(key); n != 2 {
			t.Errorf("%d exchanges for 100 callers, want 2", n)
		}
	})
}

// TestRefreshFailsForItsCallerAlone: while Entra is down nobody else loses the
// token that is held, and the caller is not told to go on with it at once.
func TestRefreshFailsForItsCallerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		entra.set(func() { entra.err = errDown })
		if token, err := s.Refresh(t.Context(), key, digestOf(first)); err == nil {
			t.Errorf("Refresh while Entra is down = %v", token)
		}
		if got := mustToken(t, s, key); !got.Value.Equal(first.Value.Reveal()) {
			t.Error("others lost the token that was held")
		}
		entra.set(func() { entra.err = nil })
		time.Sleep(31 * time.Second)
		if got := mustRefresh(t, s, key, digestOf(first)); got.Value.Equal(first.Value.Reveal()) {
			t.Error("Refresh gives the named token once Entra is back")
		}
	})
}

// TestRefreshHeedsRetryAfter: what Entra has asked for goes before what a client
// wants.
func TestRefreshHeedsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		entra.set(func() {
			entra.err = &exchange.Error{Kind: exchange.Throttled, Cause: "busy", RetryAfter: 2 * time.Minute}
		})
		if token, err := s.Refresh(t.Context(), key, ""); err == nil {
			t.Fatalf("Refresh while Entra throttles = %v", token)
		}
		time.Sleep(time.Minute)
		if got := mustRefresh(t, s, key, ""); !got.Value.Equal(first.Value.Reveal()) || entra.count(key) != 2 {
			t.Errorf("%d exchanges within the time that Entra asked for, want the first and the one it refused", entra.count(key))
		}
	})
}

func TestRefreshWithoutToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		mustRefresh(t, s, key, "")
		if n := entra.count(key); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
	})
}

// TestRefreshServesNoExpiredToken: the pause is no reason to.
func TestRefreshServesNoExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{life: 20 * time.Second}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		mustToken(t, s, key)
		mustRefresh(t, s, key, "")
		entra.set(func() { entra.err = errDown })
		time.Sleep(21 * time.Second)
		if token, err := s.Refresh(t.Context(), key, ""); err == nil {
			t.Errorf("Refresh gives a token with %v left", token.Left(time.Now()))
		}
	})
}

// TestRefreshHeedsTheIdentity: what Entra has asked of an identity goes for each
// of its resources. Their tokens go on being served, and afterwards one exchange
// at a time finds out whether it is over.
func TestRefreshHeedsTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra := &authority{}
		s := newSource(t, entra, exchange.Config{})
		keys, before := make([]exchange.Key, 20), 0
		held := make([]exchange.Token, len(keys))
		for i := range keys {
			keys[i] = keyOf("a")
			keys[i].Scope = fmt.Sprintf("https://r%d/.default", i)
			held[i] = mustToken(t, s, keys[i])
		}
		count := func() (n int) {
			for _, key := range keys {
				n += entra.count(key)
			}
			return n - before
		}
		before = count()
		entra.set(func() {
			entra.err = &exchange.Error{Kind: exchange.Throttled, Cause: "busy", RetryAfter: 2 * time.Minute}
		})
		if token, err := s.Refresh(t.Context(), keys[0], digestOf(held[0])); err == nil {
			t.Fatalf("Refresh while Entra throttles = %v", token)
		}
		for i, key := range keys[1:] {
			if got := mustRefresh(t, s, key, digestOf(held[i+1])); !got.Value.Equal(held[i+1].Value.Reveal()) {
				t.Errorf("key %d got another token", i+1)
			}
		}
		if n := count(); n != 1 {
			t.Errorf("%d exchanges by an identity that was told to wait, want 1", n)
		}
		time.Sleep(2*time.Minute + time.Second)
		entra.set(func() { entra.takes = time.Second })
		for _, key := range keys {
			go func() { _, _ = s.Refresh(t.Context(), key, "") }()
		}
		synctest.Wait()
		if n := count(); n != 2 {
			t.Errorf("%d exchanges once the time is over, want 1 more", n)
		}
		time.Sleep(2 * time.Second)
	})
}

// TestRefreshTriesAgain: a failure does not use up the 30 s. Until the next
// exchange the named token is not given to who was refused with it.
func TestRefreshTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		entra.set(func() { entra.err = errDown })
		for range 10 {
			if token, err := s.Refresh(t.Context(), key, digestOf(first)); err == nil {
				t.Fatalf("Refresh while Entra is down = %v", token)
			}
		}
		if n := entra.count(key); n != 2 {
			t.Errorf("%d exchanges by 10 calls at once, want the first and 1", n)
		}
		if got := mustRefresh(t, s, key, ""); !got.Value.Equal(first.Value.Reveal()) {
			t.Error("who names no token does not get the one held")
		}
		entra.set(func() { entra.err = nil })
		time.Sleep(time.Second)
		second := mustRefresh(t, s, key, digestOf(first))
		if second.Value.Equal(first.Value.Reveal()) {
			t.Error("a second later Refresh gives the token that was named")
		}
		if got := mustRefresh(t, s, key, digestOf(second)); !got.Value.Equal(second.Value.Reveal()) {
			t.Error("within 30 s of an exchange there was another")
		}
	})
}

// TestRefreshOfTheRefused: an identity that is refused for good does not get by
// with the token held.
func TestRefreshOfTheRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entra, key := &authority{}, keyOf("a")
		s := newSource(t, entra, exchange.Config{})
		first := mustToken(t, s, key)
		entra.set(func() { entra.err = &exchange.Error{Kind: exchange.Refused, Cause: "disabled"} })
		for range 20 {
			if token, err := s.Refresh(t.Context(), key, digestOf(first)); err == nil {
				t.Fatalf("Refresh of an identity that is refused = %v", token)
			}
			time.Sleep(time.Second)
		}
		if n := entra.count(key); n > 5 {
			t.Errorf("%d exchanges in 20 s", n)
		}
	})
}

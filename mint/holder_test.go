package mint_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLocalSignerHangsOnceForACaller: an exchange asks twice, first to describe the
// assertion and then for it, and waited two seconds.
func TestLocalSignerHangsOnceForACaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := localConfig(t)
		key, gate := &signer{Signer: cfg.Signer}, make(chan struct{})
		cfg.Signer = key
		local := newLocal(t, cfg)
		first, err := local.Assertion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key.wait.Store(&gate)
		time.Sleep(4 * time.Minute) // of 5: past half-life
		for i, want := range []time.Duration{time.Second, 0, 0} {
			start := time.Now()
			got, err := local.Assertion(t.Context())
			if took := time.Since(start); err != nil || !got.Value.Equal(first.Value.Reveal()) || took != want {
				t.Errorf("call %d: %v after %v, want the old assertion after %v", i, err, took, want)
			}
		}
		close(gate)
		synctest.Wait()
		next := make(chan struct{})
		key.wait.Store(&next)
		time.Sleep(4 * time.Minute)
		start := time.Now()
		if _, err := local.Assertion(t.Context()); err != nil || time.Since(start) != time.Second {
			t.Errorf("the next signature: %v after %v, want a second of patience anew", err, time.Since(start))
		}
		close(next)
	})
}

package mint_test

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/svidecar/svidecar/mint"
)

// ring is a set of keys of which one is offered at a time, or an error.
type ring struct {
	offered atomic.Pointer[crypto.Signer]
	calls   atomic.Int32
}

var errNoKey = errors.New("no key was published yet:\nrun svidecar keys export")

func (r *ring) offer(key crypto.Signer) { r.offered.Store(&key) }

func (r *ring) keys() (crypto.Signer, error) {
	r.calls.Add(1)
	if key := r.offered.Load(); key != nil {
		return *key, nil
	}
	return nil, errNoKey
}

func newLocalOf(t *testing.T, r *ring) *mint.Local {
	t.Helper()
	cfg := localConfig(t)
	cfg.Signer, cfg.Keys = nil, r.keys
	return newLocal(t, cfg)
}

func assertionBy(t *testing.T, local *mint.Local, key crypto.Signer) mint.Assertion {
	t.Helper()
	got, err := local.Assertion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := mint.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if got.Claims.KeyID != want {
		t.Errorf("the assertion is of key %s, want %s", got.Claims.KeyID, want)
	}
	return got
}

func TestNewLocalWantsOneKindOfKey(t *testing.T) {
	cfg := localConfig(t)
	cfg.Keys = new(ring).keys
	if _, err := mint.NewLocal(cfg); err == nil || !strings.HasPrefix(err.Error(), "mint: LocalConfig.Keys") {
		t.Errorf("NewLocal with Signer and Keys = %v", err)
	}
}

func TestLocalWithoutAKey(t *testing.T) {
	r := new(ring)
	local := newLocalOf(t, r) // although there is no key yet
	if r.calls.Load() != 0 {
		t.Error("NewLocal asks for the key")
	}
	_, err := local.Assertion(t.Context())
	checkError(t, err, "", errNoKey, true, "no key was published yet: run svidecar keys export")
	if local.Public() != nil {
		t.Errorf("Public without a key = %v", local.Public())
	}
	for name, key := range map[string]crypto.Signer{"nil": nil, "small": publicOnly{rsaOfBits(1024)}, "no public key": publicOnly{nil}} {
		r.offer(key)
		_, err := local.Assertion(t.Context())
		var refused *mint.Error
		if !errors.As(err, &refused) || !refused.Temporary() {
			t.Errorf("%s: Assertion = %v, want a temporary refusal", name, err)
		}
	}
	r.offer(testKey(t))
	assertionBy(t, local, testKey(t))
	if pub, ok := local.Public().(*rsa.PublicKey); !ok || !pub.Equal(testKey(t).Public()) {
		t.Errorf("Public = %v, want the key that is offered", local.Public())
	}
}

// TestLocalDropsAssertionsOfOldKeys: a key that is no longer offered may have been
// stolen. What it signed serves nobody any more, whatever the new key does.
func TestLocalDropsAssertionsOfOldKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, first, second := new(ring), &signer{Signer: testKey(t)}, &signer{Signer: otherKey(t)}
		local := newLocalOf(t, r)
		r.offer(first)
		old := assertionBy(t, local, first)
		if again := assertionBy(t, local, first); !again.Value.Equal(old.Value.Reveal()) || first.calls.Load() != 1 {
			t.Error("the assertion of a key that is still offered is not reused")
		}

		r.offer(second)
		second.fail.Store(true)
		for range 2 {
			_, err := local.Assertion(t.Context())
			checkError(t, err, "", errSigner, true, "TPM_RC_LOCKOUT")
		}
		second.fail.Store(false)
		fresh := assertionBy(t, local, second)

		r.offered.Store(nil)
		_, err := local.Assertion(t.Context())
		checkError(t, err, "", errNoKey, true)

		r.offer(second)
		if again := assertionBy(t, local, second); !again.Value.Equal(fresh.Value.Reveal()) {
			t.Error("an assertion of the same key is not reused after the key was away")
		}
	})
}

// A signing that was under way when the key changed must neither be waited for nor
// be taken.
func TestLocalKeyChangesWhileSigning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, slow, gate := new(ring), &signer{Signer: testKey(t)}, make(chan struct{})
		slow.wait.Store(&gate)
		local := newLocalOf(t, r)
		r.offer(slow)
		var early sync.WaitGroup
		early.Go(func() { _, _ = local.Assertion(t.Context()) })
		synctest.Wait()

		r.offer(otherKey(t))
		start := time.Now()
		assertionBy(t, local, otherKey(t))
		if time.Since(start) > 0 {
			t.Error("the new key waits for the old one")
		}
		close(gate) // the old one's assertion comes last
		early.Wait()
		assertionBy(t, local, otherKey(t))
	})
}

// Another signer of the same key is one to use: a token may have been opened anew.
func TestLocalTakesAnotherSignerOfTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, broken, works := new(ring), &signer{Signer: testKey(t)}, &signer{Signer: testKey(t)}
		local := newLocalOf(t, r)
		r.offer(broken)
		assertionBy(t, local, broken)
		broken.fail.Store(true)
		r.offer(works)
		time.Sleep(4 * time.Minute)
		assertionBy(t, local, works)
		if works.calls.Load() != 1 {
			t.Errorf("the signer that is offered was asked %d times", works.calls.Load())
		}
	})
}

package mint_test

import (
	"crypto"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/mint"
)

// svidBy is a good JWT-SVID of subject, signed by a key under any kid.
func svidBy(t testing.TB, key crypto.Signer, kid string, issued time.Time, life time.Duration) string {
	t.Helper()
	signed := b64(`{"alg":"RS256","kid":"`+kid+`","typ":"JWT"}`) + "." + b64(payload(issued, issued.Add(life)))
	digest := sha256.Sum256([]byte(signed))
	signature, err := key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(string(signature))
}

// trusting is a script that issues raw, with these keys in the bundle.
func trusting(t testing.TB, raw string, keys map[string]crypto.PublicKey) script {
	t.Helper()
	data, err := jwtbundle.FromJWTAuthorities(spiffeid.RequireTrustDomainFromString("example.org"), keys).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	s := only(raw)
	s.bundles = map[string][]byte{"spiffe://example.org": data}
	return s
}

// TestWorkloadKeyRotates goes through SPIRE's steps: a new key is prepared, signs,
// and the old one is tainted and then revoked.
func TestWorkloadKeyRotates(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address, VerifyBundle: true})
	older, newer := testKey(t), otherKey(t)
	now := time.Now()
	byOld := svidBy(t, older, "k1", now.Add(-time.Hour), time.Hour+time.Minute) // past half of its life
	byNew := svidBy(t, newer, "k2", now.Add(-time.Hour), time.Hour+2*time.Minute)
	one := map[string]crypto.PublicKey{"k1": older.Public()}
	two := map[string]crypto.PublicKey{"k1": older.Public(), "k2": newer.Public()}
	for _, step := range []struct {
		name string
		s    script
		kid  string
	}{
		{"before", trusting(t, byOld, one), "k1"},
		{"prepared", trusting(t, byOld, two), "k1"},
		{"activated, but the agent has its copy", trusting(t, byOld, two), "k1"},
		{"tainted: the agent has dropped its copy", trusting(t, byNew, two), "k2"},
		{"revoked", trusting(t, byNew, map[string]crypto.PublicKey{"k2": newer.Public()}), "k2"},
		{"an agent that is behind: its copy is by the revoked key", trusting(t, byOld, map[string]crypto.PublicKey{"k2": newer.Public()}), "k2"},
	} {
		a.play(step.s)
		if got := mustAssert(t, w); got.Claims.KeyID != step.kid {
			t.Errorf("%s: kid %s, want %s", step.name, got.Claims.KeyID, step.kid)
		}
	}
	_, err := w.Fresh(t.Context())
	checkRefused(t, err, true, "no key of this kid", "k1")
	checkNoLeak(t, err, byOld)

	a.play(trusting(t, svidBy(t, older, "k2", now, time.Hour), two))
	_, err = w.Fresh(t.Context())
	checkRefused(t, err, false, "signature does not fit", "do not trust this socket")
	a.play(trusting(t, byNew, two))
	if got, err := w.Fresh(t.Context()); err != nil || got.Claims.KeyID != "k2" {
		t.Errorf("in the end: kid %s, error %v", got.Claims.KeyID, err)
	}
}

// TestWorkloadHeldOutlivesItsKey is the limit of what is held: a key that is revoked
// at once goes on signing what Entra is shown, to half of its life or to the next
// refusal for its time.
func TestWorkloadHeldOutlivesItsKey(t *testing.T) {
	a := startAgent(t)
	w := newWorkload(t, mint.WorkloadConfig{Address: a.address, VerifyBundle: true})
	a.play(trusting(t, svidBy(t, testKey(t), "k1", time.Now(), time.Hour), map[string]crypto.PublicKey{"k1": testKey(t).Public()}))
	held := mustAssert(t, w)
	a.play(trusting(t, svidBy(t, otherKey(t), "k2", time.Now(), time.Hour), map[string]crypto.PublicKey{"k2": otherKey(t).Public()}))
	if got := mustAssert(t, w); !same(got, held) {
		t.Error("before half of its life another assertion is served")
	}
	if got, err := w.Fresh(t.Context()); err != nil || got.Claims.KeyID != "k2" {
		t.Errorf("Fresh: kid %s, error %v; want the new key", got.Claims.KeyID, err)
	}
}

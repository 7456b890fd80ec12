package chaos_test

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// TestChaos breaks one thing at a time.
func TestChaos(t *testing.T) {
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			if f.ownCloud && !canStop {
				t.Skip("this system cannot stop a process")
			}
			t.Parallel()
			newWorld(t, form, f.ownCloud, f.named).endure(t, f)
		})
	}
}

// TestStopInTheDark: exchanges that hang do not keep the sidecar from ending.
func TestStopInTheDark(t *testing.T) {
	t.Parallel()
	w := newWorld(t, form, false, false)
	w.startClients()
	w.warm(t)
	w.link.set(weather{hole: true})
	w.pass(form.fault / 2)
	w.hangUp()
	w.check(t, w.ledger.turn(), fault{})
	if err := w.sidecar.end(form.timeout + 5*time.Second); err != nil {
		t.Error(err)
	}
}

// warm waits until every token has come, and then some. All scenarios begin at
// once, so that the emulator may be slow at first; but nothing is lost.
func (w *world) warm(t *testing.T) {
	t.Helper()
	const most = 20 * time.Second
	served := func() []string { return w.missing(func(_ *key, s state) bool { return !s.lastOK.IsZero() }) }
	if !w.until(most, func() bool { return len(served()) == 0 }) {
		noted := w.ledger.turn()
		w.check(t, noted, fault{})
		t.Fatalf("after %v, before any fault, no token came for %q; the last failure: %s\n%s", most, served(), noted.sample, w.sidecar.last())
	}
	w.pass(w.form.before)
	w.check(t, w.ledger.turn(), fault{})
}

// endure runs one scenario and holds it to what doc.go promises.
func (w *world) endure(t *testing.T, f fault) {
	w.startClients()
	w.warm(t)
	before := w.rest(t)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := time.Now()
	done, err := f.begin(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	w.pass(w.form.fault)
	cancel()
	done()
	exchanges := w.rest(t).exchanges - before.exchanges
	outage := time.Since(begun)
	mended := time.Now()
	if err := f.mend(w); err != nil {
		t.Fatal(err)
	}
	recovered := w.recover(t, f, mended, outage)
	after := w.rest(t)

	noted := w.ledger.turn()
	w.check(t, noted, f)
	most := w.exchangeBound(f, outage, noted)
	if exchanges > most {
		t.Errorf("%.0f exchanges in %v of %s, want at most %.0f", exchanges, outage, f.name, most)
	}
	if grown := after.memory - before.memory; grown > w.form.growth {
		t.Errorf("the fault left %.1f MB behind, want at most %.1f MB", grown/1e6, w.form.growth/1e6)
	}
	all, failed := noted.requests()
	t.Logf("%s: %d requests, %d of them without a valid token not served %v, slowest with one %v, with a fresh one %v; %.0f exchanges of at most %.0f; whole again after %v; memory %.1f → %.1f MB, goroutines %.0f → %.0f; the last failure: %.250s",
		f.name, all, failed-noted.lost.count, noted.statuses, noted.slowest.Round(time.Millisecond), noted.fresh.Round(time.Millisecond), exchanges, most, recovered.Round(time.Millisecond),
		before.memory/1e6, after.memory/1e6, before.goroutines, after.goroutines, noted.sample)
	w.finish(t)
}

func (w *world) rest(t *testing.T) rest {
	t.Helper()
	r, err := w.sidecar.rest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// exchangeBound is the most exchanges of an outage: two for each key, and one a
// second. Where the source of assertions fails, the sidecar's count is that of
// looks at the file, which it takes again for each request that wants a new token,
// and which Entra never hears of.
func (w *world) exchangeBound(f fault, outage time.Duration, noted *ledger) float64 {
	most := float64(len(w.keys)) * (2 + outage.Seconds())
	if all, _ := noted.requests(); f.refusal {
		most = max(most, float64(all))
	}
	return most
}

// recoveryBound is how soon after an outage all must be whole. A failure is
// remembered for at most as long as the failures before it took together, and for
// no more than 20 s; an exchange may be under way, and hang; and then a token's
// renewal must be due.
func (w *world) recoveryBound(f fault, outage time.Duration) time.Duration {
	const remembered, slack = 20 * time.Second, 3 * time.Second
	bound := min(outage+w.form.timeout, remembered) + w.form.timeout + slack
	if f.late != nil {
		bound += f.late(w.form)
	}
	return bound
}

// recover waits until every key is served, and those whose renewals were due have a
// new token; and then until nothing has failed for a while. It returns when that
// began.
func (w *world) recover(t *testing.T, f fault, mended time.Time, outage time.Duration) time.Duration {
	t.Helper()
	bound := w.recoveryBound(f, outage)
	long := len(w.form.classes()) - 1
	broken := func() []string {
		return w.missing(func(k *key, s state) bool {
			renewed := k.class == long || s.renewed.After(mended)
			return renewed && s.lastOK.After(mended) && s.lastOK.After(s.lastFail)
		})
	}
	due := w.form.medium.refresh + (w.form.medium.life-w.form.medium.refresh)/10
	if !w.until(bound+due, func() bool { return len(broken()) == 0 }) {
		t.Errorf("%v after %s ended, not whole again: %q; the last failure: %s", bound+due, f.name, broken(), w.ledger.turn().sample)
	}
	w.pass(w.form.after)
	last := w.lastFailure(mended)
	if last > bound {
		t.Errorf("%v after %s ended a request failed, want none after %v", last, f.name, bound)
	}
	return last
}

// lastFailure is how long after the fault's end a request last failed; zero if none
// did.
func (w *world) lastFailure(mended time.Time) (last time.Duration) {
	for _, k := range w.keys {
		if at := k.state().lastFail; at.After(mended) {
			last = max(last, at.Sub(mended))
		}
	}
	return last
}

// check holds what clients noted to what was promised.
func (w *world) check(t *testing.T, noted *ledger, f fault) {
	t.Helper()
	for what, c := range map[string]complaints{"wrong tokens": noted.wrong, "requests lost while a valid token existed": noted.lost, "requests served late": noted.slow} {
		if c.count > 0 {
			t.Errorf("%d %s, such as %q", c.count, what, c.first)
		}
	}
	if noted.fresh > w.form.fresh {
		t.Errorf("a request took %v while a token was as good as new, want at most %v", noted.fresh, w.form.fresh)
	}
	all, failed := noted.requests()
	switch {
	case all == 0 && !f.refusal:
		t.Error("no client asked for anything")
	case f.seamless && failed > 0:
		t.Errorf("%d of %d requests failed, want none: %v; the last: %s", failed, all, noted.statuses, noted.sample)
	case f.local && noted.failed[ownSource] > 0:
		t.Errorf("%d requests failed of an identity that needs no token file", noted.failed[ownSource])
	}
	for status := range noted.statuses {
		right := status == http.StatusOK || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests || status == http.StatusBadRequest && f.refusal
		if !right {
			t.Errorf("%d replies with status %d; the last failure: %s", noted.statuses[status], status, noted.sample)
		}
	}
	if n := w.liar.heard.Load(); n > 0 {
		t.Errorf("an impostor was sent %d requests", n)
	}
	for _, line := range w.sidecar.complaints() {
		t.Errorf("the sidecar's log says %s", line)
	}
}

// finish sends the clients home and cuts what connections to Entra are idle, and
// wants everything gone that served them.
func (w *world) finish(t *testing.T) {
	t.Helper()
	w.hangUp()
	const slack = 5
	var now float64
	quiet := func() bool {
		w.link.cut()
		now = w.rest(t).goroutines
		return now <= w.idle.goroutines+slack
	}
	if !w.until(w.form.timeout+5*time.Second, quiet) {
		t.Errorf("%.0f goroutines without any client, want no more than %d over the %.0f before there was one", now, slack, w.idle.goroutines)
	}
	if err := w.sidecar.end(10 * time.Second); err != nil {
		t.Error(err)
	}
}

package keydir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint/keydir"
)

// TestLife leads two keys through their lives, at the edges of each state.
func TestLife(t *testing.T) {
	const day = 24 * time.Hour
	none := func(*fixture) {}
	publish := func(f *fixture) { f.publish() }
	rotate := func(f *fixture) { f.rotate() }
	prune := func(f *fixture) { _, err := f.Prune(f.t.Context()); f.must(err) }
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		for i, row := range []struct {
			after                    time.Duration
			do                       func(*fixture)
			states, signer, document string
			next                     time.Duration // to the next change; 0 if none is to come
		}{
			{0, none, "A:pending", "", "A", 0},
			{3 * day, none, "A:pending", "", "A", 0},
			{0, publish, "A:active", "A", "A", 0},
			{0, publish, "A:active", "A", "A", 0},
			{90 * day, none, "A:active", "A", "A", 0},
			{0, rotate, "A:active B:pending", "A", "AB", 0},
			{5 * day, none, "A:active B:pending", "A", "AB", 0},
			{0, publish, "A:active B:published", "A", "AB", day},
			{time.Hour, publish, "A:active B:published", "A", "AB", 23 * time.Hour},
			{23*time.Hour - 1, none, "A:active B:published", "A", "AB", 1},
			{1, none, "B:active A:retired", "B", "BA", linger},
			{linger - 1, prune, "B:active A:retired", "B", "BA", 1},
			{1, none, "B:active", "B", "B", 0},
			{0, prune, "B:active", "B", "B", 0},
			{0, rotate, "B:active C:pending", "B", "BC", 0},
			{time.Nanosecond, publish, "B:active C:published", "B", "BC", day + time.Second - 1}, // whole seconds, never early
			{2 * day, none, "C:active", "C", "C", 0},
			{0, rotate, "C:active D:pending", "C", "CD", 0},
		} {
			time.Sleep(row.after)
			row.do(f)
			next := time.Duration(0)
			if at := f.NextChange(); !at.IsZero() {
				next = time.Until(at)
			}
			if f.states() != row.states || f.signer() != row.signer || f.document() != row.document || next != row.next {
				t.Fatalf("row %d: %s, signer %q, document %s, next change in %v;\nwant %s, signer %q, document %s, next change in %v",
					i, f.states(), f.signer(), f.document(), next, row.states, row.signer, row.document, row.next)
			}
			other, err := keydir.Open(f.Path())
			f.must(err)
			if diff := cmp.Diff(f.Keys(), other.Keys()); diff != "" {
				t.Fatalf("row %d: another process sees it differently:\n%s", i, diff)
			}
		}
		if got, want := f.files(), ".lock A.pem B.pem C.pem D.pem keys.json"; got != want {
			t.Errorf("the directory holds %s, want %s: files stay for 7 days", got, want)
		}
		time.Sleep(keep)
		publish(f)
		if got, want := f.files(), ".lock C.pem D.pem keys.json"; got != want {
			t.Errorf("the directory holds %s, want %s: each writer removes what is over", got, want)
		}
	})
}

func TestKeyTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now().UTC()
		f := create(t, time.Hour)
		time.Sleep(time.Minute)
		f.publish()
		time.Sleep(time.Minute)
		f.rotate()
		time.Sleep(time.Minute)
		f.publish()
		at := func(d time.Duration) time.Time { return start.Add(d) }
		want := []keydir.Key{
			{ID: f.kid("A"), State: keydir.Active, Bits: 2048, Created: at(0), Published: at(time.Minute), SignsFrom: at(time.Minute),
				RetiredAt: at(63 * time.Minute), RemovedAt: at(128 * time.Minute), Public: keyAt(0).Public()},
			{ID: f.kid("B"), State: keydir.Published, Bits: 2048, Created: at(2 * time.Minute), Published: at(3 * time.Minute), SignsFrom: at(63 * time.Minute), Public: keyAt(1).Public()},
		}
		if diff := cmp.Diff(want, f.Keys()); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
	})
}

func TestNoSignerSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		_, err := f.Signer()
		if err == nil || !strings.Contains(err.Error(), "run svidecar keys export, or svidecar issuer, first") {
			t.Errorf("Signer before publication = %v", err)
		}
		checkOneLine(t, err)
		key, err := f.UnsafeSigner()
		if err != nil || f.name(kidOf(t, key.Public())) != "A" {
			t.Errorf("UnsafeSigner before publication: %v", err)
		}
		f.publish()
		f.rotate()
		if key, err := f.UnsafeSigner(); err != nil || f.name(kidOf(t, key.Public())) != "B" {
			t.Errorf("UnsafeSigner is not the newest key: %v", err)
		}
	})
}

// A clock that was set back must not make two keys of one time, nor let a key
// sign that was published later.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		f.publish()
		f.rotate()
		ahead := time.Now().Add(365 * 24 * time.Hour).UTC().Format(time.RFC3339)
		rewrite(t, f, time.Now().UTC().Format(time.RFC3339)+`"
    }`, ahead+`"
    }`) // signs_from of A, which is the last line of an entry
		f.must(f.Reload())
		if f.states() != "A:published B:pending" {
			t.Fatalf("with A in the future: %s", f.states())
		}
		_, err := f.Signer()
		if err == nil || !strings.Contains(err.Error(), "clock") || !strings.Contains(err.Error(), ahead) {
			t.Errorf("Signer = %v, want it to doubt the clock", err)
		}
		if err := f.Retire(t.Context(), f.kid("A"), false); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("Retire = %v, want it to doubt the clock", err)
		}
		f.publish()
		time.Sleep(365*24*time.Hour - 1)
		if f.states() != "A:published B:published" {
			t.Errorf("before A signs: %s", f.states())
		}
		time.Sleep(time.Nanosecond)
		if f.states() != "A:active B:published" {
			t.Errorf("when A signs: %s", f.states())
		}
		time.Sleep(time.Second)
		if f.states() != "B:active A:retired" {
			t.Errorf("a second later: %s", f.states())
		}
	})
}

// rewrite edits the manifest once, as a person would.
func rewrite(t testing.TB, f *fixture, old, new string) {
	t.Helper()
	path := filepath.Join(f.Path(), "keys.json")
	data, err := os.ReadFile(path)
	f.must(err)
	if !strings.Contains(string(data), old) {
		t.Fatalf("the manifest has no %q:\n%s", old, data)
	}
	f.must(os.WriteFile(path, []byte(strings.Replace(string(data), old, new, 1)), 0o644))
}

func TestRotateRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		refused := func(says string) {
			t.Helper()
			before := f.files()
			_, err := f.Rotate(t.Context())
			if !errors.Is(err, keydir.ErrRotating) || !strings.Contains(err.Error(), says) {
				t.Errorf("Rotate = %v, want ErrRotating and %q", err, says)
			}
			checkOneLine(t, err)
			if f.files() != before {
				t.Errorf("a refused Rotate leaves %s", f.files())
			}
		}
		refused(f.kid("A") + ", which was not published yet")
		f.publish()
		f.rotate()
		refused(f.kid("B") + ", which was not published yet")
		f.publish()
		refused(f.kid("B") + ", which signs from 2000-01-02T00:00:00Z")
		time.Sleep(24 * time.Hour)
		f.rotate()
	})
}

// Entra reads the first 100 keys of a document and no more.
func TestRotateKeepsToAHundred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var from []time.Time
		for i := range 99 {
			from = append(from, time.Now().Add(time.Duration(i-98)*10*time.Second))
		}
		f := written(t, from)
		f.must(f.SetWait(t.Context(), time.Second))
		f.rotate()
		f.publish()
		time.Sleep(time.Second)
		if n := len(f.Documented()); n != 100 {
			t.Fatalf("%d keys in the document, want 100", n)
		}
		_, err := f.Rotate(t.Context())
		if err == nil || errors.Is(err, keydir.ErrRotating) || !strings.Contains(err.Error(), "100 keys") || !strings.Contains(err.Error(), f.NextChange().Format(time.RFC3339)) {
			t.Errorf("Rotate with 100 keys = %v, want a refusal that says when", err)
		}
		checkOneLine(t, err)
		time.Sleep(time.Until(f.NextChange()))
		f.rotate()
	})
}

func TestRotateIfDue(t *testing.T) {
	const every, wait = 100 * time.Hour, 10 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		f := create(t, wait)
		if _, _, err := f.RotateIfDue(t.Context(), wait+linger); err == nil {
			t.Error("RotateIfDue takes a period in which a rotation cannot end")
		} else {
			checkOneLine(t, err)
		}
		for i, row := range []struct {
			after   time.Duration
			rotated bool
		}{
			{0, false}, // nothing was published yet
			{200 * time.Hour, false},
			{0, false}, // published here
			{every - wait - 1, false},
			{1, true},
			{0, false}, // waits
			{every, false},
			{0, false},    // published here
			{wait, false}, // signs now
			{every - wait - 1, false},
			{1, true},
		} {
			time.Sleep(row.after)
			if i == 2 || i == 7 {
				f.publish()
			}
			key, rotated, err := f.RotateIfDue(t.Context(), every)
			if err != nil || rotated != row.rotated || rotated != (key.ID != "") {
				t.Fatalf("row %d: RotateIfDue = %v, %v, %v; want %v; %s", i, key.ID, rotated, err, row.rotated, f.states())
			}
		}
	})
}

func TestSetPublicationWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		for _, wait := range []time.Duration{0, -time.Hour, time.Second - 1, time.Minute + 1, 31 * 24 * time.Hour} {
			if err := f.SetWait(t.Context(), wait); err == nil {
				t.Errorf("SetPublicationWait(%v) succeeds", wait)
			}
		}
		f.publish()
		f.rotate()
		f.must(f.SetWait(t.Context(), 2*time.Hour))
		f.publish()
		f.must(f.SetWait(t.Context(), time.Second)) // not for B, which is published
		time.Sleep(2*time.Hour - 1)
		if f.signer() != "A" {
			t.Error("B signs too early")
		}
		time.Sleep(time.Nanosecond)
		if f.signer() != "B" {
			t.Error("B does not sign")
		}
	})
}

// TestRotateWithWait: the wait is stored with the key that it is for, or not at all.
func TestRotateWithWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, time.Hour)
		f.publish()
		for _, wait := range []time.Duration{0, time.Second - 1, 31 * 24 * time.Hour} {
			if _, err := f.RotateWithWait(t.Context(), wait); err == nil || f.states() != "A:active" {
				t.Errorf("RotateWithWait(%v) = %v and %s, want a refusal", wait, err, f.states())
			} else {
				checkOneLine(t, err)
			}
		}
		if _, err := f.RotateWithWait(t.Context(), 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := f.RotateWithWait(t.Context(), time.Second); !errors.Is(err, keydir.ErrRotating) {
			t.Errorf("RotateWithWait while a key waits = %v, want ErrRotating", err)
		}
		f.publish()
		if got := time.Until(f.Keys()[1].SignsFrom); got != 2*time.Hour {
			t.Errorf("the key waits for %v, want 2h: a refused call has stored its wait", got)
		}
	})
}

// TestRotateIfDueAtOnce: whether a key is due is asked once more under the lock. A
// second keeper that waited for it makes none, and has no trouble to tell.
func TestRotateIfDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 10*time.Hour)
		f.publish()
		other := f.another()
		time.Sleep(95 * time.Hour)
		f.step = func(name string) {
			if name != "take the lock" {
				return
			}
			f.step = nil
			if _, rotated, err := other.RotateIfDue(t.Context(), 100*time.Hour); err != nil || !rotated {
				t.Errorf("the first keeper: %v, %v; want a new key", rotated, err)
			}
		}
		key, rotated, err := f.RotateIfDue(t.Context(), 100*time.Hour)
		if err != nil || rotated || key.ID != "" || stateNames(f.Dir) != "active pending" {
			t.Errorf("the second keeper: %q, %v, %v; states %s; want nothing done", key.ID, rotated, err, stateNames(f.Dir))
		}
	})
}

package keydir_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// shift moves all times of the manifest. Moving them back is what a clock does
// that jumps ahead, in the eyes of who reads it.
func shift(t testing.TB, f *fixture, by time.Duration) {
	t.Helper()
	path := filepath.Join(f.Path(), "keys.json")
	data, err := os.ReadFile(path)
	f.must(err)
	text := regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z`).ReplaceAllFunc(data, func(old []byte) []byte {
		at, err := time.Parse(time.RFC3339, string(old))
		f.must(err)
		return at.Add(by).AppendFormat(nil, time.RFC3339)
	})
	f.must(os.WriteFile(path, text, 0o644))
	f.must(f.Reload())
}

// TestClockAheadForAWhile: what writers do under a clock that is ahead by less
// than a week takes no key away that is needed when it is right again.
func TestClockAheadForAWhile(t *testing.T) {
	const ahead = 7 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		f.rotate()
		f.publish()
		shift(t, f, -ahead)
		if f.states() != "B:active" || f.signer() != "B" || f.document() != "B" {
			t.Fatalf("under a clock that is ahead: %s, %q signs", f.states(), f.signer())
		}
		if removed, err := f.Prune(t.Context()); err != nil || removed != nil {
			t.Errorf("Prune = %v, %v; want nothing removed", removed, err)
		}
		f.rotate()
		f.publish()
		shift(t, f, ahead)
		if f.states() != "A:active B:published C:published" || f.signer() != "A" {
			t.Errorf("under the right clock again: %s, %q signs; want A", f.states(), f.signer())
		}
		f.must(f.Retire(t.Context(), f.kid("C"), false))
		time.Sleep(24 * time.Hour)
		if f.states() != "B:active A:retired" || f.signer() != "B" {
			t.Errorf("a day later: %s, %q signs; want B", f.states(), f.signer())
		}
	})
}

// TestClockAheadForLong: where the active key is gone for good, there is a way out.
func TestClockAheadForLong(t *testing.T) {
	for _, tt := range []struct {
		name         string
		rotate       bool
		states, want string // before and after the only published key is retired
	}{
		{"no other key", false, "A:published", "B:active"},
		{"another key waits", true, "A:published B:pending", "B:active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := create(t, 0)
				f.publish()
				if tt.rotate {
					f.rotate()
				}
				shift(t, f, 365*24*time.Hour)
				_, err := f.Signer()
				if f.states() != tt.states || err == nil || !strings.Contains(err.Error(), "retire --unsafe-now "+f.kid("A")) {
					t.Fatalf("%s, Signer = %v, want it to say what to do", f.states(), err)
				}
				checkOneLine(t, err)
				f.must(f.Retire(t.Context(), f.kid("A"), true))
				if f.states() != tt.want || f.signer() != "B" || f.files() != ".lock B.pem keys.json" {
					t.Errorf("%s, %q signs, files %s; want %s", f.states(), f.signer(), f.files(), tt.want)
				}
			})
		})
	}
}

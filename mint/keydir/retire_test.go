package keydir_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// staged leads a directory to one key of each state: C:active D:pending B:retired,
// or D:published.
func staged(t *testing.T, publish bool) *fixture {
	f := create(t, time.Minute)
	f.publish()
	for range 2 {
		f.rotate()
		f.publish()
		time.Sleep(40 * time.Minute)
	}
	f.rotate() // A leaves at 66 min, B at 106 min
	if publish {
		f.publish()
	}
	return f
}

func TestRetire(t *testing.T) {
	for _, tt := range []struct {
		name, kid string // the name of a key stands for its id
		publish   bool
		now       bool
		says      string // of the refusal
		states    string // afterwards
	}{
		{"no kid", "", true, false, "too short", ""},
		{"five characters", "abcde", true, true, "too short", ""},
		{"unknown", "abcdef", true, true, "svidecar keys list", ""},
		{"gone from the document", "A", true, false, "has left the document, and its file goes after 2000-01-08T01:06:00Z", ""},
		{"active", "C", true, false, "retires by itself at 2000-01-01T01:21:00Z", ""},
		{"active, next one pending", "C", false, false, "svidecar keys export", ""},
		{"retired", "B", true, false, "leaves by itself at 2000-01-01T01:46:00Z", ""},
		{"published", "D", true, false, "", "C:active B:retired"},
		{"published, now", "D", true, true, "", "C:active B:retired"},
		{"pending", "D", false, false, "", "C:active B:retired"},
		{"pending, now", "D", false, true, "", "C:active B:retired"},
		{"active, now", "C", true, true, "", "D:active B:retired"},
		{"active, now, next one pending", "C", false, true, "", "D:active B:retired"},
		{"gone from the document, now", "A", true, true, "", "C:active D:published B:retired"},
		{"retired, now", "B", true, true, "", "C:active D:published"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := staged(t, tt.publish)
				before, kid := f.states(), tt.kid
				if len(kid) == 1 {
					kid = f.kid(kid)[:8]
				}
				err := f.Retire(t.Context(), kid, tt.now)
				if tt.says != "" {
					if err == nil || !strings.Contains(err.Error(), tt.says) || f.states() != before {
						t.Fatalf("Retire = %v and %s, want %q and %s", err, f.states(), tt.says, before)
					}
					checkOneLine(t, err)
					return
				}
				if err != nil || f.states() != tt.states {
					t.Fatalf("Retire: %v, %s; want %s", err, f.states(), tt.states)
				}
				if strings.Contains(f.files(), tt.kid+".pem") || strings.Contains(f.document(), tt.kid) {
					t.Errorf("%s is still there: files %s, document %s", tt.kid, f.files(), f.document())
				}
				if f.signer() != f.states()[:1] {
					t.Errorf("%q signs in %s", f.signer(), f.states())
				}
			})
		})
	}
}

func TestRetireActiveWithoutSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.publish()
		time.Sleep(time.Hour)
		if err := f.Retire(t.Context(), f.kid("A"), false); err == nil || !strings.Contains(err.Error(), "svidecar keys rotate") {
			t.Errorf("Retire of the only key = %v, want what to do instead", err)
		}
		f.must(f.Retire(t.Context(), f.kid("A"), true))
		if f.states() != "B:active" || f.signer() != "B" || f.files() != ".lock B.pem keys.json" {
			t.Errorf("%s, %q signs, files %s; want a fresh key in the place of A", f.states(), f.signer(), f.files())
		}
		f.rotate()
		f.publish()
		if f.states() != "B:active C:published" {
			t.Errorf("%s: the next key must wait again", f.states())
		}
	})
}

// The key that took over in a hurry belongs in the document at once, and the one
// that retired before keeps its place for long enough.
func TestRetireKeepsOthersLongEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := staged(t, true) // B retired 39 min ago
		f.must(f.Retire(t.Context(), f.kid("C"), true))
		time.Sleep(linger - 40*time.Minute)
		if f.document() != "DB" {
			t.Errorf("the document holds %s, want DB: B has signed 65 min ago and less", f.document())
		}
		time.Sleep(linger)
		if f.document() != "D" {
			t.Errorf("the document holds %s, want D", f.document())
		}
	})
}

func TestRetireFirstKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := create(t, 0)
		f.must(f.Retire(t.Context(), f.kid("A"), false))
		if f.states() != "B:pending" || f.files() != ".lock B.pem keys.json" {
			t.Fatalf("%s, files %s; want a fresh key in the place of A", f.states(), f.files())
		}
		f.publish()
		if f.signer() != "B" {
			t.Error("the first published key does not sign")
		}
	})
}

// A key that has left the document does not come back when the one after it is
// retired for theft, although its times follow from that one's.
func TestRetireBringsNoKeyBack(t *testing.T) {
	for _, stolen := range []string{"B", "C"} {
		synctest.Test(t, func(t *testing.T) {
			f := staged(t, true) // A has left 14 min ago
			f.must(f.Retire(t.Context(), f.kid(stolen), true))
			if strings.Contains(f.document(), "A") || strings.Contains(f.files(), "A.pem") {
				t.Errorf("without %s the document holds %s, files %s; want A in neither", stolen, f.document(), f.files())
			}
		})
	}
}

package keydir_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/mint/keydir"
)

// model is what a directory promises, told without its states: which documents
// verifiers may hold, and which keys have signed when.
type model struct {
	*fixture
	rng       *rand.Rand
	log       []string
	documents []document
	waits     map[string]time.Duration // by name: the wait when it was published
	wait      time.Duration
	signed    map[string]time.Time // by name: the last time
	marked    bool                 // a document was published, and the directory knows
}

// document was public from a time on, until the next one.
type document struct {
	from time.Time
	keys string // names
}

// TestPromises does at random what people and programs do, at random times, and
// looks at each moment whether the directory keeps its promises.
func TestPromises(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 3
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			m := &model{fixture: create(t, 0), rng: rand.New(rand.NewPCG(seed, 1)), waits: map[string]time.Duration{}, signed: map[string]time.Time{}, wait: 24 * time.Hour}
			for range 120 {
				m.operate()
				m.check()
				m.passTime()
				m.check()
			}
			if t.Failed() {
				t.Fatalf("seed %d: what was done:\n%s", seed, strings.Join(m.log, "\n"))
			}
			if len(m.signed) < 5 {
				t.Errorf("seed %d: only %d keys have signed: the test has lost its teeth", seed, len(m.signed))
			}
		})
		if t.Failed() {
			return
		}
	}
}

func (m *model) did(format string, args ...any) {
	m.log = append(m.log, time.Now().UTC().Format("02T15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (m *model) operate() {
	switch m.rng.IntN(12) {
	case 0, 1, 2:
		if len(m.kids) < 110 {
			_, err := m.Rotate(m.t.Context())
			m.did("rotate: %v", err)
		}
	case 3:
		if len(m.kids) < 110 {
			key, rotated, err := m.RotateIfDue(m.t.Context(), 48*time.Hour)
			m.did("rotate if due: %s %v %v", key.ID, rotated, err)
		}
	case 4, 5, 6, 7:
		m.publishDocument(true)
	case 8: // dies before it can tell
		if m.marked {
			m.publishDocument(false)
		}
	case 9:
		removed, err := m.Prune(m.t.Context())
		m.did("prune: %d %v", len(removed), err)
		m.must(err)
	case 10:
		m.wait = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour, 40 * time.Hour}[m.rng.IntN(5)]
		m.did("wait %v", m.wait)
		m.must(m.SetWait(m.t.Context(), m.wait))
	case 11:
		if keys := m.Keys(); m.marked { // only a key that waits goes
			kid := keys[m.rng.IntN(len(keys))].ID
			m.did("retire %s: %v", m.name(kid), m.Retire(m.t.Context(), kid, false))
		}
	}
}

// publishDocument makes public what belongs in the document, and then tells.
func (m *model) publishDocument(tell bool) {
	names := m.document()
	m.did("publish %s, tell: %v", names, tell)
	m.documents = append(m.documents, document{time.Now(), names})
	if !tell {
		return
	}
	for _, k := range m.Keys() {
		if name := m.name(k.ID); k.State == keydir.Pending {
			m.waits[name] = m.wait
		}
	}
	m.publish()
	m.marked = true
}

// passTime goes a step that is short, long, or to the edge of a state.
func (m *model) passTime() {
	step := time.Duration(m.rng.Int64N(int64([]time.Duration{2 * time.Second, time.Hour, 30 * time.Hour}[m.rng.IntN(3)])))
	if next := m.NextChange(); !next.IsZero() && m.rng.IntN(2) == 0 {
		step = time.Until(next) - time.Duration(m.rng.IntN(2)) // at it, or just before
	}
	m.did("%v pass", step)
	time.Sleep(step)
}

func (m *model) check() {
	m.t.Helper()
	now, signer, documented := time.Now(), m.signer(), m.document()
	if signer == "" && m.marked {
		m.t.Errorf("nobody signs: %s", m.states())
	}
	if signer != "" {
		for _, d := range m.held(now, m.waits[signer]) {
			if !slices.Contains([]rune(d.keys), []rune(signer)[0]) {
				m.t.Errorf("%s signs, and the document of %v, %s, may still be held", signer, d.from, d.keys)
			}
		}
		m.signed[signer] = now
	}
	for name, at := range m.signed {
		if now.Before(at.Add(linger)) && !slices.Contains([]rune(documented), []rune(name)[0]) {
			m.t.Errorf("%s has signed %v ago, and the document holds %s", name, now.Sub(at), documented)
		}
	}
	m.checkStates(documented)
}

// held returns the documents that a verifier may hold which keeps them for a time.
func (m *model) held(now time.Time, keep time.Duration) []document {
	for i, d := range slices.Backward(m.documents) {
		if !d.from.After(now.Add(-keep)) {
			return m.documents[i:]
		}
	}
	return m.documents
}

func (m *model) checkStates(documented string) {
	m.t.Helper()
	count := map[keydir.State]int{}
	for _, k := range m.Keys() {
		count[k.State]++
	}
	if waiting := count[keydir.Pending] + count[keydir.Published]; waiting > 1 || count[keydir.Active] > 1 || len([]rune(documented)) > 100 || documented == "" {
		m.t.Errorf("%v waiting, %v active, document %s", waiting, count[keydir.Active], documented)
	}
	other, err := keydir.Open(m.Path())
	m.must(err)
	if diff := cmp.Diff(m.Keys(), other.Keys()); diff != "" {
		m.t.Errorf("another process sees it differently:\n%s", diff)
	}
	for _, k := range m.Keys() {
		if !exists(filepath.Join(m.Path(), k.ID+".pem")) {
			m.t.Errorf("%s has no private key", m.name(k.ID))
		}
	}
}

package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	maxSoak = 24 * time.Hour
	maxRate = 20000
	tell    = 30 * time.Second // between lines of progress
)

// TestSoak runs all faults in turn, one every ten seconds, for as long as it is
// told to.
func TestSoak(t *testing.T) {
	switch {
	case *soakFor == 0:
		t.Skip("asked for by -soak")
	case *soakFor < 0 || *soakFor > maxSoak || *soakRate < 1 || *soakRate > maxRate:
		t.Fatalf("-soak %v -rate %d: want at most %v and %d", *soakFor, *soakRate, maxSoak, maxRate)
	}
	overdue := time.AfterFunc(*soakFor+3*time.Minute, func() { panic("chaos: the soak does not end") })
	defer overdue.Stop()
	w := newWorld(t, soakForm(*soakRate), false, false)
	w.startClients()
	w.warm(t)
	s := newSoak(t, w)
	s.run(time.Now().Add(*soakFor))
	w.finish(t)
	s.checkMemory()
	var table bytes.Buffer
	s.write(&table)
	t.Logf("\n%s", table.String())
	if *soakWrite != "" {
		if err := replaceTable(*soakWrite, table.Bytes()); err != nil {
			t.Error(err)
		}
	}
}

// soak is what a run has shown so far.
type soak struct {
	t       *testing.T
	w       *world
	begun   time.Time
	told    time.Time
	rows    []*row
	samples []rest // one for each slot
	total   row
}

// row sums up the slots of one fault.
type row struct {
	name             string
	slots            int
	requests         int
	unserved         int // without a valid token
	lost, wrong      int
	late             int
	slowest, fresh   time.Duration
	exchanges        float64
	lastFailureAfter time.Duration // the fault ended
}

func newSoak(t *testing.T, w *world) *soak {
	s := &soak{t: t, w: w, begun: time.Now(), told: time.Now()}
	s.total.name = "**all**"
	return s
}

// run goes through the faults until the end.
func (s *soak) run(end time.Time) {
	var able []fault
	for _, f := range faults() {
		if !f.named && (canStop || !f.ownCloud) {
			able = append(able, f)
			s.rows = append(s.rows, &row{name: f.name})
		}
	}
	for i := 0; time.Now().Before(end) && s.t.Context().Err() == nil; i++ {
		n := i % len(able)
		s.slot(able[n], s.rows[n])
		if time.Since(s.told) >= tell {
			s.told = time.Now()
			s.progress()
		}
	}
}

// slot is one fault, and fair weather after it.
func (s *soak) slot(f fault, r *row) {
	w := s.w
	before := w.rest(s.t)
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	done, err := f.begin(ctx, w)
	if err != nil {
		s.t.Fatal(err)
	}
	w.pass(w.form.fault)
	cancel()
	done()
	mended := time.Now()
	if err := f.mend(w); err != nil {
		s.t.Fatal(err)
	}
	w.pass(w.form.after)
	noted := w.ledger.turn()
	// What the fault before this one left is not this one's.
	w.check(s.t, noted, fault{refusal: true})
	now := w.rest(s.t)
	s.samples = append(s.samples, now)
	for _, to := range []*row{r, &s.total} {
		to.add(noted, now.exchanges-before.exchanges, w.lastFailure(mended))
	}
}

func (r *row) add(noted *ledger, exchanges float64, lastFailureAfter time.Duration) {
	all, failed := noted.requests()
	r.slots++
	r.requests += all
	r.unserved += failed - noted.lost.count
	r.lost += noted.lost.count
	r.wrong += noted.wrong.count
	r.late += noted.slow.count
	r.slowest = max(r.slowest, noted.slowest)
	r.fresh = max(r.fresh, noted.fresh)
	r.exchanges += exchanges
	r.lastFailureAfter = max(r.lastFailureAfter, lastFailureAfter)
}

func (s *soak) progress() {
	now := s.samples[len(s.samples)-1]
	s.t.Logf("%v: %d requests, %.0f/s; lost %d, wrong %d, late %d; not served without a token %d; %.0f exchanges; memory %.1f MB, %.0f goroutines",
		time.Since(s.begun).Round(time.Second), s.total.requests, float64(s.total.requests)/time.Since(s.begun).Seconds(),
		s.total.lost, s.total.wrong, s.total.late, s.total.unserved, s.total.exchanges, now.memory/1e6, now.goroutines)
}

// checkMemory compares the end with the beginning, quarter with quarter.
func (s *soak) checkMemory() {
	const enough = 8
	if len(s.samples) < enough {
		return
	}
	quarter := len(s.samples) / 4
	first, last := memoryOf(s.samples[:quarter]), memoryOf(s.samples[len(s.samples)-quarter:])
	if last > first*1.25+8e6 {
		s.t.Errorf("memory went from %.1f to %.1f MB", first/1e6, last/1e6)
	}
}

// memoryOf is the median.
func memoryOf(samples []rest) float64 {
	var all []float64
	for _, r := range samples {
		all = append(all, r.memory)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// write writes the table.
func (s *soak) write(out io.Writer) {
	took := time.Since(s.begun)
	_, _ = fmt.Fprintf(out, "Made in %v by %s on %s/%s with %d cores: %d clients on connections that are kept, %.0f requests/s, %d tokens, a fault for %v of every %v.\n\n",
		took.Round(time.Second), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		s.w.form.clients, float64(s.total.requests)/took.Seconds(), len(s.w.keys), s.w.form.fault, s.w.form.fault+s.w.form.after)
	_, _ = fmt.Fprintln(out, "| fault | times | requests | lost while a valid token existed | wrong tokens | slowest with a valid token | … over 5 min of life | without a token: refused | last refusal after the fault | exchanges |")
	_, _ = fmt.Fprintln(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, r := range append(s.rows, &s.total) {
		if r.slots > 0 {
			_, _ = fmt.Fprintf(out, "| %s | %d | %d | %d | %d | %v | %v | %d | %v | %.0f |\n", r.name, r.slots, r.requests, r.lost, r.wrong,
				r.slowest.Round(time.Millisecond), r.fresh.Round(time.Millisecond), r.unserved, r.lastFailureAfter.Round(100*time.Millisecond), r.exchanges)
		}
	}
	_, _ = fmt.Fprintf(out, "\n%s\n", s.rests())
}

// rests tells of memory and goroutines in one line.
func (s *soak) rests() string {
	if len(s.samples) == 0 {
		return "It was too short for a sample."
	}
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	var most rest
	for _, r := range s.samples {
		most.memory, most.goroutines = max(most.memory, r.memory), max(most.goroutines, r.goroutines)
	}
	return fmt.Sprintf("Memory (RSS) was %.1f MB after the first fault, %.1f MB at most, %.1f MB at the end; goroutines were %.0f, %.0f and %.0f, with all clients connected.",
		first.memory/1e6, most.memory/1e6, last.memory/1e6, first.goroutines, most.goroutines, last.goroutines)
}

// The table in a document stands between these.
const (
	soakBegin = "<!-- soak: begin -->\n"
	soakEnd   = "<!-- soak: end -->\n"
)

// replaceTable puts the table in place of the one before, or at the end of a file
// that has none. A relative path starts at the top of the tree.
func replaceTable(file string, table []byte) error {
	if !filepath.IsAbs(file) {
		file = filepath.Join("..", "..", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begun := strings.Cut(string(text), soakBegin)
	_, after, ended := strings.Cut(rest, soakEnd)
	switch {
	case !begun:
		before, after = strings.TrimRight(before, "\n")+"\n\n## A long run through faults\n\n", ""
	case !ended:
		return fmt.Errorf("%s: %q has no %q", file, strings.TrimSpace(soakBegin), strings.TrimSpace(soakEnd))
	}
	return os.WriteFile(file, []byte(before+soakBegin+string(table)+soakEnd+after), 0o644)
}

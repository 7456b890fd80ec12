package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report turns what was measured into a table.
type report struct {
	plan
	floor, ours, peer *subject // peer may be nil
}

// row is one line of the table. What does not apply is left empty.
type row struct {
	name              string
	floor, ours, peer string
	ratio             string // ours to floor's
	goal              string
	met               verdict
}

type verdict string

const (
	noGoal verdict = ""
	met    verdict = "yes"
	missed verdict = "**no**"
)

// hundredths is a ratio as the table prints it, which is what is judged.
func hundredths(ratio float64) float64 { return math.Round(ratio*100) / 100 }

func judge(ok bool) verdict {
	if ok {
		return met
	}
	return missed
}

// write prints the table, and how it was made.
func (r *report) write(out io.Writer, took time.Duration) {
	fmt.Fprintf(out, "Made in %.0f s by %s on %s/%s with %d cores: medians of %d rounds of %v, %d starts.\n\n",
		took.Seconds(), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), r.rounds, r.slice, r.plan.starts)
	r.line(out, row{name: "", floor: "floor", ours: "svidecar", peer: "peer", ratio: "ratio", goal: "goal", met: "met"})
	r.line(out, row{name: "---", floor: "---:", ours: "---:", peer: "---:", ratio: "---:", goal: "---", met: "---"})
	for _, line := range slices.Concat(r.footprint(), r.exchanges(), r.cached(), r.crowded()) {
		r.line(out, line)
	}
	if !hasProc {
		fmt.Fprintln(out, "\nMemory and CPU are read from /proc, which only Linux has.")
	}
	for _, s := range []*subject{r.ours, r.peer} {
		if s != nil && s.unanswered > 0 {
			fmt.Fprintf(out, "\n%d requests of the two bursts to %s got no token.\n", s.unanswered, s.name)
		}
	}
}

func (r *report) line(out io.Writer, line row) {
	cells := []string{line.name, line.floor, line.ours}
	if r.peer != nil {
		cells = append(cells, line.peer)
	}
	cells = append(cells, line.ratio, line.goal, string(line.met))
	fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
}

// each formats the same figure of all three.
func (r *report) each(line row, show func(*subject) string) row {
	line.floor = show(r.floor)
	return r.sidecars(line, show)
}

// sidecars formats a figure that the floor does not have.
func (r *report) sidecars(line row, show func(*subject) string) row {
	line.ours = show(r.ours)
	if r.peer != nil {
		line.peer = show(r.peer)
	}
	return line
}

func (r *report) footprint() []row {
	const mostSize, mostStart, mostIdle, mostBusy = 20e6, 0.020, 15e6, 30e6
	return []row{
		r.sidecars(row{name: "binary, stripped", goal: "≤ 20 MB", met: judge(r.ours.size <= mostSize)},
			func(s *subject) string { return megabytes(s.size) }),
		r.each(row{name: "start to ready", goal: "≤ 20 ms", met: judge(median(r.ours.starts) <= mostStart)},
			func(s *subject) string { return milliseconds(median(s.starts)) }),
		r.each(row{name: "memory (RSS), idle", goal: "≤ 15 MB", met: needsProc(r.ours.idle <= mostIdle)},
			func(s *subject) string { return megabytes(s.idle) }),
		r.each(row{name: "… after 1,000 requests at once, twice", goal: "≤ 30 MB", met: needsProc(r.ours.after <= mostBusy)},
			func(s *subject) string { return megabytes(s.after) }),
		r.each(row{name: "… while their 1,000 connections are open"}, func(s *subject) string { return megabytes(s.busy) }),
	}
}

func (r *report) exchanges() []row {
	const mostFirst, mostFailed = 2, 2
	ten := r.ours.coldTen
	failing := fmt.Sprintf("exchanges for %d requests", r.failing)
	return []row{
		r.sidecars(row{name: "HTTP calls for the first token", goal: "2", met: judge(r.ours.firstCalls <= mostFirst)},
			func(s *subject) string { return fmt.Sprint(s.firstCalls) }),
		r.sidecars(row{name: "exchanges for 1,000 cold requests at once, 1 resource", goal: "1", met: judge(r.ours.coldOne.Token == 1)},
			func(s *subject) string { return fmt.Sprint(s.coldOne.Token) }),
		r.sidecars(row{name: "… 10 resources", goal: "10, all at once", met: judge(ten.Token == 10 && ten.MaxInFlight == 10)},
			func(s *subject) string { return fmt.Sprintf("%d, %d at once", s.coldTen.Token, s.coldTen.MaxInFlight) }),
		r.sidecars(row{name: failing + " that Entra refuses", goal: "≤ 2", met: judge(r.ours.refused <= mostFailed)},
			func(s *subject) string { return fmt.Sprint(s.refused) }),
		r.sidecars(row{name: failing + " while Entra answers 500", goal: "≤ 2", met: judge(r.ours.broken <= mostFailed)},
			func(s *subject) string { return fmt.Sprint(s.broken) }),
	}
}

// cached compares requests that the cache answers.
func (r *report) cached() []row {
	const mostCPU, leastRate, mostP50 = 1.22, 0.85, 1.2
	cost := hundredths(r.ours.cost.each() / r.floor.cost.each())
	rows := []row{r.each(row{
		name: "cached request: CPU", ratio: needsProcText("%.2f", cost), goal: "≤ 1.22 × floor", met: needsProc(cost <= mostCPU),
	}, func(s *subject) string { return microseconds(s.cost.each()) })}
	for _, figure := range []struct {
		name, goal string
		of         func(sample) float64
		show       func(float64) string
		good       func(ratio float64) verdict
	}{
		{"requests/s", "≥ 0.85 × floor", func(s sample) float64 { return s.rate }, whole, func(x float64) verdict { return judge(x >= leastRate) }},
		{"p50", "≤ 1.2 × floor", func(s sample) float64 { return s.p50 }, milliseconds, func(x float64) verdict { return judge(x <= mostP50) }},
		{"p99", "", func(s sample) float64 { return s.p99 }, milliseconds, func(float64) verdict { return noGoal }},
	} {
		for _, n := range connections {
			ratios := ratiosOf(r.ours.loads[n], r.floor.loads[n], figure.of)
			rows = append(rows, r.each(row{
				name:  fmt.Sprintf("… %s, %s", figure.name, plural(n, "connection")),
				ratio: spread(ratios), goal: figure.goal, met: figure.good(hundredths(median(ratios))),
			}, func(s *subject) string { return figure.show(median(column(s.loads[n], figure.of))) }))
		}
	}
	return rows
}

// crowded compares a cache of many tokens with one of one: its ratios are to the
// program itself, not to the floor. Noise makes "the same" unreachable; 5 % is let
// pass.
func (r *report) crowded() []row {
	const same = 0.05
	rate := func(s sample) float64 { return s.rate }
	ratios := ratiosOf(r.ours.loadsMany, r.ours.loads[usual], rate)
	cost := hundredths(r.ours.costMany.each() / r.ours.cost.each())
	name := fmt.Sprintf("%s resources cached", whole(float64(r.many)))
	return []row{
		r.sidecars(row{name: name + ": requests/s, 8 connections", ratio: spread(ratios) + " of 1 resource's", goal: "same", met: judge(hundredths(median(ratios)) >= 1-same)},
			func(s *subject) string { return whole(median(column(s.loadsMany, rate))) }),
		r.sidecars(row{name: "… CPU", ratio: needsProcText("%.2f of 1 resource's", cost), goal: "same", met: needsProc(cost <= 1+same)},
			func(s *subject) string { return microseconds(s.costMany.each()) }),
		r.sidecars(row{name: "… memory (RSS)"}, func(s *subject) string { return megabytes(s.crowded) }),
	}
}

func needsProc(ok bool) verdict {
	if !hasProc {
		return noGoal
	}
	return judge(ok)
}

func needsProcText(format string, figure float64) string {
	if !hasProc {
		return ""
	}
	return fmt.Sprintf(format, figure)
}

func column(samples []sample, of func(sample) float64) (values []float64) {
	for _, s := range samples {
		values = append(values, of(s))
	}
	return values
}

// ratiosOf compares what was measured next to each other, round by round.
func ratiosOf(a, b []sample, of func(sample) float64) (ratios []float64) {
	for i := range a {
		ratios = append(ratios, of(a[i])/of(b[i]))
	}
	return ratios
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile of values, of which there is at least one.
func quantile(values []float64, q float64) float64 {
	values = slices.Sorted(slices.Values(values))
	at := q * float64(len(values)-1)
	low := int(at)
	high := min(low+1, len(values)-1)
	return values[low] + (at-float64(low))*(values[high]-values[low])
}

// spread is a median, and the quarters on both sides of it.
func spread(values []float64) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", median(values), quantile(values, 0.25), quantile(values, 0.75))
}

func megabytes(bytes float64) string {
	if bytes == 0 {
		return "needs Linux"
	}
	return fmt.Sprintf("%.1f MB", bytes/1e6)
}

func milliseconds(s float64) string { return fmt.Sprintf("%.2f ms", s*1e3) }

func microseconds(s float64) string {
	if s == 0 {
		return "needs Linux"
	}
	return fmt.Sprintf("%.1f µs", s*1e6)
}

// whole writes thousands apart.
func whole(x float64) string {
	digits := fmt.Sprintf("%.0f", x)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// The table in a document stands between these.
const (
	tableBegin = "<!-- table: begin -->\n"
	tableEnd   = "<!-- table: end -->\n"
)

// replaceTable puts the new table in place of the old one.
func replaceTable(file string, table []byte) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begun := bytes.Cut(text, []byte(tableBegin))
	_, after, ended := bytes.Cut(rest, []byte(tableEnd))
	if !begun || !ended {
		return fmt.Errorf("%s: no %q before %q", file, strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	text = slices.Concat(before, []byte(tableBegin), table, []byte(tableEnd), after)
	return os.WriteFile(file, text, 0o644)
}

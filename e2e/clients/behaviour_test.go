//go:build e2e && linux

package clients_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// behaviour is something that happens to apps beside the plain request.
type behaviour struct {
	name string
	// with starts a client for it; nil: as it is, at 169.254.169.254.
	with func(p *place, name string) (env, args []string)
	// asleep says that the client mostly waits, so that others may use the
	// processors meanwhile.
	asleep bool
	run    func(t *testing.T, p *place, c *client) string
}

// place is where one client meets one behaviour.
type place struct {
	*trouble
	name    string
	forward *forwardProxy
	leave   func() // lets others use the processors
	mark    string // in the sidecar's log of this client's requests, if it is not the resource
}

// crowd is how many clients run at once, waiting ones included.
const crowd = 64

// report is a language's table.
type report struct {
	language string
	command  []string
	names    []string
	cells    [][]string // by behaviour, then by client
}

// TestBehaviour runs each client through each of the behaviours, and then restarts the
// sidecar between two requests of all of them. The clients of all languages run
// together: most of the time is spent in waiting.
func TestBehaviour(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newTrouble(t)
	var all []*report
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			command, versions := l.have(t)
			all = append(all, newReport(l.name, command, credentials(versions)))
		})
	}
	w.behave(t, all)
	w.reconsider(t, all)
	w.restart(t, all)
	for _, r := range all {
		requireTable(t, r.language+", behaviour", r.table())
	}
}

// credentials gives the clients of a language without their variants, of which a
// chain of credentials is one that behaves in its own way.
func credentials(versions map[string]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if _, variant, varies := strings.Cut(name, ", "); !varies || variant == "DefaultAzureCredential" {
			names = append(names, name)
		}
	}
	return names
}

const restarted = "sidecar restarted in between"

func newReport(language string, command, names []string) *report {
	r := &report{language: language, command: command, names: names}
	for range len(behaviours) + 1 {
		r.cells = append(r.cells, make([]string, len(names)))
	}
	return r
}

// table has a row for each behaviour.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | %s |\n|---|%s\n", strings.Join(r.names, " | "), strings.Repeat("---|", len(r.names)))
	for i, h := range behaviours {
		fmt.Fprintf(&b, "| %s | %s |\n", h.name, strings.Join(r.cells[i], " | "))
	}
	fmt.Fprintf(&b, "| %s | %s |\n", restarted, strings.Join(r.cells[len(behaviours)], " | "))
	return b.String()
}

// behave fills the cells, those that wait first. Two clients use the processors at a
// time, so that a late answer is the client's own.
func (w *trouble) behave(t *testing.T, all []*report) {
	t.Helper()
	var running sync.WaitGroup
	defer running.Wait()
	awake, alive := make(chan struct{}, 2), make(chan struct{}, crowd)
	for _, asleep := range []bool{true, false} {
		for j, h := range behaviours {
			for _, r := range all {
				for i, name := range r.names {
					if h.asleep != asleep {
						continue
					}
					alive <- struct{}{}
					awake <- struct{}{}
					leave := sync.OnceFunc(func() { <-awake })
					running.Go(func() {
						defer func() { leave(); <-alive }()
						began := time.Now()
						r.cells[j][i] = w.meet(t, r.command, name, h, leave)
						t.Logf("%5.1f s: %s, %s: %s", time.Since(began).Seconds(), name, h.name, r.cells[j][i])
					})
				}
			}
		}
	}
}

// doubts is how many cells may differ by what else the machine does.
const doubts = 12

// reconsider runs what came out in another way than the document has it again, alone,
// and twice at most: clients have short waits of their own, and draw some by lot.
func (w *trouble) reconsider(t *testing.T, all []*report) {
	t.Helper()
	left := doubts
	for _, r := range all {
		documented := cellsOf(tableOf(t, r.language+", behaviour"))
		for j, h := range behaviours {
			for i, name := range r.names {
				if j >= len(documented) || i >= len(documented[j]) {
					continue
				}
				for again := 0; again < 2 && r.cells[j][i] != documented[j][i] && left > 0; again++ {
					left--
					t.Logf("%s, %s: %s, where the document has %s: once more", name, h.name, r.cells[j][i], documented[j][i])
					r.cells[j][i] = w.meet(t, r.command, name, h, func() {})
				}
			}
		}
	}
}

// meet runs one client through one behaviour.
func (w *trouble) meet(t *testing.T, command []string, name string, h behaviour, leave func()) string {
	p := &place{trouble: w, name: name, leave: leave}
	args, env := []string{"system", ""}, []string(nil)
	if h.with != nil {
		p.forward = newForwardProxy(t)
		if env, args = h.with(p, name); args == nil {
			return none
		}
	}
	c := startClient(t, command, env, append([]string{name}, args...)...)
	defer c.end()
	if h.asleep {
		if err := p.warm(c); err != nil {
			return complaint(t, c, err)
		}
		leave()
	}
	return h.run(t, p, c)
}

// restart has each client ask before the sidecar ends, and again once its successor
// is ready.
func (w *trouble) restart(t *testing.T, all []*report) {
	t.Helper()
	running := map[*report][]*client{}
	for _, r := range all {
		for i, name := range r.names {
			c := startClient(t, r.command, nil, name, "system", "")
			defer c.end()
			running[r] = append(running[r], c)
			r.cells[len(behaviours)][i] = outcome(t, c, unique("before"))
		}
	}
	w.sidecar.end(t)
	w.sidecar.start(t)
	for _, r := range all {
		for i, cell := range r.cells[len(behaviours)] {
			if cell == good {
				r.cells[len(behaviours)][i] = outcome(t, running[r][i], unique("after"))
			}
		}
	}
}

// outcome asks once.
func outcome(t *testing.T, c *client, resource string) string {
	token, err := c.ask(resource)
	if err != nil {
		return complaint(t, c, err)
	}
	return judge(t, token, resource, addressTenant)
}

func complaint(t *testing.T, c *client, err error) string {
	t.Logf("%v: %v", c.cmd.Args, err)
	return "error"
}

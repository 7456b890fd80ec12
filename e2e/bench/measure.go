package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// connections are the numbers of keep-alive connections under which all take
// turns. CPU is measured, and many resources are asked for, with the usual one.
var connections = []int{1, 8, 64}

const usual = 8

// exchangeTakes is how long the emulated Entra takes over a token, so that a
// burst meets exchanges under way.
const exchangeTakes = 100 * time.Millisecond

// subject is one program and all that was measured of it.
type subject struct {
	program
	one     *process          // holds one token
	many    *process          // holds many; nil for the floor
	clients map[int][]*client // of one, by how many
	toMany  []*client
	turns   [][]byte // the requests to many

	size       float64
	starts     []float64
	idle       float64 // memory, in bytes
	busy       float64 // … with the burst's connections open
	after      float64 // … once they have been closed for a while
	crowded    float64 // … of many
	firstCalls int     // HTTP requests at Entra for the first token
	coldOne    entratest.Calls
	coldTen    entratest.Calls
	unanswered int // of the bursts' requests
	refused    int // exchanges
	broken     int
	loads      map[int][]sample
	loadsMany  []sample
	cost       cpu
	costMany   cpu
}

// cpu is processor time over a number of requests.
type cpu struct {
	seconds  float64
	requests int
}

func (c cpu) each() float64 { return c.seconds / float64(c.requests) }

const vault = "https://vault.azure.net"

// measure runs all measurements of all programs.
func (w *world) measure(p plan) (*report, error) {
	ours := &subject{program: w.svidecar}
	subjects := []*subject{ours}
	if w.peer != nil {
		subjects = append(subjects, &subject{program: *w.peer})
	}
	for _, s := range subjects {
		if err := w.first(s, p); err != nil {
			return nil, fmt.Errorf("%s: first token: %w", s.name, err)
		}
		if err := w.bursts(s, p); err != nil {
			return nil, fmt.Errorf("%s: bursts: %w", s.name, err)
		}
	}
	floor, err := w.newFloor(ours, p)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	all := append([]*subject{floor}, subjects...)
	if err := w.measureStarts(all, p); err != nil {
		return nil, err
	}
	for _, s := range all {
		if err := w.prepareLoad(s, p); err != nil {
			return nil, fmt.Errorf("%s: preparing the load: %w", s.name, err)
		}
		defer s.hangUp()
	}
	r := &report{plan: p, floor: floor, ours: ours}
	if w.peer != nil {
		r.peer = subjects[1]
	}
	return r, w.measureLoads(all, p)
}

func (s *subject) hangUp() {
	hangUp(s.toMany)
	for _, clients := range s.clients {
		hangUp(clients)
	}
}

// first starts the process that will be put under load, and gets its one token.
func (w *world) first(s *subject, p plan) (err error) {
	info, err := os.Stat(s.file)
	if err != nil {
		return err
	}
	s.size = float64(info.Size())
	if s.one, s.idle, err = w.atRest(s.program, p); err != nil {
		return err
	}
	w.cloud.Entra.ResetCalls()
	_, err = w.reply(s.one)
	s.firstCalls = w.cloud.Entra.Calls().Requests
	return err
}

// atRest starts a process and lets it settle.
func (w *world) atRest(prog program, p plan) (*process, float64, error) {
	proc, err := w.start(prog)
	if err != nil {
		return nil, 0, err
	}
	if err := pause(w.ctx, p.settle); err != nil {
		return nil, 0, err
	}
	m, err := proc.memory()
	return proc, m, err
}

// reply asks a process once.
func (w *world) reply(p *process) ([]byte, error) {
	clients, err := dial(w.ctx, p.address, 1)
	if err != nil {
		return nil, err
	}
	defer hangUp(clients)
	if err := clients[0].limit(); err != nil {
		return nil, err
	}
	reply, err := clients[0].ask(p.tokenRequest(vault))
	if err == nil && status(reply) != 200 {
		err = fmt.Errorf("%q", reply)
	}
	return bytes.Clone(reply), err
}

// newFloor starts the floor and holds it against svidecar's reply.
func (w *world) newFloor(ours *subject, p plan) (*subject, error) {
	want, err := w.reply(ours.one)
	if err != nil {
		return nil, err
	}
	prog, err := w.floorProgram(want)
	if err != nil {
		return nil, err
	}
	s := &subject{program: prog}
	if s.one, s.idle, err = w.atRest(prog, p); err != nil {
		return nil, err
	}
	got, err := w.reply(s.one)
	if err != nil {
		return nil, err
	}
	if a, b := headerNames(want), headerNames(got); !slices.Equal(a, b) || len(want) != len(got) {
		return nil, fmt.Errorf("it answers %d bytes under %q, svidecar %d under %q", len(got), b, len(want), a)
	}
	return s, w.burstFloor(s, p)
}

func (w *world) burstFloor(s *subject, p plan) error {
	crowd, err := dial(w.ctx, s.one.address, burst)
	if err != nil {
		return err
	}
	defer hangUp(crowd)
	atOnce(crowd, [][]byte{s.tokenRequest(vault)})
	if s.busy, err = s.one.memory(); err != nil {
		return err
	}
	hangUp(crowd)
	if err := pause(w.ctx, p.settle); err != nil {
		return err
	}
	s.after, err = s.one.memory()
	return err
}

func headerNames(reply []byte) (names []string) {
	header, _, _ := bytes.Cut(reply, []byte("\r\n\r\n"))
	for line := range bytes.SplitSeq(header, []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// bursts asks a new process for cold tokens, all requests at once, and lets it
// settle.
func (w *world) bursts(s *subject, p plan) error {
	proc, _, err := w.atRest(s.program, p)
	if err != nil {
		return err
	}
	defer w.end(proc)
	crowd, err := dial(w.ctx, proc.address, burst)
	if err != nil {
		return err
	}
	defer hangUp(crowd)
	if err := w.cloud.Entra.SetFault("*", entratest.Fault{Latency: exchangeTakes}); err != nil {
		return err
	}
	defer w.cloud.Entra.ClearFaults()
	s.coldOne = w.burst(s, crowd, requestsFor(s.program, "one", 1))
	if s.busy, err = proc.memory(); err != nil {
		return err
	}
	s.coldTen = w.burst(s, crowd, requestsFor(s.program, "ten", 10))
	hangUp(crowd)
	if err := pause(w.ctx, p.settle); err != nil {
		return err
	}
	if s.after, err = proc.memory(); err != nil {
		return err
	}
	return w.failures(s, proc, p)
}

// failures asks for what Entra does not give, by the usual number of clients.
func (w *world) failures(s *subject, proc *process, p plan) error {
	clients, err := dial(w.ctx, proc.address, usual)
	if err != nil {
		return err
	}
	defer hangUp(clients)
	for _, trial := range []struct {
		resource string
		fault    entratest.Fault
		to       *int
	}{
		{"https://refused", entratest.Fault{AADSTS: 700016}, &s.refused},
		{"https://broken", entratest.Fault{Status: 500}, &s.broken},
	} {
		if err := w.cloud.Entra.SetFault(trial.resource+"/.default", trial.fault); err != nil {
			return err
		}
		w.cloud.Entra.ResetCalls()
		if n := inTurn(clients, s.tokenRequest(trial.resource), p.failing)[200]; n > 0 {
			return fmt.Errorf("%s: %d tokens that Entra did not give", trial.resource, n)
		}
		*trial.to = w.cloud.Entra.Calls().Token
	}
	return nil
}

func (w *world) burst(s *subject, crowd []*client, requests [][]byte) entratest.Calls {
	w.cloud.Entra.ResetCalls()
	statuses := atOnce(crowd, requests)
	s.unanswered += len(crowd) - statuses[200]
	return w.cloud.Entra.Calls()
}

// requestsFor asks for n different resources.
func requestsFor(prog program, name string, n int) (requests [][]byte) {
	for i := range n {
		requests = append(requests, prog.tokenRequest(fmt.Sprintf("https://%s-%04d.vault.azure.net", name, i)))
	}
	return requests
}

// end stops a process before the world ends.
func (w *world) end(p *process) {
	w.running = slices.DeleteFunc(w.running, func(other *process) bool { return other == p })
	p.stop()
}

// measureStarts starts and ends all programs in turn.
func (w *world) measureStarts(all []*subject, p plan) error {
	for range p.starts {
		for _, s := range all {
			proc, err := w.start(s.program)
			if err != nil {
				return err
			}
			w.end(proc)
			s.starts = append(s.starts, proc.took.Seconds())
		}
	}
	return nil
}

// prepareLoad opens the connections, and fills the cache of a second process.
func (w *world) prepareLoad(s *subject, p plan) (err error) {
	s.loads, s.clients = map[int][]sample{}, map[int][]*client{}
	for _, n := range connections {
		if s.clients[n], err = dial(w.ctx, s.one.address, n); err != nil {
			return err
		}
		// A connection that is not used soon would be taken for an attack.
		if ok := atOnce(s.clients[n], [][]byte{s.tokenRequest(vault)})[200]; ok != n {
			return fmt.Errorf("%d of %d connections got a token", ok, n)
		}
	}
	if s.name == floorCommand {
		return nil
	}
	if s.many, err = w.start(s.program); err != nil {
		return err
	}
	if s.toMany, err = dial(w.ctx, s.many.address, usual); err != nil {
		return err
	}
	s.turns = requestsFor(s.program, "many", p.many)
	for batch := range slices.Chunk(s.turns, usual) {
		if n := atOnce(s.toMany[:len(batch)], batch)[200]; n != len(batch) {
			return fmt.Errorf("%d of %d tokens", n, len(batch))
		}
	}
	s.crowded, err = s.many.memory()
	return err
}

// measureLoads lets all take turns, in another order each round. The first round
// warms up and does not count.
func (w *world) measureLoads(all []*subject, p plan) error {
	for round := range p.rounds + 1 {
		for _, n := range connections {
			for i := range all {
				if err := w.ctx.Err(); err != nil {
					return context.Cause(w.ctx)
				}
				s := all[(i+round)%len(all)]
				if err := s.turn(n, p.slice, round > 0); err != nil {
					return fmt.Errorf("%s: %d connections: %w", s.name, n, err)
				}
			}
		}
	}
	return nil
}

// turn puts one program under load with n connections.
func (s *subject) turn(n int, during time.Duration, counts bool) error {
	sampled, used, err := measured(s.one, s.clients[n], [][]byte{s.tokenRequest(vault)}, during)
	if err != nil {
		return err
	}
	if counts {
		s.loads[n] = append(s.loads[n], sampled)
		if n == usual {
			s.cost = cpu{s.cost.seconds + used, s.cost.requests + sampled.requests}
		}
	}
	if n != usual || s.many == nil {
		return nil
	}
	sampled, used, err = measured(s.many, s.toMany, s.turns, during)
	if err == nil && counts {
		s.loadsMany = append(s.loadsMany, sampled)
		s.costMany = cpu{s.costMany.seconds + used, s.costMany.requests + sampled.requests}
	}
	return err
}

func measured(p *process, clients []*client, requests [][]byte, during time.Duration) (sample, float64, error) {
	before, err := p.cpu()
	if err != nil {
		return sample{}, 0, err
	}
	sampled, err := load(clients, requests, during)
	after, failed := p.cpu()
	return sampled, after - before, errors.Join(err, failed)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

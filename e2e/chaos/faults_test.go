package chaos_test

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

// fault is one way in which the world breaks.
type fault struct {
	name string
	// begin breaks it. It may leave a goroutine that goes on breaking it until
	// ctx ends, and that done waits for.
	begin func(ctx context.Context, w *world) (done func(), err error)
	// mend undoes begin.
	mend func(w *world) error

	seamless bool // no request at all may fail
	local    bool // the identity with a source of its own must not notice
	refusal  bool // a permanent refusal (400) is a right answer
	ownCloud bool // the emulator's process itself is disturbed
	named    bool // Entra is found by name, through a proxy
	// late is how much longer than recovery's bound things may take.
	late func(size) time.Duration
}

// atOnce breaks the world by a single act.
func atOnce(act func(*world) error) func(context.Context, *world) (func(), error) {
	return func(_ context.Context, w *world) (func(), error) { return func() {}, act(w) }
}

// again breaks it in steps, and again and again.
func again(every time.Duration, step func(w *world, i int) error) func(context.Context, *world) (func(), error) {
	return func(ctx context.Context, w *world) (func(), error) {
		done := make(chan error, 1)
		go func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			var errs []error
			for i := 0; ; i++ {
				errs = append(errs, step(w, i))
				select {
				case <-tick.C:
				case <-ctx.Done():
					done <- errors.Join(errs...)
					return
				}
			}
		}()
		return func() {
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		}, nil
	}
}

// under changes the weather.
func under(now weather) func(context.Context, *world) (func(), error) {
	return atOnce(func(w *world) error { w.link.set(now); return nil })
}

func fair(w *world) error { w.link.set(weather{}); return nil }

// replying is a fault of the emulator's.
func replying(f entratest.Fault) func(context.Context, *world) (func(), error) {
	return atOnce(func(w *world) error { return w.spoil(f) })
}

// faults are all that is tried.
func faults() []fault {
	return append(pathFaults(), append(entraFaults(), fileFaults()...)...)
}

func pathFaults() []fault {
	return []fault{
		{name: "latency", begin: under(weather{latency: 40 * time.Millisecond}), mend: fair, seamless: true},
		{name: "little bandwidth", begin: under(weather{rate: 64 << 10}), mend: fair, seamless: true},
		{name: "resets in the middle", begin: atOnce(func(w *world) error {
			w.link.set(weather{resetAfter: 2500})
			w.link.cut()
			return nil
		}), mend: fair},
		{name: "resets at any time", begin: again(150*time.Millisecond, func(w *world, _ int) error { w.link.cut(); return nil }), mend: fair},
		{name: "half-open connections", begin: under(weather{deaf: true}), mend: fair, late: deadConnections},
		{name: "black hole", begin: under(weather{hole: true}), mend: fair},
		{name: "connections refused", begin: atOnce(func(w *world) error { return w.link.refuse() }), mend: func(w *world) error { return w.link.open() }},
		{name: "wrong certificate", begin: atOnce(func(w *world) error {
			w.link.aim(w.liar.Listener.Addr().String())
			return nil
		}), mend: func(w *world) error { w.link.aim(w.cloud.Address); return nil }},
		{name: "name does not resolve", named: true, begin: atOnce(func(w *world) error {
			w.tunnel.lost.Store(true)
			w.link.cut()
			return nil
		}), mend: func(w *world) error { w.tunnel.lost.Store(false); return nil }},
	}
}

func entraFaults() []fault {
	return []fault{
		{name: "429 with Retry-After", begin: atOnce(func(w *world) error {
			return w.spoil(entratest.Fault{Status: 429, RetryAfter: strconv.Itoa(w.form.retryAfter)})
		}), mend: (*world).heal, late: func(f size) time.Duration { return time.Duration(f.retryAfter) * time.Second }},
		{name: "500", begin: replying(entratest.Fault{Status: 500}), mend: (*world).heal},
		{name: "503", begin: replying(entratest.Fault{Status: 503}), mend: (*world).heal},
		{name: "AADSTS90033", begin: replying(entratest.Fault{AADSTS: 90033}), mend: (*world).heal},
		{name: "AADSTS700213 now and then", begin: again(100*time.Millisecond, nowAndThen), mend: (*world).heal, seamless: true},
		{name: "AADSTS700213 throughout", begin: replying(entratest.Fault{AADSTS: 700213}), mend: (*world).heal},
		{name: "rubbish", begin: replying(entratest.Fault{Garbage: true}), mend: (*world).heal},
		{name: "half a reply", begin: replying(entratest.Fault{Truncate: true}), mend: (*world).heal},
		{name: "silence", begin: replying(entratest.Fault{Hang: true}), mend: (*world).heal},
		{name: "process stopped", ownCloud: true, begin: atOnce(func(w *world) error { return stop(w.cloud.cmd.Process) }),
			mend: func(w *world) error { resume(w.cloud.cmd.Process); return nil }},
	}
}

// nowAndThen has Entra refuse one resource's healthy credentials, and no longer the
// one before it: more often than it does, and each for less time than an exchange
// has.
func nowAndThen(w *world, i int) error {
	var resources []*key
	for _, k := range w.keys {
		if k.number == 0 {
			resources = append(resources, k)
		}
	}
	if err := w.heal(); err != nil || i%2 == 1 {
		return err
	}
	return w.cloud.setFault(resources[i/2%len(resources)].resource, entratest.Fault{AADSTS: 700213})
}

func fileFaults() []fault {
	restore := func(w *world) error { return w.volume.write() }
	return []fault{
		{name: "token file swapped", begin: again(50*time.Millisecond, func(w *world, _ int) error { return w.volume.write() }), mend: restore, local: true, seamless: true},
		{name: "token file truncated", begin: atOnce(func(w *world) error { return w.volume.truncate() }), mend: restore, local: true, refusal: true},
		{name: "token file removed", begin: atOnce(func(w *world) error { return w.volume.remove() }), mend: restore, local: true, refusal: true},
	}
}

// deadConnections: one that died without a word is found by an exchange that runs
// out of time; with it go all that were idle beside it, and what is in the air ends
// by itself.
func deadConnections(f size) time.Duration { return 2 * f.timeout }

//go:build e2e && linux

package clients_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange/entratest"
)

const (
	// soon is how fast an error that no retry can mend must reach the app,
	// from its request on.
	soon = 2 * time.Second
	// attempts at that, since the machine may be busy, and a chain's probe
	// waits for a second only: a client that waits does so each time.
	attempts = 3
	// outage is one that ends by itself, before svidecar tries again: after a
	// second failure it waits for about as long as the least patient clients do.
	outage = 500 * time.Millisecond
	// endurance is how long Entra is down at most.
	endurance = 75 * time.Second
	// short is the life of a token near its end. svidecar hands none out in
	// its last two seconds.
	short = 8 * time.Second
	// slow is how long Entra takes for a token. svidecar waits for ten.
	slow = 5 * time.Second
)

// starts is how long the clients may take to start of which each request is a program
// of its own.
var starts = map[string]time.Duration{"azure-cli": 8 * time.Second, "azure-cli before 2.73": 8 * time.Second}

// drawn are those that draw their waits by lot, up to minutes, and cannot be told
// otherwise: how long they go on differs from run to run.
var drawn = map[string]bool{"azure-cli before 2.73": true}

var behaviours = []behaviour{
	{name: "Entra refuses for good (400)", run: func(t *testing.T, p *place, c *client) string {
		if err := p.warm(c); err != nil {
			return complaint(t, c, err)
		}
		return p.refused(t, c, "AADSTS700016", func() string {
			resource := unique("refused")
			p.setFault(t, resource, entratest.Fault{AADSTS: 700016})
			return resource
		})
	}},
	{name: "policy refuses the resource (403)", with: asClient(func() string { return bound }), run: func(t *testing.T, p *place, c *client) string {
		if _, err := c.ask(boundTo); err != nil {
			return complaint(t, c, err)
		}
		p.mark = ""
		return p.refused(t, c, "allowed-resources", func() string { return unique("forbidden") })
	}},
	{name: "identity not listed (400)", with: asClient(func() string { return fmt.Sprintf("44444444-aaaa-4aaa-8aaa-%012d", serial.Add(1)) }), run: func(t *testing.T, p *place, c *client) string {
		return p.refused(t, c, "Identity not found", func() string { return unique("unlisted") })
	}},
	{name: "Entra throttles once (429)", asleep: true, run: func(t *testing.T, p *place, c *client) string {
		resource := unique("throttled")
		p.setFault(t, resource, entratest.Fault{Status: 429, RetryAfter: "1", Times: 1})
		return persevere(t, c, patience, resource, nil)
	}},
	{name: "Entra down for a moment (503)", asleep: true, run: func(t *testing.T, p *place, c *client) string {
		resource, up := unique("outage"), make(chan struct{})
		p.setFault(t, resource, entratest.Fault{Status: 503})
		defer p.onceAsked(resource, func() {
			time.AfterFunc(outage, func() { p.setFault(t, resource, entratest.Fault{}); close(up) })
		})()
		return persevere(t, c, 2*patience, resource, func() {
			select {
			case <-up:
			case <-time.After(patience): // Entra has not been asked
			}
		})
	}},
	{name: "Entra down (503)", asleep: true, run: func(t *testing.T, p *place, c *client) string {
		return p.long(t, c, entratest.Fault{Status: 503})
	}},
	{name: "Entra silent", asleep: true, run: func(t *testing.T, p *place, c *client) string {
		return p.long(t, c, entratest.Fault{Hang: true})
	}},
	{name: "tokens that live for 8 s", asleep: true, run: shortLived},
	{name: "first token after 5 s", run: func(t *testing.T, p *place, c *client) string {
		resource := unique("slow")
		p.setFault(t, resource, entratest.Fault{Latency: slow, Times: 1})
		defer p.onceAsked(resource, p.leave)()
		return persevere(t, c, patience, resource, nil)
	}},
	{name: "`HTTP_PROXY` without `NO_PROXY`", with: strayIMDS, run: func(t *testing.T, p *place, c *client) string { return p.astray(t, c) }},
	{name: "… by App Service's variables", with: strayAppService, run: func(t *testing.T, p *place, c *client) string { return p.astray(t, c) }},
	{name: "… and `NO_PROXY` as injected", with: strayNot, run: func(t *testing.T, p *place, c *client) string { return p.astray(t, c) }},
}

// warm has the client get a token first, so that the time that it takes to start is
// not counted.
func (p *place) warm(c *client) error {
	_, err := c.ask(unique("before"))
	return err
}

// onceAsked does something once Entra has been asked for the resource. What it returns
// ends the watch.
func (p *place) onceAsked(resource string, do func()) (end func()) {
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for p.cloud.Entra.Calls().Scopes[resource+"/.default"] == 0 {
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
		do()
	})
	return func() { close(done); watching.Wait() }
}

// asClient selects an identity by client id.
func asClient(id func() string) func(*place, string) (env, args []string) {
	return func(p *place, _ string) (env, args []string) {
		p.mark = id()
		return nil, []string{"client_id", p.mark}
	}
}

// refused judges an error that no retry can mend: it must be there soon, by one
// request, and say why. Next gives a resource that is refused.
func (p *place) refused(t *testing.T, c *client, why string, next func() string) (said string) {
	for range attempts {
		resource := next()
		mark := resource
		if p.mark != "" {
			mark = p.mark
		}
		before := p.sidecar.requests(t, mark)[0]
		began := time.Now()
		token, err := c.ask(resource)
		took := time.Since(began)
		switch {
		case err == nil:
			return judge(t, token, resource, addressTenant)
		case errors.Is(err, errTooLong): // and it has been ended
			return fmt.Sprintf("no error within %.0f s", patience.Seconds())
		}
		said = "error at once"
		late := took > soon+starts[p.name]
		if late {
			said = "error late"
		}
		if strings.Contains(err.Error(), why) {
			said += ", with the reason"
		}
		n := p.sidecar.requests(t, mark)[0] - before
		if n != 1 {
			said += fmt.Sprintf(", %d requests", n)
		}
		t.Logf("%v: after %v %s: %v", c.cmd.Args, took, said, err)
		if !late && n == 1 {
			break
		}
	}
	return said
}

// persevere asks until there is a token, as an app does that asks again later. An
// app that never gets one would have to be restarted.
func persevere(t *testing.T, c *client, within time.Duration, resource string, up func()) string {
	token, err := c.askWithin(within, resource)
	if err == nil {
		return judge(t, token, resource, addressTenant)
	}
	_ = complaint(t, c, err)
	if errors.Is(err, errTooLong) { // and it has been ended
		return fmt.Sprintf("no answer within %.0f s", within.Seconds())
	}
	if up != nil {
		up()
	}
	end := time.After(10 * time.Second)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		if token, err := c.ask(resource); err == nil {
			return "error, then " + judge(t, token, resource, addressTenant)
		}
		select {
		case <-end:
			return "error for good"
		case <-tick.C:
		}
	}
}

// long has Entra be down until the client has given up, or does not for too long.
func (p *place) long(t *testing.T, c *client, fault entratest.Fault) string {
	if drawn[p.name] {
		return "by chance"
	}
	resource := unique("down")
	p.setFault(t, resource, fault)
	up := func() { p.setFault(t, resource, entratest.Fault{}) }
	defer time.AfterFunc(endurance, up).Stop()
	began := time.Now()
	var took time.Duration
	said := persevere(t, c, endurance+time.Minute, resource, func() { took = time.Since(began); up() })
	t.Logf("%v: error after %v, %s after %v; %d requests", c.cmd.Args, took, said, time.Since(began), p.sidecar.requests(t, resource)[0])
	if took == 0 {
		return fmt.Sprintf("asks on for %.0f s, then %s", endurance.Seconds(), said)
	}
	return strings.Replace(said, "error", "error "+p.scale(took), 1)
}

// scale is a time that does not differ from run to run.
func (p *place) scale(took time.Duration) string {
	if took <= soon+starts[p.name] {
		return "at once"
	}
	for _, seconds := range []int{20, 75, 120} {
		if took.Seconds() <= float64(seconds) {
			return fmt.Sprintf("within %d s", seconds)
		}
	}
	return "after minutes"
}

// shortLived asks over and over for a token of little life, and once more when
// nobody has for longer than that: none that comes may have expired, and each must
// have been replaced in time.
func shortLived(t *testing.T, p *place, c *client) string {
	resource := unique("short")
	p.setFault(t, resource, entratest.Fault{ExpiresIn: short})
	busy, idle := time.After(short-3*time.Second), time.After(5*short/2)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var tokens []string // svidecar renews one in use at half of its life; the last that it so renews ends before idle
	for last := false; ; {
		token, err := c.ask(resource)
		if err != nil {
			return complaint(t, c, err)
		}
		if !time.Now().Before(expiry(t, token)) {
			return "an expired token"
		}
		if tokens = append(tokens, token); last {
			break
		}
		select {
		case <-tick.C:
		case <-busy:
			<-idle
			last = true
		}
	}
	if tokens[0] == tokens[len(tokens)-1] {
		return "a token that is not replaced"
	}
	return judge(t, tokens[0], resource, addressTenant)
}

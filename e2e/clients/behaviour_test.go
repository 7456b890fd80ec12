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

// soon is how fast an error that no retry can mend must reach the app.
const soon = 5 * time.Second

// behaviours are what happens to apps beside the plain request, all over IMDS at its
// own address.
var behaviours = []struct {
	name string
	env  []string
	run  func(t *testing.T, w world, c *client) string
}{
	{"Entra refuses (AADSTS700016)", nil, func(t *testing.T, w world, c *client) string {
		if said := outcome(t, c, unique("first")); said != good { // and the time that it takes to start is not counted
			return said
		}
		began := time.Now()
		if said := outcome(t, c, unique("before")); said != good { // nor that of a command, which starts for each token
			return said
		}
		resource, usual := unique("refused"), time.Since(began)
		w.address.setFault(t, resource, `{"aadsts":700016}`)
		began = time.Now()
		_, err := c.ask(resource)
		switch {
		case err == nil:
			return "a token"
		case time.Since(began) > soon+usual:
			return "error late"
		case !strings.Contains(err.Error(), "AADSTS700016"):
			return "error at once, without the code"
		}
		return "error at once, with the code"
	}},
	{"Entra throttles once (429)", nil, func(t *testing.T, w world, c *client) string {
		resource := unique("throttled")
		w.address.setFault(t, resource, `{"status":429,"retry_after":"1","times":1}`)
		return outcome(t, c, resource)
	}},
	{"proxy set, NO_PROXY as injected", []string{
		"HTTP_PROXY=http://127.0.0.1:9", "http_proxy=http://127.0.0.1:9", // nobody listens there
		"NO_PROXY=127.0.0.1,localhost,169.254.169.254", "no_proxy=127.0.0.1,localhost,169.254.169.254",
	}, func(t *testing.T, _ world, c *client) string { return outcome(t, c, unique("proxy")) }},
}

// outcome asks once.
func outcome(t *testing.T, c *client, resource string) string {
	token, err := c.ask(resource)
	if err != nil {
		t.Logf("%v: %v", c.cmd.Args, err)
		return "error"
	}
	return judge(t, token, resource, addressTenant)
}

// plain gives the clients of a language, without their variants.
func plain(versions map[string]string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		if !strings.Contains(name, ",") {
			names = append(names, name)
		}
	}
	return names
}

// TestBehaviour runs each client through each of the behaviours, and then restarts the
// sidecar between two requests of all of them.
func TestBehaviour(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	w := newWorld(t)
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			command, versions := l.have(t)
			names := plain(versions)
			var b strings.Builder
			b.WriteString("| client |")
			for _, h := range behaviours {
				fmt.Fprintf(&b, " %s |", h.name)
			}
			b.WriteString(" sidecar restarted |\n|---|" + strings.Repeat("---|", len(behaviours)+1) + "\n")
			restarted := w.restart(t, command, names)
			for i, cells := range w.behave(t, command, names) {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", names[i], strings.Join(cells, " | "), restarted[i])
			}
			requireTable(t, l.name+", behaviour", b.String())
		})
	}
}

// behave gives the cells of each client.
func (w world) behave(t *testing.T, command, names []string) [][]string {
	t.Helper()
	var running sync.WaitGroup
	slots := make(chan struct{}, 2)
	all := make([][]string, len(names))
	for i, name := range names {
		all[i] = make([]string, len(behaviours))
		for j, h := range behaviours {
			slots <- struct{}{}
			running.Go(func() {
				defer func() { <-slots }()
				c := startClient(t, command, h.env, name, "system", "")
				defer c.end()
				all[i][j] = h.run(t, w, c)
			})
		}
	}
	running.Wait()
	return all
}

// restart has each client ask before the sidecar ends, and again once its successor
// is ready, which has another key and another emulator.
func (w world) restart(t *testing.T, command, names []string) []string {
	t.Helper()
	cells := make([]string, len(names))
	running := make([]*client, len(names))
	for i, name := range names {
		running[i] = startClient(t, command, nil, name, "system", "")
		defer running[i].end()
		cells[i] = outcome(t, running[i], unique("before"))
	}
	w.address.end(t)
	w.address.start(t)
	for i, c := range running {
		if cells[i] == good {
			cells[i] = outcome(t, c, unique("after"))
		}
	}
	return cells
}

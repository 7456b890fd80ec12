//go:build e2e && linux

package clients_test

import (
	"slices"
	"testing"
)

// refused is a cell whose client asked, and got no token.
const refused = "refused"

// confirm asks once more, one at a time, by each cell that came to no token: that is
// the client's own doing only if it asked nobody.
func (w world) confirm(t *testing.T, command []string, rows []row) {
	t.Helper()
	for _, r := range rows {
		for j, cell := range r.cells {
			if cell != no {
				continue
			}
			before := w.requests(t)
			w.cell(t, command, r.client, slices.IndexFunc(protocols, func(p protocol) bool { return p.name == r.protocol }), j, unique("refused"))
			if w.requests(t) != before {
				r.cells[j] = refused
			}
		}
	}
}

// requests counts what both sidecars have answered, probes included, but for what the
// test itself asks.
func (w world) requests(t *testing.T) (n int) {
	t.Helper()
	for _, s := range []*sidecar{w.address, w.variable} {
		all := s.requests(t, "", "/fence-")
		n += all[0] - all[1]
	}
	return n
}

//go:build e2e && linux

package clients_test

import (
	"bytes"
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
			before := w.answered()
			w.cell(t, command, r.client, slices.IndexFunc(protocols, func(p protocol) bool { return p.name == r.protocol }), j)
			if w.answered() != before {
				r.cells[j] = refused
			}
		}
	}
}

// answered counts what both sidecars have answered, probes included.
func (w world) answered() int { return w.address.answered() + w.variable.answered() }

func (s *sidecar) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Count(s.output.Bytes(), []byte(" msg=request "))
}

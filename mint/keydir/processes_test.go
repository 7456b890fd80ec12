package keydir_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/mint/keydir"
)

// TestProcessesRotateAtOnce: one of them makes the key.
func TestProcessesRotateAtOnce(t *testing.T) {
	for range 2 {
		f := scene(t, "active")
		var all []*process
		for i := range 4 {
			all = append(all, start(t, "rotate", f.Path(), 30+i))
		}
		for _, p := range all {
			p.run()
		}
		var said []string
		for _, p := range all {
			text, _ := p.end()
			said = append(said, text)
		}
		slices.Sort(said)
		if got := strings.Join(said, ", "); got != "done, rotating, rotating, rotating" {
			t.Errorf("four processes say %s; want one done", got)
		}
		f.must(f.Reload())
		if got := stateNames(f.Dir); got != "active pending" || strings.Count(listed(t, f.Path()), ".pem") != 2 {
			t.Errorf("states %s, files %s; want one new key", got, listed(t, f.Path()))
		}
	}
}

// TestProcessesCreateAtOnce: one of them makes the directory.
func TestProcessesCreateAtOnce(t *testing.T) {
	dir := t.TempDir() + "/keys"
	all := []*process{start(t, "create", dir, 30), start(t, "create", dir, 31)}
	for _, p := range all {
		p.run()
	}
	done := 0
	for _, p := range all {
		if said, _ := p.end(); said == "done" {
			done++
		} else if !strings.Contains(said, "has keys already") {
			t.Errorf("a process says %q", said)
		}
	}
	opened, err := keydir.Open(dir)
	if err != nil || done != 1 || strings.Count(listed(t, dir), ".pem") != 1 {
		t.Fatalf("%d made it, files %s, err %v; want one", done, listed(t, dir), err)
	}
	checkComplete(t, opened, "afterwards")
}

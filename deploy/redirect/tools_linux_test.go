package redirect_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/deploy/redirect"
)

// program skips, aloud, where a program of others is not installed.
func program(t *testing.T, name string) {
	t.Helper()
	need(t)
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%v: not tested against it", err)
	}
}

// TestNftReadsThePlan: what is printed is what is done, by nft's own reading.
func TestNftReadsThePlan(t *testing.T) {
	program(t, "nft")
	port, ops := sidecar(t, "127.0.0.1:0")
	p := plan(t, redirect.Config{Port: port})
	t.Cleanup(func() { _ = p.Remove(t.Context()) })
	for range 2 {
		requireClosed(t)
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(p.String())
		if out, err := nft.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
	}
	if err := p.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := verify(t, p, ops); err != nil {
		t.Error(err)
	}
	listed, err := exec.Command("nft", "list", "table", "ip", "svidecar").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(p.String(), string(listed)) {
		t.Errorf("nft lists\n%s\nthe plan says\n%s", listed, p)
	}
	if out, err := exec.Command("nft", "add table ip svidecar { flags dormant; }").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	wantError(t, p.Check(t.Context()), "has the flags 0x1")
	wantError(t, verify(t, p, ops), "do not reach the sidecar")
}

// TestIPTables: the fallback, with the program that is here.
func TestIPTables(t *testing.T) {
	program(t, "iptables")
	p, ops := serveAs(t, redirect.IPTables)
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireToken(t)
	if err := verify(t, p, ops); err != nil {
		t.Error(err)
	}
	requireClosed(t)
	listed, err := exec.Command("iptables", "-w", "-t", "nat", "-S", "OUTPUT").Output()
	if err != nil || strings.Count(string(listed), address) != 1 {
		t.Errorf("there are other rules than one (%v):\n%s", err, listed)
	}
	if out, err := exec.Command("iptables", "-w", "-t", "nat", "-I", "OUTPUT", "1", "-j", "ACCEPT").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantError(t, p.Check(t.Context()), "not the planned one")
	if out, err := exec.Command("iptables", "-w", "-t", "nat", "-D", "OUTPUT", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 2 {
		if err := p.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, verify(t, p, ops), "do not reach the sidecar")
}

// TestIPTablesIsAbsent: svidecar's own image has no such program.
func TestIPTablesIsAbsent(t *testing.T) {
	need(t)
	t.Setenv("PATH", t.TempDir())
	p := plan(t, redirect.Config{Method: redirect.IPTables})
	wantError(t, p.Apply(t.Context()), "use --method nftables or address")
	wantError(t, p.Remove(t.Context()), "use --method nftables or address")
}

// TestApplyReadsBack: a program that claims success is not believed.
func TestApplyReadsBack(t *testing.T) {
	need(t)
	liar, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(liar, filepath.Join(dir, "iptables")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	wantError(t, plan(t, redirect.Config{Method: redirect.IPTables}).Apply(t.Context()), "reading back: the first rule of OUTPUT")
}

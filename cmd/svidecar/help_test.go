package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are ours, those below others too, without those that cobra adds.
func commands(t *testing.T) (all []*cobra.Command) {
	t.Helper()
	for _, cmd := range rootCommand().Commands() {
		all = append(append(all, cmd), cmd.Commands()...)
	}
	if len(all) == 0 {
		t.Fatal("no commands")
	}
	return all
}

func TestCommandsExplainThemselves(t *testing.T) {
	for _, cmd := range append(commands(t), rootCommand()) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q, want a line without a full stop", cmd.Name(), cmd.Short)
		}
		if !strings.HasSuffix(strings.TrimSpace(cmd.Long), ".") {
			t.Errorf("%s: Long is %q, want sentences", cmd.Name(), cmd.Long)
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 90 || strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
				t.Errorf("%s: Long has the line %q", cmd.Name(), line)
			}
		}
	}
}

// byHand are the flags that have no variable, by command and name: a manifest's
// env must not keep a redirection from being made, nor make one for a node.
var byHand = []string{"redirect --address", "redirect --dry-run", "redirect --remove", "redirect --unsafe-host-network", "redirect --verify", "wait --redirected"}

// TestFlagsNameTheirVariables: whatever can be given as a flag can be given in a
// manifest's env, and --help says by which name; or that it cannot.
func TestFlagsNameTheirVariables(t *testing.T) {
	for _, cmd := range commands(t) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			want := "(env SVIDECAR_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if slices.Contains(byHand, cmd.Name()+" --"+f.Name) {
				want = "(command line only)"
			}
			if f.Name != "help" && !strings.Contains(f.Usage, want) {
				t.Errorf("%s --%s: the usage %q does not name its variable: want %q", cmd.Name(), f.Name, f.Usage, want)
			}
		})
	}
}

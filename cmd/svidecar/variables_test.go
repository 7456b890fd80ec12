package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/config"
)

// TestOneEnvironmentServesAllCommands: the variables of flags that only one
// command has are known to all, so that none refuses to start over another's.
func TestOneEnvironmentServesAllCommands(t *testing.T) {
	settings := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Register(settings)
	var want []string
	for _, cmd := range commands(t) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if slices.Contains(byHand, cmd.Name()+" --"+f.Name) {
				return
			}
			if name := "SVIDECAR_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")); f.Name != "help" && settings.Lookup(f.Name) == nil && !slices.Contains(want, name) {
				want = append(want, name)
			}
		})
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, config.CommandVariables()); diff != "" {
		t.Errorf("variables of flags that are no settings (-flags +known):\n%s", diff)
	}
}

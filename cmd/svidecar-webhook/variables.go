package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// readVariables sets flags that were not given from the environment. A variable
// of ours that no flag has was meant for something, so it is refused.
func readVariables(fs *pflag.FlagSet, environ []string) error {
	flags := map[string]*pflag.Flag{}
	fs.VisitAll(func(f *pflag.Flag) {
		if strings.Contains(f.Usage, "(env ") {
			flags[variable(f.Name)] = f
		}
	})
	var bad []error
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		f, known := flags[name]
		switch {
		case !known:
			bad = append(bad, fmt.Errorf("variable %s is unknown: svidecar-webhook --help names those there are", name))
		case f.Changed:
		default:
			if err := fs.Set(f.Name, value); err != nil {
				bad = append(bad, fmt.Errorf("variable %s: %w", name, err))
			}
		}
	}
	return errors.Join(bad...)
}

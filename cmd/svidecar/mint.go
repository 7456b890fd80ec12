package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func mintCommand() *cobra.Command {
	var name string
	var show display
	cmd := &cobra.Command{
		Use:   "mint",
		Short: "Get one assertion, as serve would, and say what Entra will see of it",
		Long: `Get one assertion from a source, as serve would for an exchange, and print its
issuer, subject, audience and life: what the identity's federated credential must
equal byte for byte. The assertion itself is printed only with --raw: whoever
reads it can be this workload until it expires.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadSources(cmd.Flags(), os.Environ())
			if err = errors.Join(err, show.check()); err != nil {
				return err
			}
			made, err := newSources(cfg)
			if err != nil {
				return err
			}
			defer made.close()
			if name == "" {
				name = cfg.DefaultSource()
			}
			from, ok := made.byName[name]
			if !ok {
				return fmt.Errorf("--source-name: %q is none of the sources %s", name, strings.Join(slices.Sorted(maps.Keys(made.byName)), ", "))
			}
			assertion, err := from.Assertion(cmd.Context())
			if err != nil {
				return err
			}
			return show.print(cmd.OutOrStdout(), assertion.Value, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, assertion.Claims)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&name, "source-name", "", "`name` of the source in the --config file; if not given, the default one")
	show.register(cmd.Flags(), "assertion")
	config.Register(cmd.Flags())
	return cmd
}

package main

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func tokenCommand() *cobra.Command {
	var name, resource string
	var show display
	cmd := &cobra.Command{
		Use:   "token --resource RESOURCE",
		Short: "Get one access token, as serve would, and say what it is",
		Long: `Get one access token with the settings of serve, without a running sidecar, and
print whose it is and how long it lives. The token itself is printed only with
--raw: whoever reads it can use it.`,
		Example: `  svidecar token --resource https://vault.azure.net
  svidecar token --resource https://vault.azure.net --claims`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags(), os.Environ())
			if err = errors.Join(err, show.check()); err != nil {
				return err
			}
			key, token, err := oneToken(cmd.Context(), cfg, name, resource)
			if err != nil {
				return err
			}
			return show.print(cmd.OutOrStdout(), token.Value, func(w io.Writer) error { return describe(w, key, token) })
		},
	}
	cmd.Flags().StringVar(&resource, "resource", "", "`resource` that the token is for, such as https://vault.azure.net")
	cmd.Flags().StringVar(&name, "identity", "", "`name` or client id of the identity; if not given, the default one")
	show.register(cmd.Flags(), "access token")
	config.Register(cmd.Flags())
	return cmd
}

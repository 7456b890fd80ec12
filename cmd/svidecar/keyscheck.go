package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/mint/publish"
)

func keysCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Fetch the issuer's documents from its URL, and compare them with the keys",
		Long: `Fetch the discovery document and the key set from the issuer's URL, as Microsoft
Entra ID does, and compare them with the directory. A key that is missing there
ends the command with status 1: upload the documents before that key signs. So does
a key that the directory does not have: it may have been withdrawn, or be another
machine's.`,
		Example: `  svidecar keys check --key-dir keys`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			served, err := publish.Check(cmd.Context(), checkClient(), dir.Issuer())
			if err != nil {
				return err
			}
			if err := missing(dir.Keys(), served); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s serves all %d keys of %s\n", dir.Issuer(), len(dir.Keys()), dir.Path())
			return err
		},
	}
	registerKeys(cmd)
	return cmd
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/mint/keydir"
)

func keysExportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export SITE",
		Short: "Write the issuer's two documents into a directory, for static hosting",
		Long: `Write the issuer's discovery document and key set below SITE, in the places where
they belong below the issuer's URL, and take the keys in them for published: upload
SITE at once, with content type application/json. Do so again after each rotation,
and once more when a retired key has left (see "svidecar keys list").`,
		Example: `  svidecar keys export --key-dir keys site`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			if err := exportDocuments(dir, args[0]); err != nil {
				return err
			}
			return tellExport(cmd, dir, args[0])
		},
	}
	registerKeys(cmd)
	return cmd
}

func tellExport(cmd *cobra.Command, dir *keydir.Dir, site string) error {
	if err := printRows(cmd.OutOrStdout(), rowsOf(dir.Keys())); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\nNext: upload the contents of %s to %s\n", site, dir.Issuer())
	return err
}

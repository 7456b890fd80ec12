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
		Args:    wants("SITE", "the directory to write to"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			dropped, err := exportDocuments(cmd.Context(), dir, args[0])
			if err != nil {
				return err
			}
			return tellExport(cmd, dir, args[0], dropped)
		},
	}
	registerKeys(cmd)
	return cmd
}

func tellExport(cmd *cobra.Command, dir *keydir.Dir, site string, dropped []string) error {
	out := cmd.OutOrStdout()
	if err := printRows(out, rowsOf(dir.Keys())); err != nil {
		return err
	}
	for _, kid := range dropped {
		_, _ = fmt.Fprintf(out, "\nNo longer in the key set: %s\n", kid)
	}
	_, err := fmt.Fprintf(out, "\nNext: upload the contents of %s to %s now, and run svidecar keys check --key-dir %s\n", site, dir.Issuer(), dir.Path())
	return err
}

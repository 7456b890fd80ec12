package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

func keysListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the keys, their states, and when these change",
		Long: `Show each key of the directory with its state, and the times at which it changes:
since when it is published, from when it signs, until when, and when it leaves the
key set.`,
		Example: `  svidecar keys list --key-dir keys`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			rows := rowsOf(dir.Keys())
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(rows)
			}
			return printRows(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	registerKeys(cmd)
	return cmd
}

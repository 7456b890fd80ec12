package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make and rotate the signing keys of an issuer of one's own",
		Long: `Keep the signing keys of an issuer in a directory. A key is made, then published
with the issuer's key set, signs once everybody who keeps a copy of the key set
has had time to fetch it anew, retires when the next one signs, and leaves the
key set when its last assertion has ended. Time moves keys through these states;
only making and publishing them is left to you, or to "svidecar issuer".`,
		Example: `  svidecar keys init --key-dir keys --issuer https://issuer.example.com
  svidecar keys export --key-dir keys site
  svidecar keys check --key-dir keys
  svidecar keys list --key-dir keys`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("keys: there is no command %q: svidecar keys --help lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(keysInitCommand(), keysListCommand(), keysRotateCommand(), keysRetireCommand(), keysExportCommand(), keysCheckCommand())
	return cmd
}

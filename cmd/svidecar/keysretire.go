package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func keysRetireCommand() *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "retire KEY",
		Short: "Withdraw a key that does not sign yet, or one that was stolen",
		Long: `Withdraw a key that waits to sign. The key that signs retires by itself when the
next one takes over: make that with "svidecar keys rotate".

If a private key was stolen, --unsafe-now takes it out of the key set and off the
disk, and lets the next key sign at once: publish the key set again without delay.
Whoever still has a copy of the old one refuses the new key's assertions, and
believes the stolen key, until they fetch it anew; for Microsoft Entra ID that may
take a day, so remove the federated credentials too if that is too long.`,
		Example: `  svidecar keys retire --key-dir keys hVm3xQ
  svidecar keys retire --key-dir keys hVm3xQ --unsafe-now`,
		Args: wants("KEY", "the key's id, or its first characters; after -- if it begins with a dash"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			if err := dir.Retire(cmd.Context(), args[0], now); err != nil {
				return err
			}
			if err := printRows(cmd.OutOrStdout(), rowsOf(dir.Keys())); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nNext: publish the key set without it, by svidecar keys export --key-dir %s SITE and\nuploading SITE. Where svidecar issuer runs on this directory, it has done so.\n", dir.Path())
			return err
		},
	}
	cmd.Flags().BoolVar(&now, "unsafe-now", false, "retire even the key that signs, at once, because it was stolen")
	registerKeys(cmd)
	return cmd
}

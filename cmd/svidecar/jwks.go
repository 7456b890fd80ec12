package main

import (
	"crypto"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint"
)

func jwksCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "jwks FILE...",
		Short: "Make a key set from PEM files",
		Long: `Print the JSON key set of the RSA keys in PEM files: public keys, such as the
service-account keys of a Kubernetes cluster, certificates, or private keys, of
which only the public half is used. Each key is named as Kubernetes names it.`,
		Example: `  svidecar jwks sa.pub
  svidecar jwks --output-file jwks.json old.pub new.crt`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := config.LoadPart(cmd.Flags(), os.Environ()); err != nil {
				return err
			}
			var keys []crypto.PublicKey
			for _, path := range args {
				more, err := mint.LoadPublicKeys(path)
				if err != nil {
					return err
				}
				keys = append(keys, more...)
			}
			keySet, err := mint.KeySet(keys...)
			if err != nil {
				return err
			}
			if output != "" {
				return os.WriteFile(output, keySet, 0o644)
			}
			_, err = cmd.OutOrStdout().Write(keySet)
			return err
		},
	}
	cmd.Flags().StringVar(&output, "output-file", "", "`file` to write to, in place of standard output (env SVIDECAR_OUTPUT_FILE)")
	return cmd
}

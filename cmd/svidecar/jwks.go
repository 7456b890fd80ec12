package main

import (
	"crypto"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint"
)

func jwksCommand() *cobra.Command {
	var output, site string
	cmd := &cobra.Command{
		Use:   "jwks FILE...",
		Short: "Make a key set from PEM files and other key sets",
		Long: `Print the JSON key set of the RSA keys in files: PEM public keys, such as the
service-account keys of a Kubernetes cluster, certificates, private keys, of which
only the public half is used, or other key sets. Each key is named as Kubernetes
names it.

With --issuer and --export, write both of the issuer's documents for static
hosting, as "svidecar keys export" does for a directory of keys.`,
		Example: `  svidecar jwks sa.pub
  svidecar jwks --output-file jwks.json old.pub new.crt
  svidecar jwks --issuer https://issuer.example.com --export site key.pem`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("FILE: it is missing: name the files that hold the keys")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.LoadPart(cmd.Flags(), os.Environ())
			if err != nil {
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
			return showKeys(cmd.OutOrStdout(), cfg.Issuer, site, output, args, keys)
		},
	}
	cmd.Flags().StringVar(&output, "output-file", "", "`file` to write to, in place of standard output")
	cmd.Flags().StringVar(&site, "export", "", "write both documents below this `directory`; needs --issuer")
	config.Register(cmd.Flags(), "issuer")
	return cmd
}

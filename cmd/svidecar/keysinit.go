package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/mint/keydir"
)

func keysInitCommand() *cobra.Command {
	var opts keydir.Options
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a directory of keys with a first key",
		Long: `Make a directory of keys for one issuer, with a first key in it. The issuer is the
URL below which its documents will be found, and part of every federated
credential: choose one that can stay.

--publication-wait is how long each later key is in the key set before it signs.
Microsoft Entra ID may keep a copy of a key set for a day, so less than 24h is for
tests.`,
		Example: `  svidecar keys init --key-dir keys --issuer https://issuer.example.com`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadKeys(cmd)
			if err != nil {
				return err
			}
			if opts.Issuer = cfg.Issuer; opts.Issuer == "" {
				return errors.New("--issuer: it is missing: name the https URL that the documents will be found at")
			}
			if opts.PublicationWait <= 0 {
				return errors.New("--publication-wait: give a duration such as 24h")
			}
			dir, err := keydir.Create(cfg.KeyDir, opts)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key     %s\nissuer  %s\n\nNext: publish it, by svidecar keys export --key-dir %s SITE and uploading SITE to\nthe issuer's URL, or by svidecar issuer --key-dir %[3]s.\n",
				dir.Keys()[0].ID, dir.Issuer(), dir.Path())
			return err
		},
	}
	cmd.Flags().IntVar(&opts.Bits, "bits", 2048, "`size` of the keys, 2048 to 4096")
	cmd.Flags().DurationVar(&opts.PublicationWait, "publication-wait", 24*time.Hour, "how long a key is published before it signs")
	registerKeys(cmd, "issuer")
	return cmd
}

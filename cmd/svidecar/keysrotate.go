package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/mint/keydir"
)

func keysRotateCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make the next key",
		Long: `Make the next key. It signs when it has been published for the publication wait;
until then, the present key goes on. A running "svidecar issuer" on this directory
publishes it at once. Static documents must be exported and uploaded again.`,
		Example: `  svidecar keys rotate --key-dir keys && svidecar keys export --key-dir keys site`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := openKeys(cmd)
			if err != nil {
				return err
			}
			rotate := dir.Rotate
			if cmd.Flags().Changed("publication-wait") {
				rotate = func(ctx context.Context) (keydir.Key, error) { return dir.RotateWithWait(ctx, wait) }
			}
			key, err := rotate(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key  %s\n\nNext: publish it, by svidecar keys export --key-dir %s SITE and uploading SITE. It\nsigns when it has been published for the publication wait: svidecar keys list says when.\nWhere svidecar issuer runs on this directory, it has published it.\n", key.ID, dir.Path())
			return err
		},
	}
	cmd.Flags().DurationVar(&wait, "publication-wait", 24*time.Hour, "how long this key and later ones are published before they sign; if not given, as before")
	registerKeys(cmd)
	return cmd
}

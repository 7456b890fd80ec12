package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/mint/keydir"
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

// missing says which keys are not served, and by when that must be mended.
func missing(keys []keydir.Key, served []string) error {
	var all []error
	for _, key := range keys {
		switch {
		case slices.Contains(served, key.ID):
		case key.SignsFrom.IsZero():
			all = append(all, fmt.Errorf("key %s (%v) is not served: export and upload the documents", key.ID, key.State))
		default:
			all = append(all, fmt.Errorf("key %s (%v) is not served: upload the documents; it signs from %s", key.ID, key.State, key.SignsFrom.Format(time.RFC3339)))
		}
	}
	for _, kid := range served {
		if !slices.ContainsFunc(keys, func(key keydir.Key) bool { return key.ID == kid }) {
			all = append(all, fmt.Errorf("key %s is served, and is not in the directory: if nobody else signs for this issuer, upload the documents again, lest it be a stolen one", kid))
		}
	}
	return errors.Join(all...)
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/version"
)

// release is set by the linker in released builds.
var release string

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Print the version of svidecar, that of Go it was built with, and the system.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Line("svidecar", release))
			return err
		},
	}
}

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

// devSettings are the settings of serve that dev has too; the others it makes.
var devSettings = []string{"listen", "unsafe-listen", "ops-listen", "log-level", "log-format", "tenant-id", "client-id", "key-file",
	"protocols", "servicefabric-listen", "servicefabric-thumbprint-file", "servicefabric-certificate-file", "arc-listen", "arc-tokens-dir",
	"instance-metadata-file", "nmi-metrics"}

// devDefaults are for people: text, and each request unless a command's own
// output would drown in them. The user's variables come first, and so count.
func devDefaults(args []string) []string {
	if len(args) > 0 {
		return append(os.Environ(), "SVIDECAR_LOG_FORMAT=text", "SVIDECAR_LOG_LEVEL=info")
	}
	return append(os.Environ(), "SVIDECAR_LOG_FORMAT=text", "SVIDECAR_LOG_LEVEL=debug")
}

func devCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev [-- COMMAND [ARGUMENT...]]",
		Short: "Run the sidecar against an Entra emulator, with no configuration",
		Long: `Run, on this machine alone, an issuer with a key of its own, an emulator of
Microsoft Entra ID that trusts it, and the sidecar. Apps get tokens as they would
in production; the tokens are signed by the emulator and work nowhere else.

With a COMMAND, run it with the variables that managed-identity clients read, and
end with its status. The key is made anew at each start, or kept in --key-file.`,
		Example: `  svidecar dev
  svidecar dev -- python app.py
  svidecar dev --client-id 11111111-2222-3333-4444-555555555555 -- ./app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return fmt.Errorf("dev: unexpected %q: put -- before a command to run", args[0])
			}
			cfg, err := config.LoadPart(cmd.Flags(), devDefaults(args))
			if err != nil {
				return err
			}
			return dev(cmd.Context(), cfg, args)
		},
	}
	config.Register(cmd.Flags(), devSettings...)
	cmd.Flags().Lookup("log-format").DefValue = "text"
	cmd.Flags().Lookup("log-level").DefValue = "debug; with a COMMAND info"
	return cmd
}

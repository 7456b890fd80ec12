package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func serveCommand() *cobra.Command {
	var printConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar",
		Long: `Run the sidecar until SIGTERM or SIGINT.

In a pod that azure-workload-identity's webhook (or svidecar's) has prepared, no
configuration is needed: AZURE_CLIENT_ID, AZURE_TENANT_ID,
AZURE_FEDERATED_TOKEN_FILE and AZURE_AUTHORITY_HOST are read from the environment.
A flag outranks its SVIDECAR_ variable, which outranks the --config file, which
outranks AZURE_ variables. SVIDECAR_IDENTITIES holds a list of identities, as YAML
or JSON, where there is no file.`,
		Example: `  svidecar serve --client-id 11111111-… --tenant-id 22222222-… --federated-token-file /var/run/secrets/azure/tokens/azure-identity-token
  svidecar serve --config svidecar.yaml --print-config`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if printConfig {
				return cfg.Print(cmd.OutOrStdout())
			}
			sc, err := newSidecar(cfg)
			if err != nil {
				return err
			}
			defer sc.close()
			if err := sc.checkSources(cmd.Context()); err != nil {
				return err
			}
			return sc.serve(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print every effective setting and where it came from, and exit")
	config.Register(cmd.Flags())
	return cmd
}

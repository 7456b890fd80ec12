package main

import (
	"os"

	"github.com/spf13/cobra"
)

func rootCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "svidecar-webhook",
		Short: "Add svidecar to pods as they are created",
		Long: `svidecar-webhook answers the Kubernetes API server about each new pod: one that
asks for it by annotation svidecar.io/inject gets the sidecar.

It runs in a cluster, as the Helm chart installs it. Elsewhere it finds the API
server by KUBECONFIG. Each flag has a variable, which the flag outranks.`,
		Example: `  helm install svidecar deploy/chart --namespace svidecar-system --create-namespace --set tenantId=22222222-…
  svidecar-webhook --print-config --sidecar-image=registry.example.com/svidecar:v1`,
		SilenceUsage:       true,
		SilenceErrors:      true,
		DisableSuggestions: true,
		Args:               cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd.Flags(), os.Environ()); err != nil {
				return err
			}
			if o.printConfig {
				return o.print(cmd.OutOrStdout(), cmd.Flags())
			}
			return o.run(cmd.Context())
		},
	}
	o.register(root.Flags())
	root.AddCommand(versionCommand())
	return root
}

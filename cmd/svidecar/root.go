package main

import "github.com/spf13/cobra"

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "svidecar",
		Short: "Managed identity anywhere: a local credential sidecar for Microsoft Entra ID",
		Long: `svidecar answers managed-identity requests of unmodified apps. It takes a
JWT-SVID or a Kubernetes service-account token, redeems it at Microsoft Entra ID
as a federated client assertion, and replies as the real endpoint would.

Start with "svidecar dev": it needs no account and no configuration.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		// With Args set, cobra would answer an unknown command with the help
		// and status 0; with suggestions, in several lines.
		DisableSuggestions: true,
	}
	root.AddCommand(serveCommand(), devCommand(), tokenCommand(), mintCommand(), keysCommand(), issuerCommand(), jwksCommand(), waitCommand(), redirectCommand(), versionCommand())
	return root
}

package main

import (
	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func issuerCommand() *cobra.Command {
	var own issuerFlags
	cmd := &cobra.Command{
		Use:   "issuer",
		Short: "Publish the documents by which others verify what is signed here",
		Long: `Serve the discovery document and the key set of the issuer whose keys "svidecar
keys" made, and nothing else, at the issuer's URL: over HTTPS with
--tls-cert-file, or over HTTP behind a proxy that has a certificate. Microsoft
Entra ID must reach that URL from the internet; with --export the documents are
written for static hosting instead, and the command ends.

With --rotate-every it makes a new key in time. With --workload-api it is a SPIFFE
Workload API too: programs on this machine get JWT-SVIDs from it, as they would
from SPIRE.`,
		Example: `  svidecar issuer --key-dir keys --rotate-every 2160h --issuer-listen :8443 --tls-cert-file tls.crt --tls-key-file tls.key
  svidecar issuer --key-dir keys --export site
  svidecar issuer --key-dir keys --workload-api unix:///run/svidecar/api.sock --subject spiffe://example.com/app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadKeys(cmd)
			if err != nil {
				return err
			}
			if err := own.check(cmd.Flags()); err != nil {
				return err
			}
			is, err := newIssuing(cfg, own)
			if err != nil {
				return err
			}
			if own.export != "" {
				dropped, err := exportDocuments(cmd.Context(), is.dir, own.export)
				if err != nil {
					return err
				}
				return tellExport(cmd, is.dir, own.export, dropped)
			}
			return is.run(cmd.Context())
		},
	}
	own.register(cmd.Flags())
	config.Register(cmd.Flags(), "key-dir", "rotate-every", "unsafe-unpublished-key", "allowed-hosts", "log-level", "log-format", "subject", "assertion-lifetime")
	return cmd
}

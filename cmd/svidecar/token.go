package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/config"
)

func tokenCommand() *cobra.Command {
	var resource string
	var show display
	cmd := &cobra.Command{
		Use:   "token --resource RESOURCE",
		Short: "Get one access token, as serve would, and say what it is",
		Long: `Get one access token with the settings of serve, without a running sidecar, and
print whose it is and how long it lives. The token itself is printed only with
--raw: whoever reads it can use it.`,
		Example: `  svidecar token --resource https://vault.azure.net
  svidecar token --resource https://vault.azure.net --claims`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			sc, err := newSidecar(cfg)
			if err != nil {
				return err
			}
			defer sc.close()
			req, err := imds.ParseRequest(imds.IMDS, url.Values{"resource": {resource}}.Encode())
			if err != nil {
				return fmt.Errorf("--resource: %w", err)
			}
			key, err := sc.policy.Resolve(req)
			if err != nil {
				return err
			}
			token, err := sc.tokens.Token(cmd.Context(), key)
			if err != nil {
				return err
			}
			return show.print(cmd.OutOrStdout(), token.Value.Reveal, func(w io.Writer) error { return describe(w, key, token) })
		},
	}
	cmd.Flags().StringVar(&resource, "resource", "", "`resource` that the token is for, such as https://vault.azure.net")
	show.register(cmd.Flags(), "access token")
	config.Register(cmd.Flags())
	return cmd
}

func describe(w io.Writer, key exchange.Key, token exchange.Token) error {
	_, err := fmt.Fprintf(w, "client id   %s\ntenant      %s\nscope       %s\nexpires on  %s (in %s)\n",
		key.ClientID, key.Tenant, key.Scope, token.ExpiresOn.UTC().Format(time.RFC3339), time.Until(token.ExpiresOn).Round(time.Second))
	return err
}

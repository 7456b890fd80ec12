package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func waitCommand() *cobra.Command {
	var timeout time.Duration
	var redirected bool
	cmd := &cobra.Command{
		Use:   "wait",
		Short: "Block until the sidecar is ready; for scripts and probes",
		Long: `Ask the health listener of the sidecar on this machine until it says that it is
ready, and end with status 0; or with status 1 after --timeout. With --redirected,
it must then be proven that 169.254.169.254 leads to that sidecar, as by
redirect --verify.`,
		Example: `  svidecar wait
  svidecar wait --timeout 5s --ops-listen 127.0.0.1:8001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadPart(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := waitReady(ctx, "http://"+reachable(cfg.OpsListen)+"/readyz"); err != nil || !redirected {
				return err
			}
			return verifyRedirected(ctx, cfg)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait before giving up with status 1")
	cmd.Flags().BoolVar(&redirected, "redirected", false, "prove also that 169.254.169.254 leads to the running sidecar")
	config.CommandLineOnly(cmd.Flags(), "redirected")
	config.Register(cmd.Flags(), "ops-listen")
	return cmd
}

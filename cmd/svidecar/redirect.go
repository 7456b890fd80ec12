package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
)

func redirectCommand() *cobra.Command {
	var r redirection
	cmd := &cobra.Command{
		Use:   "redirect",
		Short: "Lead 169.254.169.254 to the sidecar, for apps that have it built in",
		Long: `Lead what this pod sends to 169.254.169.254, port 80, to the sidecar, and read it
back. It is for an init container with NET_ADMIN, before all others. It may be
repeated, exempts no user, and ends with status 1 and one line if in any doubt.
The metadata service of Azure has an IPv4 address only: there is nothing to do for
IPv6.

  nftables  one rule, set by netlink; needs nf_tables in the kernel
  address   169.254.169.254 on the loopback link; the sidecar then listens on it:
            --listen 169.254.169.254:80 --unsafe-listen
  iptables  the same rule by the program iptables, which svidecar's image lacks

With --verify, in the sidecar's startup probe, it changes nothing and needs no
privilege: it asks the health listener and 169.254.169.254 for the proof of a fresh
nonce, which only the one running sidecar can give.

A network that is not surely a pod's is refused: with hostNetwork: true, a whole
node would be redirected.`,
		Example: `  svidecar redirect --dry-run
  svidecar redirect
  svidecar redirect --verify`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadPart(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return r.run(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	r.register(cmd.Flags())
	cmd.MarkFlagsMutuallyExclusive("dry-run", "remove", "verify")
	config.Register(cmd.Flags(), "listen", "unsafe-listen", "ops-listen")
	return cmd
}

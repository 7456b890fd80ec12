package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/internal/secret"
)

// devSettings are the settings of serve that dev has too; the others it makes.
var devSettings = []string{"listen", "ops-listen", "log-level", "log-format", "tenant-id", "client-id", "key-file"}

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
			// People read this log; a variable of the user's own comes first.
			cfg, err := config.LoadPart(cmd.Flags(), append(os.Environ(), "SVIDECAR_LOG_FORMAT=text"))
			if err != nil {
				return err
			}
			return dev(cmd.Context(), cfg, args)
		},
	}
	config.Register(cmd.Flags(), devSettings...)
	return cmd
}

// dev starts all parts, then the command if there is one, and ends them.
func dev(ctx context.Context, cfg *config.Config, command []string) error {
	// The listeners come first: a taken port should not cost two keys.
	tokens, ops, err := listenBoth(ctx, cfg)
	if err != nil {
		return err
	}
	cloud, err := emulation.Start(emulation.Config{TenantID: cfg.TenantID, ClientID: cfg.ClientID, KeyFile: cfg.KeyFile})
	if err != nil {
		return errors.Join(err, tokens.Close(), ops.Close())
	}
	defer cloud.Close()
	pointAt(cfg, cloud)
	sc, err := assemble(cfg, sources{fallback: cloud.Source}, cloud.CA.Pool())
	if err != nil {
		return err
	}
	defer sc.close()
	server, err := sc.newServer()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		defer stop() // a sidecar that fails ends the command too
		served <- server.Run(ctx, tokens, ops)
	}()
	g := guide{cfg, cloud, "http://" + tokens.Addr().String(), "http://" + ops.Addr().String()}
	if len(command) == 0 {
		g.print(os.Stderr)
		return <-served
	}
	err = g.runCommand(ctx, command)
	stop()
	return errors.Join(<-served, err)
}

// pointAt makes the settings that serve would have been given.
func pointAt(cfg *config.Config, cloud *emulation.Emulation) {
	cfg.AuthorityHost = cloud.Entra.URL() + "/"
	cfg.IdentityHeader = secret.New(rand.Text())
	cfg.ShutdownDelay = 0
	cfg.Identities = []config.Identity{{
		Name: "dev", ClientID: cloud.ClientID, TenantID: cloud.TenantID,
		ObjectID: emulation.ObjectID, ResourceID: emulation.ResourceID, Default: true,
	}}
}

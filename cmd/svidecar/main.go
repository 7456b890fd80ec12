// Command svidecar owns the program that runs beside an app: it wires
// configuration, sources of assertions, the exchange and the local server
// together. It never implements any of them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// The first signal asks for an orderly end; once that has begun, a
	// second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:]))
}

// exitCode is the status of a command that svidecar ran, passed on without a
// message of ours.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("the command ended with status %d", int(c)) }

func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(os.Stderr, "svidecar: %s\n", strings.TrimSpace(line))
	}
	return 1
}

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
		Args:          cobra.NoArgs,
	}
	root.AddCommand(serveCommand(), devCommand(), tokenCommand(), mintCommand(), waitCommand(), versionCommand())
	return root
}

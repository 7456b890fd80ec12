package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/deploy/redirect"
	"github.com/svidecar/svidecar/internal/config"
)

// builtIn is the address that SDKs have built in.
const builtIn = "169.254.169.254"

// redirection is what the flags of redirect say.
type redirection struct {
	method, address        string
	port                   int
	dryRun, remove, verify bool
	unsafeHostNetwork      bool
}

func (r *redirection) register(fs *pflag.FlagSet) {
	fs.StringVar(&r.method, "method", string(redirect.NFTables), "`how`: nftables, address or iptables")
	fs.IntVar(&r.port, "to-port", 0, "`port` of the sidecar on 127.0.0.1; if not given, that of --listen")
	fs.StringVar(&r.address, "address", builtIn, "IPv4 `address` that apps ask, in 169.254.0.0/16")
	fs.BoolVar(&r.dryRun, "dry-run", false, "print what would be done, in the words of nft, ip or iptables, and exit")
	fs.BoolVar(&r.remove, "remove", false, "take the redirection away: apps then reach the real service, if there is one")
	fs.BoolVar(&r.verify, "verify", false, "change nothing: prove that 169.254.169.254 leads to the running sidecar")
	fs.BoolVar(&r.unsafeHostNetwork, "unsafe-host-network", false, "go on where the network may be a whole node's: all pods and processes that share it are redirected")
	// Each of them ends well, or goes on, without the redirection that was asked for.
	config.CommandLineOnly(fs, "address", "dry-run", "remove", "verify", "unsafe-host-network")
}

// run ends in one line, and says nothing else unless it is asked to print.
func (r *redirection) run(ctx context.Context, cfg *config.Config, out io.Writer) error {
	plan, err := r.plan(cfg)
	if err != nil {
		return err
	}
	switch {
	case r.dryRun:
		_, err := fmt.Fprint(out, plan)
		return err
	case r.remove:
		return plan.Remove(ctx)
	case r.verify:
		return plan.Verify(ctx, reachable(cfg.OpsListen))
	}
	return plan.Apply(ctx)
}

// verifyRedirected asks the address that apps ask, however it was redirected.
func verifyRedirected(ctx context.Context, cfg *config.Config) error {
	plan, err := redirect.New(redirect.Config{Method: redirect.Loopback, Address: netip.MustParseAddr(builtIn)})
	if err != nil {
		return err
	}
	return plan.Verify(ctx, reachable(cfg.OpsListen))
}

func (r *redirection) plan(cfg *config.Config) (*redirect.Plan, error) {
	address, err := netip.ParseAddr(r.address)
	if err != nil {
		return nil, fmt.Errorf("--address: %q is not an IPv4 address: leave it out", r.address)
	}
	method, port := redirect.Method(r.method), r.port
	if port == 0 && method != redirect.Loopback {
		if port, err = portOf(cfg.Listen); err != nil {
			return nil, err
		}
	}
	return redirect.New(redirect.Config{Method: method, Address: address, Port: port, UnsafeHostNetwork: r.unsafeHostNetwork})
}

// portOf is the port that the sidecar listens on. One that the system chooses
// cannot be known here.
func portOf(listen string) (int, error) {
	_, text, err := net.SplitHostPort(listen)
	if err != nil {
		return 0, err
	}
	port, err := strconv.Atoi(text)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("--listen: the port of %s is not known before: give --to-port", listen)
	}
	return port, nil
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"os"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/internal/secret"
)

// dev starts all parts, then the command if there is one, and ends them.
func dev(ctx context.Context, cfg *config.Config, command []string) error {
	if _, ok := config.TPM(cfg.KeyFile); ok {
		return errors.New("--key-file: dev makes its own issuer's key, which a TPM cannot keep: give a file, or leave it out")
	}
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
	sc, err := assemble(cfg, sources{fallback: cloud.Source, before: cloud.Admit}, cloud.CA.Pool())
	if err != nil {
		return err
	}
	defer sc.close()
	server, err := sc.newServer()
	if err != nil {
		return err
	}
	sc.warnOfReach(tokens.Addr())
	own, err := sc.endpoints(ctx)
	if err != nil {
		return errors.Join(err, tokens.Close(), ops.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		defer stop() // a sidecar that fails ends the command too
		served <- server.Run(ctx, tokens, ops, own...)
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
	cfg.TenantID, cfg.ClientID = cloud.TenantID, cloud.ClientID
	cfg.AuthorityHost = cloud.Entra.URL() + "/"
	if cfg.IdentityHeader.IsZero() {
		cfg.IdentityHeader = secret.New(rand.Text())
	}
	cfg.ShutdownDelay = 0
	cfg.Identities = []config.Identity{{
		Name: "dev", ClientID: cloud.ClientID, TenantID: cloud.TenantID,
		ObjectID: emulation.ObjectID, ResourceID: emulation.ResourceID, Default: true,
	}}
}

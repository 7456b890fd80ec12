package main

import (
	"context"
	"crypto"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/internal/version"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/keydir"
	"github.com/svidecar/svidecar/mint/publish"
)

// issuing is a running issuer.
type issuing struct {
	cfg       *config.Config
	flags     issuerFlags
	log       *slog.Logger
	dir       *keydir.Dir
	documents *mint.Issuer
	server    *publish.Server
	refresh   func() // of the Workload API; does nothing without one
}

func newIssuing(cfg *config.Config, flags issuerFlags) (*issuing, error) {
	dir, err := keydir.Open(cfg.KeyDir)
	if err != nil {
		return nil, err
	}
	is := &issuing{cfg: cfg, flags: flags, log: newLogger(cfg), dir: dir, refresh: func() {}}
	is.documents, err = mint.NewIssuer(mint.IssuerConfig{Issuer: dir.Issuer(), Keys: dir.Documented()})
	if err != nil {
		return nil, err
	}
	is.server, err = publish.New(publish.Config{
		Documents: is.documents, Issuer: dir.Issuer(), Hosts: cfg.AllowedHosts,
		CertFile: flags.certFile, KeyFile: flags.keyFile, Logger: is.log,
	})
	return is, err
}

// publish shows the keys, and then takes them for published.
func (is *issuing) publish(ctx context.Context) error {
	keys := is.dir.Keys()
	if err := is.documents.Update(publicOf(keys)...); err != nil {
		return err
	}
	is.refresh()
	return is.dir.MarkPublished(ctx, kids(keys)...)
}

// run serves until ctx ends.
func (is *issuing) run(ctx context.Context) error {
	kept := &keeper{dir: is.dir, every: is.cfg.RotateEvery, log: is.log, publish: is.publish}
	if err := kept.start(ctx); err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", is.flags.listen)
	if err != nil {
		return fmt.Errorf("--issuer-listen: cannot listen on %s: %w; stop what uses it, or choose another address", is.flags.listen, cause(err))
	}
	workloads, err := is.workloadAPI()
	if err != nil {
		_ = l.Close()
		return err
	}
	is.log.Info("publishing", "version", version.Of(release), "issuer", is.dir.Issuer(), "address", l.Addr().String(), "https", is.flags.certFile != "")
	kept.tend(ctx, nil) // whoever asks now waits in the listeners for what it publishes
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return is.server.Run(ctx, l) })
	group.Go(func() error {
		kept.run(ctx)
		return nil
	})
	if workloads != nil {
		group.Go(func() error { return workloads(ctx) })
	}
	return group.Wait()
}

func publicOf(keys []keydir.Key) (public []crypto.PublicKey) {
	for _, key := range keys {
		public = append(public, key.Public)
	}
	return public
}

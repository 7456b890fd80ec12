package main

import (
	"fmt"
	"io"
	"os"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/version"
	"github.com/svidecar/svidecar/proxy"
)

func (sc *sidecar) newServer() (*proxy.Server, error) {
	instance, err := readInstance(sc.cfg.InstanceMetadataFile)
	if err != nil {
		return nil, err
	}
	return proxy.New(proxy.Config{
		Tokens:            sc.tokens,
		Policy:            sc.policy,
		Protocols:         protocolsOf(sc.cfg.Protocols),
		ArcTokensDir:      sc.cfg.ArcTokensDir,
		IdentityHeader:    sc.cfg.IdentityHeader,
		AllowedHosts:      sc.cfg.AllowedHosts,
		RequireAPIVersion: sc.cfg.RequireAPIVersion,
		Instance:          instance,
		PassThrough:       proxy.PassThrough{Host: sc.cfg.InstanceMetadataHost, Paths: sc.cfg.InstanceMetadataPaths},
		ShutdownDelay:     sc.cfg.ShutdownDelay,
		MaxRequests:       sc.cfg.MaxRequests,
		MaxConnections:    sc.cfg.MaxConnections,
		Ready:             sc.ready,
		ClockSkew:         sc.entra.Skew,
		NMIMetrics:        sc.cfg.NMIMetrics,
		Namespace:         os.Getenv("SVIDECAR_POD_NAMESPACE"),
		Logger:            sc.log,
		Version:           version.Of(release),
	})
}

// protocolsOf turns names, which the configuration has checked, into protocols.
func protocolsOf(names []string) []imds.Protocol {
	var protocols []imds.Protocol
	for _, name := range names {
		for _, p := range imds.Protocols() {
			if p.String() == name {
				protocols = append(protocols, p)
			}
		}
	}
	return protocols
}

// readInstance reads the document for /metadata/instance, if there is one.
func readInstance(path string) (*imds.Instance, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--instance-metadata-file: %w", err)
	}
	defer f.Close()
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("--instance-metadata-file: %w", err)
	}
	instance, err := imds.ParseInstance(data)
	if err != nil {
		return nil, fmt.Errorf("--instance-metadata-file: %s: %w", path, err)
	}
	return instance, nil
}

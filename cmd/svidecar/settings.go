package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/proxy"
)

// rootsWith adds the certificates in the file to the system's. Without a file it
// is nil, which stands for the system's alone.
func rootsWith(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return roots, nil
}

// newPolicy lists the configured identities. Without a list, AZURE_CLIENT_ID is
// the default and any other client id of the tenant may be asked for, as with
// azure-workload-identity's sidecar. Open allows that beside a list too.
func newPolicy(cfg *config.Config, open bool) (*proxy.Policy, error) {
	pc := proxy.PolicyConfig{Default: -1}
	for i, id := range cfg.Identities {
		if id.Default {
			pc.Default = i
		}
		pc.Identities = append(pc.Identities, proxy.Identity{
			ClientID: id.ClientID, Tenant: id.TenantID, ObjectID: id.ObjectID, ResourceID: id.ResourceID, Resources: id.AllowedResources,
		})
	}
	if cfg.Identities == nil || open {
		pc.AnyClientTenant = cfg.TenantID
	}
	if cfg.Identities == nil && cfg.ClientID != "" {
		pc.Identities, pc.Default = []proxy.Identity{{ClientID: cfg.ClientID, Tenant: cfg.TenantID}}, 0
	}
	return proxy.NewPolicy(pc)
}

func newLogger(cfg *config.Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts))
}

package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/svidecar/svidecar/imds"
	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/proxy"
)

// endpoints opens the listeners of the protocols that have one of their own.
func (sc *sidecar) endpoints(ctx context.Context) (own []proxy.Endpoint, err error) {
	defer func() {
		if err != nil {
			for _, e := range own {
				err = errors.Join(err, e.Listener.Close())
			}
			own = nil
		}
	}()
	if sc.cfg.Serves(config.ProtocolArc) {
		l, err := listen(ctx, "arc-listen", sc.cfg.ArcListen)
		if err != nil {
			return own, err
		}
		own = append(own, proxy.Endpoint{Protocol: imds.Arc, Listener: l})
		sc.log.Info("serving Azure Arc's protocol", "address", l.Addr().String(), "keys", sc.cfg.ArcTokensDir)
	}
	if !sc.cfg.Serves(config.ProtocolServiceFabric) {
		return own, nil
	}
	certificate, err := proxy.NewCertificate()
	if err != nil {
		return own, err
	}
	l, err := listen(ctx, "servicefabric-listen", sc.cfg.ServiceFabricListen)
	if err != nil {
		return own, err
	}
	own = append(own, proxy.Endpoint{Protocol: imds.ServiceFabric, Listener: l, Certificate: &certificate})
	// Only now: until the address was ours, the files could be those of a
	// svidecar that serves there.
	if err := sc.tellOf(certificate); err != nil {
		return own, err
	}
	sc.log.Info("serving Service Fabric's protocol", "address", l.Addr().String(), "thumbprint", proxy.Thumbprint(certificate))
	return own, nil
}

// tellOf writes the files by which clients know the certificate.
func (sc *sidecar) tellOf(certificate tls.Certificate) error {
	block := &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}
	for _, file := range []struct {
		setting, path string
		content       []byte
	}{
		{"servicefabric-thumbprint-file", sc.cfg.ServiceFabricThumbprintFile, []byte(proxy.Thumbprint(certificate) + "\n")},
		{"servicefabric-certificate-file", sc.cfg.ServiceFabricCertificateFile, pem.EncodeToMemory(block)},
	} {
		if file.path == "" {
			continue
		}
		if err := writePublic(file.path, file.content); err != nil {
			return fmt.Errorf("--%s: %w", file.setting, err)
		}
	}
	return nil
}

// writePublic replaces a file whole, so that no reader sees half of it.
func writePublic(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".svidecar-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

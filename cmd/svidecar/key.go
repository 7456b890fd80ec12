package main

import (
	"crypto"

	"github.com/svidecar/svidecar/internal/config"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/tpm"
)

// loadKey makes a signer of a local source's key-file.
func loadKey(keyFile string) (crypto.Signer, error) {
	if key, ok := config.TPM(keyFile); ok {
		return tpm.Open(tpm.Config{Device: key.Device, Handle: key.Handle})
	}
	return mint.LoadKey(keyFile)
}

//go:build !unix

package tpm

import (
	"errors"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

func openDevice(string, time.Duration) (transport.TPMCloser, error) {
	return nil, errors.New("keys in a TPM are not supported on this system: use a key file")
}

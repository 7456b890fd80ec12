//go:build unix

package tpm

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// openDevice connects to a socket, whose every use ends within timeout, or opens
// a character device.
func openDevice(device string, timeout time.Duration) (transport.TPMCloser, error) {
	path, socket := strings.CutPrefix(device, unixPrefix)
	if !socket {
		t, err := linuxtpm.Open(path)
		if errors.Is(err, linuxtpm.ErrFileIsNotDevice) {
			err = fmt.Errorf("not a device: name one such as %s, or a software TPM's socket as %s/path", DefaultDevice, unixPrefix)
		}
		return t, err
	}
	deadline := time.Now().Add(timeout)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("unix", path)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(deadline); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return transport.FromReadWriteCloser(conn), nil
}

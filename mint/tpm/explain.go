package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/google/go-tpm/tpm2"
)

var (
	errRefused = errors.New("the TPM refuses the key's authorization value, and is not asked again: restart with the right one")
	errNoAuth  = errors.New("the key has an authorization value and none is given, so that the TPM is not asked again: create a key without one")
)

// isRefusal reports whether err is the TPM's answer to a wrong authorization
// value, counted or not.
func isRefusal(err error) bool {
	return errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)
}

// failed says what err means and what to do about it. No authorization value is
// part of any error.
func (cfg Config) failed(doing string, err error) error {
	return fmt.Errorf("tpm: %s the key at %#x of %s: %w", doing, cfg.Handle, cfg.Device, cfg.explained(err))
}

func (cfg Config) explained(err error) error {
	switch {
	case isRefusal(err), errors.Is(err, errRefused):
		if cfg.Auth.IsZero() {
			return errNoAuth
		}
		return errRefused
	case errors.Is(err, tpm2.TPMRCLockout):
		return errors.New("the TPM is locked after wrong authorization values: wait until it unlocks, or use tpm2_dictionarylockout")
	case errors.Is(err, tpm2.TPMRCHandle):
		return errors.New("there is no key: create it, or correct the handle (tpm2_getcap handles-persistent lists them)")
	case errors.Is(err, tpm2.TPMRCInitialize):
		return errors.New("the TPM was not started: restart the machine, or start the software TPM with --flags startup-clear")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such device: enable the TPM 2.0 in the machine's firmware, or name its device")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("no permission to open it: run svidecar in the group that owns it, often tss")
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("another program holds it: use %s, which is shared", DefaultDevice)
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nothing serves that socket: start the software TPM")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &silence{cfg.Timeout}
	}
	return err
}

package tpm

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// unixPrefix begins a device that is a socket.
const unixPrefix = "unix:"

// chip is one TPM, for one use at a time.
type chip struct {
	device string
	turn   chan struct{} // holds one element while in use
}

func newChip(device string) *chip { return &chip{device: device, turn: make(chan struct{}, 1)} }

var errBusy = errors.New("others of this process wait for the TPM")

// do opens the TPM and has use talk to it, within timeout in all. A device file
// cannot be told to give up, so that its use may outlive the call; the next one
// waits for it, and there is never more than one.
func do[T any](c *chip, timeout time.Duration, use func(transport.TPM) (T, error)) (result T, err error) {
	expired := time.NewTimer(timeout)
	defer expired.Stop()
	select {
	case c.turn <- struct{}{}:
	case <-expired.C:
		return result, fmt.Errorf("%w, and it has not been free for %v: look whether it hangs", errBusy, timeout)
	}
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-c.turn }()
		result, err := once(c.device, timeout, use)
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-expired.C:
		return result, &silence{timeout}
	}
}

// once is one use. A signal may interrupt the wait for a device file; that use's
// answer is lost with its descriptor, so it begins anew.
func once[T any](device string, timeout time.Duration, use func(transport.TPM) (T, error)) (result T, err error) {
	defer func() { // go-tpm reads what the TPM sends by reflection
		if p := recover(); p != nil {
			err = errors.New("the TPM's answer cannot be read; report this as a fault")
		}
	}()
	for range 3 {
		if result, err = opened(device, timeout, use); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return result, err
}

func opened[T any](device string, timeout time.Duration, use func(transport.TPM) (T, error)) (result T, err error) {
	t, err := openDevice(device, timeout)
	if err != nil {
		return result, err
	}
	defer t.Close()
	return use(t)
}

// silence is a TPM that does not answer.
type silence struct{ after time.Duration }

func (s *silence) Error() string {
	return fmt.Sprintf("no answer within %v: look whether the TPM hangs, or is used by much else", s.after)
}

//go:build !unix

package chaos_test

import (
	"errors"
	"os"
)

const canStop = false

func stop(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) {}

//go:build unix

package main

import (
	"errors"
	"syscall"
)

func isReadOnlyFileSystem(err error) bool { return errors.Is(err, syscall.EROFS) }

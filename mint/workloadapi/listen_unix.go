//go:build unix

package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1 // and a zero byte
	probeTimeout  = time.Second                             // for a socket that is there to answer
	lockTimeout   = 3 * time.Second                         // for another one's Listen to end
	lockRetry     = 20 * time.Millisecond
)

func listen(file string, mode fs.FileMode) (net.Listener, error) {
	unlock, err := lockDir(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(file); err != nil {
		return nil, err
	}
	l, err := bind(file, mode)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("something has just appeared there: start again")
	}
	if err != nil {
		return nil, bare(err)
	}
	if err := os.Chmod(file, mode); err != nil { // what the umask took
		_ = l.Close()
		return nil, bare(err)
	}
	return l, nil
}

// lockDir keeps two processes from each finding the same stale socket: the
// slower would remove the live one of the faster. Anybody who can read the
// directory can hold the lock, so the wait is bounded.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory %s does not exist: make it, for the user of this process alone to write", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("the directory %s: %w", dir, bare(err))
	}
	for end := time.Now().Add(lockTimeout); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = d.Close() }, nil // which unlocks
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			_ = d.Close()
			return nil, fmt.Errorf("lock the directory %s: %w", dir, err)
		case time.Now().After(end):
			_ = d.Close()
			return nil, fmt.Errorf("another process keeps the directory %s locked: find it with lsof, end it and start again", dir)
		}
	}
}

// removeStale removes a socket that nobody answers on: only then does connecting
// fail with ECONNREFUSED.
func removeStale(file string) error {
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return bare(err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is something that is no socket (%v): remove it, or give another path", info.Mode())
	}
	c, err := net.DialTimeout("unix", file, probeTimeout)
	switch {
	case err == nil:
		_ = c.Close()
		return errors.New("another process serves there: end it, or give another path")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("it cannot be told whether another process serves there (%w): remove the socket if none does", bare(err))
	}
	return os.Remove(file)
}

func bind(file string, mode fs.FileMode) (net.Listener, error) {
	defer restrict(mode)()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (failed error) {
		err := c.Control(func(fd uintptr) { failed = restrictSocket(fd, mode) })
		return errors.Join(err, failed)
	}}
	return config.Listen(context.Background(), "unix", file)
}

// bare strips the names that the message has already.
func bare(err error) error {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e
	}
	return err
}

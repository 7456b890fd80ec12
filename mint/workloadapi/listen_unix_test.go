//go:build unix

package workloadapi_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/svidecar/svidecar/mint/workloadapi"
)

func TestListenRefuses(t *testing.T) {
	dir := filepath.Dir(strings.TrimPrefix(socketAddress(t), "unix://"))
	long := "unix:///" + strings.Repeat("a", 107)
	for address, says := range map[string]string{
		"":                               "not a unix socket",
		"/run/svidecar/api.sock":         "not a unix socket",
		"tcp://127.0.0.1:8080":           "not a unix socket",
		"npipe:svidecar":                 "not a unix socket",
		"unix:api.sock":                  "not a unix socket",
		"unix://run/api.sock":            "three slashes",
		"unix://api.sock":                "three slashes",
		"unix:///":                       "empty",
		"unix:///run/../api.sock":        "dot segment",
		"unix:///run//api.sock":          "empty",
		"unix:///run/svidecar/":          "slash",
		"unix:///run/a%20b":              "printable",
		"unix:///run/a?b":                "printable",
		"unix:///run/a#b":                "printable",
		"unix:///run/a\x00b":             "printable",
		"unix:///run/a b":                "printable",
		long:                             "108 bytes",
		"unix://" + dir + "/none/a.sock": "does not exist",
	} {
		l, err := workloadapi.Listen(address, 0o600)
		if err == nil {
			_ = l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Listen(%q): %v, want one line with %q", address, err, says)
		}
	}
	for _, mode := range []fs.FileMode{0, 0o400, 0o066, 0o4600, fs.ModeDir | 0o700} {
		if _, err := workloadapi.Listen(socketAddress(t), mode); err == nil || !strings.Contains(err.Error(), "mode") {
			t.Errorf("mode %v: error %v", mode, err)
		}
	}
}

// TestListenLeavesWhatIsThere: only a socket that nobody answers on goes.
func TestListenLeavesWhatIsThere(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, file string) error{
		"a file":      func(_ *testing.T, file string) error { return os.WriteFile(file, []byte("text"), 0o600) },
		"a directory": func(_ *testing.T, file string) error { return os.Mkdir(file, 0o700) },
		"a pipe":      func(_ *testing.T, file string) error { return syscall.Mkfifo(file, 0o600) },
		"a link to a stale socket": func(t *testing.T, file string) error {
			stale(t, file+"1")
			return os.Symlink(file+"1", file)
		},
		"a link to nothing": func(_ *testing.T, file string) error { return os.Symlink(file+"1", file) },
	} {
		t.Run(name, func(t *testing.T) {
			address := socketAddress(t)
			file := strings.TrimPrefix(address, "unix://")
			if err := make(t, file); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := workloadapi.Listen(address, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") {
				t.Errorf("Listen: %v", err)
			}
			if after, err := os.Lstat(file); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is gone: %v", err)
			}
		})
	}
}

// stale leaves a socket as a process that was killed does.
func stale(t *testing.T, file string) {
	t.Helper()
	l, err := net.Listen("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

func TestListenTakesOverAStaleSocket(t *testing.T) {
	address := socketAddress(t)
	file := strings.TrimPrefix(address, "unix://")
	stale(t, file)
	l, err := workloadapi.Listen(address, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	_ = l.Close()
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closed, it is still there: %v", err)
	}
}

func TestListenLeavesALiveSocket(t *testing.T) {
	address := socketAddress(t)
	l, err := workloadapi.Listen(address, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := workloadapi.Listen(address, 0o600); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("second Listen: %v", err)
	}
	if c, err := net.Dial("unix", strings.TrimPrefix(address, "unix://")); err != nil {
		t.Errorf("the first one is dead: %v", err)
	} else {
		_ = c.Close()
	}
}

// TestListenLeavesAnotherKindOfSocket: a datagram socket does not answer streams,
// and somebody may have it open.
func TestListenLeavesAnotherKindOfSocket(t *testing.T) {
	address := socketAddress(t)
	file := strings.TrimPrefix(address, "unix://")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := workloadapi.Listen(address, 0o600); err == nil || !strings.Contains(err.Error(), "cannot be told") {
		t.Errorf("Listen: %v", err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// TestListenRace has many take over one stale socket at once: one gets it, and
// keeps it.
func TestListenRace(t *testing.T) {
	address := socketAddress(t)
	file := strings.TrimPrefix(address, "unix://")
	for range 20 {
		stale(t, file)
		var got atomic.Pointer[net.Listener]
		var winners atomic.Int32
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				if l, err := workloadapi.Listen(address, 0o600); err == nil {
					winners.Add(1)
					got.Store(&l)
				}
			})
		}
		racers.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d of 8 took over one socket", n)
		}
		c, err := net.Dial("unix", file)
		if err != nil {
			t.Fatalf("the winner's socket: %v", err)
		}
		_ = c.Close()
		_ = (*got.Load()).Close()
	}
}

func TestListenWaitsForTheLock(t *testing.T) {
	t.Parallel() // it takes 3 s
	address := socketAddress(t)
	dir, err := os.Open(filepath.Dir(strings.TrimPrefix(address, "unix://")))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := workloadapi.Listen(address, 0o600); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("Listen: %v", err)
	}
}

func TestListenMode(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777} {
			t.Run(fmt.Sprintf("umask %#o mode %#o", umask, uint32(mode)), func(t *testing.T) {
				address := socketAddress(t)
				old := syscall.Umask(umask)
				l, err := workloadapi.Listen(address, mode)
				after := syscall.Umask(old)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				info, err := os.Lstat(strings.TrimPrefix(address, "unix://"))
				if err != nil || info.Mode().Perm() != mode || after != umask {
					t.Errorf("mode %v (%v), umask afterwards %#o", info.Mode(), err, after)
				}
			})
		}
	}
}

// TestListenIsNeverMoreOpen looks while the socket is made, with a umask that
// would let everybody in.
func TestListenIsNeverMoreOpen(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	address := socketAddress(t)
	file := strings.TrimPrefix(address, "unix://")
	done := make(chan struct{})
	var looker sync.WaitGroup
	looker.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if info, err := os.Lstat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("seen with mode %v", info.Mode())
				return
			}
		}
	})
	for range 300 {
		l, err := workloadapi.Listen(address, 0o600)
		if err != nil {
			t.Error(err)
			break
		}
		_ = l.Close()
	}
	close(done)
	looker.Wait()
}

package mint_test

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestCommandLeavesNoZombies makes this process what svidecar is in a container:
// the parent of orphans.
func TestCommandLeavesNoZombies(t *testing.T) {
	const setChildSubreaper = 36 // prctl(2)
	subreaper := func(on uintptr) {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, on, 0); errno != 0 {
			t.Fatal(errno)
		}
	}
	subreaper(1)
	defer subreaper(0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	orphan := make(chan string, 1)
	go func() {
		defer close(orphan)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		pid, _ := io.ReadAll(conn) // until it ends
		orphan <- string(pid)
	}()
	f := newCommand(t, 0, "print", tokenFile(t, platformToken(t, time.Now(), time.Hour)), "spawn", l.Addr().String())
	mustFetch(t, f)
	pid := <-orphan
	if err := l.Close(); err != nil { // what is spawned from now on ends by itself
		t.Fatal(err)
	}
	if pid == "" {
		t.Fatal("the orphan has not said its number")
	}
	soon(t, 10*time.Second, "the orphan "+pid+" is no zombie", func() bool {
		if _, err := f.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat("/proc/" + pid)
		return os.IsNotExist(err)
	})
}

package tpm_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/svidecar/svidecar/mint/tpm"
)

// characterDevice stands in for /dev/tpmrm0: a terminal in raw mode, with a TPM
// at its other end.
type characterDevice struct {
	path string
	held atomic.Pointer[chan struct{}] // until it closes, nothing is answered
}

func (s *softTPM) characterDevice(t *testing.T) *characterDevice {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("*** NOT TESTED: this system gives no terminal: %v ***", err)
	}
	var locked, number uint32
	var raw syscall.Termios
	raw.Cflag = syscall.CS8 | syscall.CREAD
	raw.Cc[syscall.VMIN] = 1
	control(t, master, syscall.TIOCSPTLCK, unsafe.Pointer(&locked))
	control(t, master, syscall.TIOCGPTN, unsafe.Pointer(&number))
	control(t, master, syscall.TCSETS, unsafe.Pointer(&raw))
	d := &characterDevice{path: fmt.Sprintf("/dev/pts/%d", number)}
	// While somebody has it open, the other end sees no hang-up between two uses.
	opened, err := os.OpenFile(d.path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { d.serve(master, strings.TrimPrefix(s.device, "unix:")) })
	t.Cleanup(func() {
		_ = master.Close()
		_ = opened.Close()
		served.Wait()
	})
	return d
}

func control(t *testing.T, file *os.File, request uintptr, argument unsafe.Pointer) {
	t.Helper()
	conn, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failure syscall.Errno
	if err := conn.Control(func(fd uintptr) { _, _, failure = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument)) }); err != nil {
		t.Fatal(err)
	}
	if failure != 0 {
		t.Fatalf("ioctl %#x: %v", request, failure)
	}
}

// serve passes commands on, each whole.
func (d *characterDevice) serve(master *os.File, to string) {
	command := make([]byte, 4096)
	for {
		if _, err := io.ReadFull(master, command[:10]); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(command[2:])
		if size < 10 || size > uint32(len(command)) {
			return
		}
		if _, err := io.ReadFull(master, command[10:size]); err != nil {
			return
		}
		if held := d.held.Load(); held != nil {
			<-*held
		}
		answer := ask(to, command[:size])
		if _, err := master.Write(answer); err != nil {
			return
		}
	}
}

func ask(socket string, command []byte) []byte {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if _, err := conn.Write(command); err != nil {
		return nil
	}
	answer := make([]byte, 4096)
	n, _ := conn.Read(answer)
	return answer[:n]
}

func TestCharacterDevice(t *testing.T) {
	s := startTPM(t)
	cfg := s.config()
	cfg.Device = s.characterDevice(t).path
	cfg.Auth = secretWord
	create(t, tpm.CreateConfig{Config: cfg})
	key := open(t, cfg)
	var callers sync.WaitGroup
	for range 5 {
		callers.Go(func() {
			if err := signs(key, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	callers.Wait()
	s.wantEmptyMemory(t)
}

// TestSilentCharacterDevice: a read from a device file cannot be given up, but
// its callers can give up, and no second one begins meanwhile.
func TestSilentCharacterDevice(t *testing.T) {
	s := startTPM(t)
	device, held := s.characterDevice(t), make(chan struct{})
	cfg := s.config()
	cfg.Device = device.path
	create(t, tpm.CreateConfig{Config: cfg})
	cfg.Timeout = 500 * time.Millisecond
	key := open(t, cfg)
	device.held.Store(&held)
	wantError(t, signs(key, "x"), "no answer within 500ms: look whether the TPM hangs")
	wantError(t, signs(key, "x"), "others of this process wait for the TPM, and it has not been free for 500ms")
	device.held.Store(nil)
	close(held)
	for range 100 { // until the late answer has come and gone
		if err := signs(key, "x"); err == nil {
			return
		}
	}
	t.Error("the key does not sign once the TPM answers again")
}

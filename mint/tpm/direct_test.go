//go:build unix

package tpm_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// connect talks to the TPM past the package, as other programs do.
func (s *softTPM) connect(t *testing.T) transport.TPM {
	t.Helper()
	conn, err := net.Dial("unix", strings.TrimPrefix(s.device, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	// swtpm serves one connection at a time.
	return &oneCommand{transport.FromReadWriteCloser(conn)}
}

// oneCommand closes its connection after the first answer.
type oneCommand struct{ t transport.TPMCloser }

func (c *oneCommand) Send(command []byte) ([]byte, error) {
	defer c.t.Close()
	return c.t.Send(command)
}

func (s *softTPM) read(t *testing.T, handle uint32) *tpm2.ReadPublicResponse {
	t.Helper()
	seen, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(s.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func (s *softTPM) name(t *testing.T, handle uint32) tpm2.TPM2BName {
	t.Helper()
	return s.read(t, handle).Name
}

func (s *softTPM) readPublic(t *testing.T, handle uint32) *tpm2.TPMTPublic {
	t.Helper()
	object, err := s.read(t, handle).OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// property is one of the numbers that a TPM tells of itself.
func (s *softTPM) property(t *testing.T, which tpm2.TPMPT) uint32 {
	t.Helper()
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(which), PropertyCount: 1}.Execute(s.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	properties, err := answer.CapabilityData.Data.TPMProperties()
	if err != nil || len(properties.TPMProperty) != 1 || properties.TPMProperty[0].Property != which {
		t.Fatalf("no property %#x: %v", uint32(which), err)
	}
	return properties.TPMProperty[0].Value
}

// wantEmptyMemory: a TPM without a resource manager holds three objects, and
// forgets none by itself.
func (s *softTPM) wantEmptyMemory(t *testing.T) {
	t.Helper()
	for _, first := range []uint32{0x80000000, 0x02000000} { // objects, sessions
		answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 10}.Execute(s.connect(t))
		if err != nil {
			t.Fatal(err)
		}
		left, err := answer.CapabilityData.Data.Handles()
		if err != nil || len(left.Handle) > 0 {
			t.Errorf("left in the TPM: %#x (%v)", left, err)
		}
	}
}

// evict removes a persistent object.
func (s *softTPM) evict(t *testing.T, handle uint32) {
	t.Helper()
	named := tpm2.NamedHandle{Handle: tpm2.TPMHandle(handle), Name: s.name(t, handle)}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: named, PersistentHandle: named.Handle}).Execute(s.connect(t)); err != nil {
		t.Fatal(err)
	}
}

// persist makes a primary key, by default a good one, at the handle.
func (s *softTPM) persist(t *testing.T, handle uint32, change func(*tpm2.TPMTPublic)) {
	t.Helper()
	template := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
	}
	scheme(&template, tpm2.TPMAlgRSASSA, tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}))
	change(&template)
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(s.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	object := tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: object, PersistentHandle: tpm2.TPMHandle(handle)}).Execute(s.connect(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(s.connect(t)); err != nil {
		t.Fatal(err)
	}
}

func scheme(p *tpm2.TPMTPublic, alg tpm2.TPMAlgID, details tpm2.TPMUAsymScheme) {
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{Scheme: alg, Details: details}, KeyBits: 2048,
	})
}

func ecKey(p *tpm2.TPMTPublic) {
	p.Type = tpm2.TPMAlgECC
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})
}

// between stands between the package and a TPM.
type between struct {
	device string
	silent atomic.Bool            // commands are read and not answered
	answer atomic.Pointer[string] // what is answered in the TPM's place

	waiting atomic.Int32 // commands without an answer
	crowded atomic.Bool  // there was more than one

	mu   sync.Mutex
	seen []byte // all commands and answers
}

func (b *between) overhear(bytes []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, bytes...)
}

func (s *softTPM) between(t *testing.T) *between {
	t.Helper()
	b := &between{device: s.device + "-between"}
	listener, err := net.Listen("unix", strings.TrimPrefix(b.device, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		served.Wait()
	})
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			served.Go(func() { b.serve(conn, strings.TrimPrefix(s.device, "unix:")) })
		}
	})
	return b
}

func (b *between) serve(conn net.Conn, to string) {
	defer conn.Close()
	real, err := net.Dial("unix", to)
	if err != nil {
		return
	}
	defer real.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		b.overhear(buffer[:n])
		if b.waiting.Add(1) > 1 {
			b.crowded.Store(true)
		}
		if b.silent.Load() {
			_, _ = io.Copy(io.Discard, conn) // until the other side gives up
			return
		}
		if answer := b.answer.Load(); answer != nil {
			_, _ = io.WriteString(conn, *answer)
			return
		}
		if _, err := real.Write(buffer[:n]); err != nil {
			return
		}
		if n, err = real.Read(buffer); err != nil {
			return
		}
		b.overhear(buffer[:n])
		b.waiting.Add(-1)
		if _, err := conn.Write(buffer[:n]); err != nil {
			return
		}
	}
}

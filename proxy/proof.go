package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/svidecar/svidecar/imds"
)

// Paths at which a redirection to this process is proved (docs/protocol.md,
// "The proof of the way"). They differ, so that a redirection to the listener of
// health is no proof.
const (
	proofPath    = "/svidecar/verify"
	opsProofPath = "/verify"
)

// tellProof answers on the listener of tokens, behind the guard.
func (s *Server) tellProof(w http.ResponseWriter, r *http.Request) {
	c := w.(*call)
	proof, refusal := s.proof(r)
	if refusal != nil {
		c.fail(refusal)
		return
	}
	c.err = writeProof(c.ResponseWriter, proof)
}

// tellOpsProof answers on the listener of health, where the guard is for this
// path alone.
func (s *Server) tellOpsProof(w http.ResponseWriter, r *http.Request) {
	_, refusal := s.guard(r)
	proof := ""
	if refusal == nil {
		proof, refusal = s.proof(r)
	}
	if refusal != nil {
		_ = imds.WriteRefusal(w, refusal, newID()) // if it fails, the client is gone
		return
	}
	_ = writeProof(w, proof)
}

// proof is what only this process can say of a nonce. It costs one hash, and the
// key is for nothing else, so it does not matter who on this machine asks; but
// another machine could pass it on as its own.
func (s *Server) proof(r *http.Request) (string, *imds.Refusal) {
	if refusal := requireMetadata(r.Header); refusal != nil {
		return "", refusal
	}
	if refusal := requireNoBody(r); refusal != nil {
		return "", refusal
	}
	if !fromThisMachine(r) {
		return "", &imds.Refusal{Outcome: imds.AccessDenied, Description: "proofs are given to this machine only"}
	}
	nonce, ok := strings.CutPrefix(r.URL.RawQuery, "nonce=")
	raw, err := hex.DecodeString(nonce)
	if !ok || err != nil || len(raw) != sha256.Size {
		return "", invalid("the query is not nonce= and 64 hexadecimal digits")
	}
	mac := hmac.New(sha256.New, s.proofKey[:])
	mac.Write(raw)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// fromThisMachine reports whether the two ends of a connection are on one
// machine. Linux lets nobody else use a loopback address, or an address of this
// machine's as a source. A redirected connection has loopback at our end only.
func fromThisMachine(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil {
		return false
	}
	ours, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	theirs, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	here, there := ours.Addr().Unmap(), theirs.Addr().Unmap()
	return here.IsLoopback() || there.IsLoopback() || here == there
}

func writeProof(w http.ResponseWriter, proof string) error {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, err := io.WriteString(w, `{"proof":"`+proof+`"}`)
	return err
}

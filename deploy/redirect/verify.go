package redirect

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Paths of package proxy (docs/protocol.md, "The proof of the way").
const (
	proofPath    = "/svidecar/verify" // on the listener of tokens
	opsProofPath = "/verify"          // on that of health and metrics
)

// askTimeout bounds each of the two questions: all is on this machine.
const askTimeout = time.Second

// Verify proves that a connection to the address reaches the sidecar whose
// health listener is at ops, a host and port on this machine's loopback or of
// its own. It asks both for the proof of one fresh nonce: only one process knows
// the key of it, and tells it to this machine alone. Neither the real service,
// nor another pod, nor another program on the sidecar's port can answer so.
//
// It needs no privilege, and holds for the user that asks: rules of others may
// treat another user in another way. Nothing is sent to the address before ops
// has answered, nor in the machine's first network, unless
// Config.UnsafeHostNetwork. It changes nothing, and asks for nothing but the
// proof: so it does not mind links and listeners that came after the redirection
// was made, such as the bridge of a Docker daemon in the pod, and the sidecar
// gets well beside them after a restart.
func (p *Plan) Verify(ctx context.Context, ops string) error {
	if err := p.refuseMachine(); err != nil {
		return fmt.Errorf("redirect: %w", err)
	}
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	query := "?nonce=" + hex.EncodeToString(random[:])
	// By this Host, because the guard knows no other for an address of this
	// machine's own.
	want, err := proof(ctx, "http://"+ops+opsProofPath+query, "localhost")
	if err != nil {
		return fmt.Errorf("redirect: the sidecar's health listener gives no proof: %w; is svidecar serve running, with this --ops-listen?", err)
	}
	got, err := proof(ctx, "http://"+p.cfg.Address.String()+proofPath+query, p.cfg.Address.String())
	if err != nil {
		return fmt.Errorf("redirect: requests to %s do not reach the sidecar: %w; is the redirection in place, to the port of --listen?", p.cfg.Address, err)
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 0 {
		return fmt.Errorf("redirect: requests to %s reach another sidecar than the one at %s: see that --listen and --ops-listen are those of one process", p.cfg.Address, ops)
	}
	return nil
}

// proof asks one listener. What a stranger answers is not repeated in errors.
func proof(ctx context.Context, target, host string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	req.Header.Set("Metadata", "true")
	// No proxy from the environment, no connection of before.
	resp, err := (&http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}).RoundTrip(req)
	if err != nil {
		return "", withoutURL(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	var reply struct{ Proof string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&reply); err != nil {
		return "", errors.New("the answer is not svidecar's")
	}
	if raw, err := hex.DecodeString(reply.Proof); err != nil || len(raw) != 32 {
		return "", errors.New("the answer holds no proof")
	}
	return reply.Proof, nil
}

// withoutURL leaves the reason, of the operations that net puts before it.
func withoutURL(ctx context.Context, err error) error {
	var call *os.SyscallError
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return errors.New("no answer in time")
	case errors.As(err, &call):
		return call.Err
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

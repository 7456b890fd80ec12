package proxy_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/svidecar/svidecar/proxy"
)

const (
	nonce     = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	proofOf   = "/svidecar/verify?nonce="
	opsProof  = "/verify?nonce="
	fromProxy = "X-Forwarded-For: 192.0.2.1\r\n"
)

// getOps is get on the listener of health.
func getOps(t *testing.T, r *running, target, headers string) reply {
	t.Helper()
	return raw(t, r.ops, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\n"+headers+"\r\n")
}

// TestProofIsRefused: the guard and Metadata: true stand before proofs too, on
// both listeners.
func TestProofIsRefused(t *testing.T) {
	r := start(t, nil)
	for name, bad := range map[string]struct {
		query, headers string
		status         int
	}{
		"no Metadata":      {nonce, "", 400},
		"forwarded":        {nonce, metadata + fromProxy, 400},
		"a browser":        {nonce, metadata + "Origin: https://a.example\r\n", 400},
		"a body":           {nonce, metadata + "Content-Length: 1\r\n\r\nx", 400},
		"no nonce":         {"", metadata, 400},
		"a short nonce":    {nonce[2:], metadata, 400},
		"a long nonce":     {nonce + "00", metadata, 400},
		"no hexadecimal":   {strings.Replace(nonce, "0", "g", 1), metadata, 400},
		"a further field":  {nonce + "&resource=https://vault.azure.net", metadata, 400},
		"a repeated nonce": {nonce + "&nonce=" + nonce, metadata, 400},
	} {
		t.Run(name, func(t *testing.T) {
			for where, got := range map[string]reply{
				"tokens": get(t, r, proofOf+bad.query, bad.headers),
				"ops":    getOps(t, r, opsProof+bad.query, bad.headers),
			} {
				if got.StatusCode != bad.status || strings.Contains(got.body, `"proof"`) {
					t.Errorf("%s: HTTP %d %s, want %d", where, got.StatusCode, got.body, bad.status)
				}
			}
		})
	}
	if got := raw(t, r.addr, "POST "+proofOf+nonce+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n"+metadata+"\r\n"); got.StatusCode != 405 {
		t.Errorf("POST: HTTP %d, want 405", got.StatusCode)
	}
	if got := raw(t, r.ops, "GET "+opsProof+nonce+" HTTP/1.1\r\nHost: rebound.example\r\n"+metadata+"\r\n"); got.StatusCode != 400 {
		t.Errorf("another Host at ops: HTTP %d, want 400", got.StatusCode)
	}
	if got := getOps(t, r, proofOf+nonce, metadata); got.StatusCode != 404 {
		t.Errorf("the path of tokens at ops: HTTP %d, want 404", got.StatusCode)
	}
}

// TestProofIsOfOneProcess: both listeners of a process say the same of a nonce,
// and no other process says it, nor this one of another nonce.
func TestProofIsOfOneProcess(t *testing.T) {
	r, other := start(t, nil), start(t, nil)
	proof := get(t, r, proofOf+nonce, metadata)
	if proof.StatusCode != 200 || len(proof.field(t, "proof")) != 64 || proof.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("HTTP %d %v %s", proof.StatusCode, proof.Header, proof.body)
	}
	if got := getOps(t, r, opsProof+nonce, metadata); got.body != proof.body {
		t.Errorf("ops says %s, tokens %s", got.body, proof.body)
	}
	if got := get(t, other, proofOf+nonce, metadata); got.body == proof.body {
		t.Error("another process gives the same proof")
	}
	if got := get(t, r, proofOf+strings.Repeat("00", 32), metadata); got.body == proof.body {
		t.Error("another nonce has the same proof")
	}
	if n := len(r.tokens.asked()); n != 0 {
		t.Errorf("proofs asked for %d tokens", n)
	}
	if strings.Contains(r.log.String(), proof.field(t, "proof")) {
		t.Error("a proof is logged")
	}
}

// TestProofStaysOnTheMachine: another machine, which would like to answer in
// place of this one, gets none.
func TestProofStaysOnTheMachine(t *testing.T) {
	var s *proxy.Server
	start(t, func(cfg *proxy.Config) {
		var err error
		if s, err = proxy.New(*cfg); err != nil {
			t.Fatal(err)
		}
	})
	for _, tt := range []struct {
		name, local, remote string
		status              int
	}{
		{"another machine", "10.244.0.5:8000", "10.244.0.6:40000", 403},
		{"another machine, IPv6", "[fd00::5]:8000", "[fd00::6]:40000", 403},
		{"an unknown end", "", "10.244.0.6:40000", 403},
		{"loopback", "127.0.0.1:8000", "127.0.0.1:40000", 200},
		{"redirected", "127.0.0.1:8000", "10.244.0.5:40000", 200},
		{"to its own address", "10.244.0.5:8001", "10.244.0.5:40000", 200},
		{"by the address on lo", "169.254.169.254:80", "169.254.169.254:40000", 200},
		{"IPv4 on an IPv6 listener", "[::ffff:127.0.0.1]:8000", "[::ffff:10.244.0.5]:40000", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := httptest.NewRequest(http.MethodGet, proofOf+nonce, nil)
			req.Host, req.RemoteAddr = "169.254.169.254", tt.remote
			req.Header.Set("Metadata", "true")
			if tt.local != "" {
				local, err := net.ResolveTCPAddr("tcp", tt.local)
				if err != nil {
					t.Fatal(err)
				}
				req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, local))
			}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, req)
			if rec.Code != tt.status {
				t.Errorf("HTTP %d %s, want %d", rec.Code, rec.Body, tt.status)
			}
		})
	}
}

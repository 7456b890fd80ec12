package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/internal/emulation"
	"github.com/svidecar/svidecar/mint"
)

// spy is Entra's emulator behind a server that notes each assertion that comes
// in and each token that goes out.
type spy struct {
	*httptest.Server
	cloud   *emulation.Emulation
	keyFile string // of the issuer
	caFile  string

	mu    sync.Mutex
	noted []string
}

func newSpy(t *testing.T) *spy {
	t.Helper()
	dir := t.TempDir()
	s := &spy{keyFile: filepath.Join(dir, "issuer.pem"), caFile: filepath.Join(dir, "ca.pem")}
	key, err := signingKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := mint.WriteKey(s.keyFile, key); err != nil {
		t.Fatal(err)
	}
	if s.cloud, err = emulation.Start(emulation.Config{KeyFile: s.keyFile, Entra: entratest.Config{Key: key}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.cloud.Close)
	if err := os.WriteFile(s.caFile, s.cloud.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, err := s.cloud.CA.Certificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *spy) note(bearer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bearer != "" && !slices.Contains(s.noted, bearer) {
		s.noted = append(s.noted, bearer)
	}
}

// bearers are the tokens and assertions so far.
func (s *spy) bearers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.noted)
}

func (s *spy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if form, err := url.ParseQuery(string(body)); err == nil {
		s.note(form.Get("client_assertion"))
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	copied := &copier{ResponseWriter: w}
	s.cloud.Entra.Handler().ServeHTTP(copied, r)
	var reply struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(copied.body.Bytes(), &reply) == nil {
		s.note(reply.Token)
	}
}

// copier keeps the beginning of a reply; some of the emulator's have no end.
type copier struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (c *copier) Write(p []byte) (int, error) {
	if c.body.Len() < 1<<16 {
		c.body.Write(p)
	}
	return c.ResponseWriter.Write(p)
}

// Unwrap lets the emulator take the connection over.
func (c *copier) Unwrap() http.ResponseWriter { return c.ResponseWriter }

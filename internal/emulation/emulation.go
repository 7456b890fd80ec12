// Package emulation owns a whole Entra on one machine, for `svidecar dev` and for
// tests: an issuer with a key of its own, its documents over TLS, and the
// emulator that trusts it for one app. It never touches the network beyond
// loopback, and never decides what a token request may have.
package emulation

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/svidecar/svidecar/exchange/entratest"
	"github.com/svidecar/svidecar/mint"
)

// What the emulated tenant holds unless Config says otherwise.
const (
	TenantID   = "5d0e7a8c-1b6f-4c3e-9a2d-7f4b8c6e1a30"
	ClientID   = "3f6b1c9e-8d2a-4e57-b0c4-92a7e5d1f863"
	ObjectID   = "8a4c2e60-7b1d-4f93-a5e8-0c9d3b6f7e12"
	ResourceID = "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/dev/providers/Microsoft.ManagedIdentity/userAssignedIdentities/app"
	Subject    = "spiffe://dev.svidecar.internal/app"
	Audience   = "api://AzureADTokenExchange"
)

// Config says what differs from the constants.
type Config struct {
	TenantID string // empty, or a domain: TenantID
	ClientID string // empty: ClientID
	// KeyFile keeps the issuer's key; made if missing. Empty: a key that
	// lives in memory.
	KeyFile string
	// Entra is the emulator's configuration; CA and the one app are added.
	Entra entratest.Config
}

// Emulation is running from Start until Close.
type Emulation struct {
	Entra    *entratest.Server
	Source   *mint.Local // assertions that Entra accepts
	CA       *entratest.CA
	TenantID string
	ClientID string
	Issuer   string     // URL
	Admin    string     // URL of the emulator's controls
	mu       sync.Mutex // of Admit
	closers  []func()
}

// Start starts all parts on free loopback ports.
func Start(cfg Config) (*Emulation, error) {
	e := &Emulation{TenantID: cfg.TenantID, ClientID: cfg.ClientID}
	if uuid.Validate(e.TenantID) != nil { // Entra knows tenants by name too, this one does not
		e.TenantID = TenantID
	}
	if e.ClientID == "" {
		e.ClientID = ClientID
	}
	if err := e.start(cfg); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Admit makes Entra know a further app that trusts the issuer as the first does.
// An id that is no GUID, or is known, changes nothing: nor does the object id of one
// that is known, since Entra does not take that for a client id either.
func (e *Emulation) Admit(clientID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	apps := e.Entra.Apps()
	known := func(a entratest.App) bool {
		return strings.EqualFold(a.ClientID, clientID) || strings.EqualFold(a.ObjectID, clientID)
	}
	if slices.ContainsFunc(apps, known) {
		return
	}
	_ = e.Entra.SetApps(append(apps, e.app(clientID, clientID, "")))
}

// app trusts the issuer's one subject.
func (e *Emulation) app(clientID, name, objectID string) entratest.App {
	return entratest.App{
		ClientID: clientID, TenantID: e.TenantID, ObjectID: objectID, Name: name,
		Credentials: []entratest.FederatedCredential{{Issuer: e.Issuer, Subject: Subject, Audience: Audience}},
	}
}

// Close ends all parts and waits for them.
func (e *Emulation) Close() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i]()
	}
	e.closers = nil
}

func (e *Emulation) start(cfg Config) (err error) {
	if e.CA, err = entratest.NewCA(); err != nil {
		return err
	}
	key, err := issuerKey(cfg.KeyFile)
	if err != nil {
		return err
	}
	if err := e.startIssuer(key); err != nil {
		return err
	}
	return e.startEntra(cfg.Entra)
}

// startIssuer serves the documents by which the emulator verifies what Source
// signs.
func (e *Emulation) startIssuer(key crypto.Signer) error {
	cert, err := e.CA.Certificate("127.0.0.1")
	if err != nil {
		return err
	}
	l, err := listen()
	if err != nil {
		return err
	}
	e.Issuer = "https://" + l.Addr().String()
	documents, err := mint.NewIssuer(mint.IssuerConfig{Issuer: e.Issuer, Keys: []crypto.PublicKey{key.Public()}})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	e.serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), documents)
	e.Source, err = mint.NewLocal(mint.LocalConfig{Signer: key, Issuer: e.Issuer, Subject: Subject, Audience: Audience})
	return err
}

// issuerKey makes a key, or keeps one in the file.
func issuerKey(path string) (crypto.Signer, error) {
	const bits = 2048
	if path == "" {
		return mint.GenerateKey(bits)
	}
	key, err := mint.LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = mint.GenerateKey(bits); err != nil {
		return nil, err
	}
	return key, mint.WriteKey(path, key)
}

func (e *Emulation) startEntra(cfg entratest.Config) (err error) {
	cfg.CA = e.CA
	cfg.Apps = append(cfg.Apps, e.app(e.ClientID, "dev", ObjectID))
	if e.Entra, err = entratest.New(cfg); err != nil {
		return err
	}
	if err := e.Entra.Start(); err != nil {
		return err
	}
	e.closers = append(e.closers, func() { _ = e.Entra.Close() })
	l, err := listen()
	if err != nil {
		return err
	}
	e.Admin = "http://" + l.Addr().String()
	e.serve(l, e.Entra.AdminHandler())
	return nil
}

func listen() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("emulation: %w", err)
	}
	return l, nil
}

// serve runs a small server until Close.
func (e *Emulation) serve(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	e.closers = append(e.closers, func() { _ = server.Close(); <-done })
}

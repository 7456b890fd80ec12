package workloadapi_test

import (
	"context"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/internal/secret"
	"github.com/svidecar/svidecar/mint"
	"github.com/svidecar/svidecar/mint/workloadapi"
)

const (
	issuerURL = "https://issuer.example.org"
	audience  = "api://AzureADTokenExchange"
)

var (
	cart  = spiffeid.RequireFromString("spiffe://example.org/shop/cart")
	stock = spiffeid.RequireFromString("spiffe://example.org/shop/stock")
	other = spiffeid.RequireFromString("spiffe://example.com/other")
)

// testKey is one of two fixed keys, 0 and 1. They protect nothing.
func testKey(t testing.TB, n int) crypto.Signer {
	t.Helper()
	key, err := mint.ParseKey(testPEM(t, n))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testPEM(t testing.TB, n int) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", []string{"test-only-rsa2048-pkcs8.pem", "test-only-rsa2048-pkcs1.pem"}[n]))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keyID(t testing.TB, key crypto.Signer) string {
	t.Helper()
	kid, err := mint.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// issuer is what the product's commands put behind a Server: it signs by
// mint.Local, and can be made to fail.
type issuer struct {
	mints atomic.Int32

	mu     sync.Mutex
	signer crypto.Signer
	keys   []crypto.PublicKey
	play   func(ctx context.Context, subject spiffeid.ID, audience string) (secret.Value, error) // in place of signing
	faults []string
}

func newIssuer(t testing.TB) *issuer {
	key := testKey(t, 0)
	return &issuer{signer: key, keys: []crypto.PublicKey{key.Public()}}
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) mint(ctx context.Context, subject spiffeid.ID, audience string) (secret.Value, error) {
	i.mints.Add(1)
	i.mu.Lock()
	play := i.play
	i.mu.Unlock()
	if play != nil {
		return play(ctx, subject, audience)
	}
	return i.sign(ctx, subject, audience)
}

func (i *issuer) sign(ctx context.Context, subject spiffeid.ID, audience string) (secret.Value, error) {
	i.mu.Lock()
	signer := i.signer
	i.mu.Unlock()
	local, err := mint.NewLocal(mint.LocalConfig{Signer: signer, Issuer: issuerURL, Subject: subject.String(), Audience: audience})
	if err != nil {
		return secret.Value{}, err
	}
	assertion, err := local.Assertion(ctx)
	return assertion.Value, err
}

func (i *issuer) public() []crypto.PublicKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.keys)
}

func (i *issuer) fault(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults = append(i.faults, err.Error())
}

// told is what the server told of faults since the last call.
func (i *issuer) told() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := strings.Join(i.faults, "\n")
	i.faults = nil
	return all
}

// config is a good one: two identities for everybody.
func (i *issuer) config() workloadapi.Config {
	return workloadapi.Config{
		Mint: i.mint, Keys: i.public, Issuer: issuerURL, Fault: i.fault,
		Identities: []workloadapi.Identity{{ID: cart, Hint: "cart"}, {ID: stock}},
	}
}

func newServer(t testing.TB, cfg workloadapi.Config) *workloadapi.Server {
	t.Helper()
	server, err := workloadapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func TestNewRefuses(t *testing.T) {
	type config = workloadapi.Config
	only := func(identities ...workloadapi.Identity) func(*config) {
		return func(c *config) { c.Identities = identities }
	}
	for _, tt := range []struct {
		name, says string
		change     func(*config)
	}{
		{"no Mint", "Mint is required", func(c *config) { c.Mint = nil }},
		{"no Keys", "Keys is required", func(c *config) { c.Keys = nil }},
		{"no issuer", "https URL", func(c *config) { c.Issuer = "" }},
		{"an http issuer", "https URL", func(c *config) { c.Issuer = "http://issuer.example.org" }},
		{"connections below zero", "MaxConnections", func(c *config) { c.MaxConnections = -1 }},
		{"too many connections", "MaxConnections", func(c *config) { c.MaxConnections = 65537 }},
		{"streams below zero", "MaxStreams", func(c *config) { c.MaxStreams = -1 }},
		{"too many streams", "MaxStreams", func(c *config) { c.MaxStreams = 1025 }},
		{"no identities", "want 1 to 100", only()},
		{"101 identities", "want 1 to 100", only(make([]workloadapi.Identity, 101)...)},
		{"no ID", "ID is required", only(workloadapi.Identity{})},
		{"a trust domain", "no workload", only(workloadapi.Identity{ID: cart.TrustDomain().ID()})},
		{"a long ID", "601 bytes", only(workloadapi.Identity{ID: spiffeid.RequireFromString("spiffe://example.org/" + strings.Repeat("a", 580))})},
		{"a long hint", "the hint", only(workloadapi.Identity{ID: cart, Hint: strings.Repeat("a", 256)})},
		{"a hint with a line break", "the hint", only(workloadapi.Identity{ID: cart, Hint: "a\nb"})},
		{"a hint that is no text", "the hint", only(workloadapi.Identity{ID: cart, Hint: "\xff"})},
		{"one twice", "twice", only(workloadapi.Identity{ID: cart}, workloadapi.Identity{ID: cart})},
		{"a hint twice", `hint "a"`, only(workloadapi.Identity{ID: cart, Hint: "a"}, workloadapi.Identity{ID: stock, Hint: "a"})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := newIssuer(t).config()
			tt.change(&cfg)
			_, err := workloadapi.New(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("New: error %v, want one line with %q", err, tt.says)
			}
		})
	}
}

var errSigner = errors.New("the card reader is locked")

// Package workloadapi owns a SPIFFE Workload API endpoint whose JWT-SVIDs are
// signed here, so that any SPIFFE client of this machine can use the local issuer
// before its users move to SPIRE. It never sees a private key, never issues an
// X.509-SVID, never tells workloads apart by more than the user they run as, and
// logs nothing.
//
// What it promises is in the SPIFFE standards: SPIFFE_Workload_Endpoint.md
// ("Endpoint" below), SPIFFE_Workload_API.md ("API") and JWT-SVID.md.
package workloadapi

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	defaultConnections = 256
	mostConnections    = 65536
	defaultStreams     = 64
	mostStreams        = 1024
	mostIdentities     = 100 // one answer may hold a JWT-SVID of each
	mostHint           = 255 // bytes
	maxValue           = 600 // characters of sub and aud each that Entra takes
	overflowUID        = 65534
)

// Config configures [New].
type Config struct {
	// Mint makes a JWT-SVID of subject for one audience, as [mint.Local] does. It
	// is called by several goroutines at once, at most 8, and must return when ctx
	// is done, which is after 10 s at most. Required.
	Mint func(ctx context.Context, subject spiffeid.ID, audience string) (secret.Value, error)

	// Keys are the public keys that verify what Mint makes: those of the published
	// key document, as [mint.Documents] takes them. It is asked at each need, must
	// be quick, and safe for concurrent use. [Server.Refresh] says that it has
	// changed. Required.
	Keys func() []crypto.PublicKey

	// Issuer is the iss claim of what Mint makes, and the only one that
	// ValidateJWTSVID takes: the issuer's https URL, verbatim. Required.
	Issuer string

	// Identities says who gets which SPIFFE IDs: 1 to 100.
	Identities []Identity

	// Fault is told what went wrong on this side, as often as it does: Mint failed
	// (though callers may still be served from what is held), Keys cannot be
	// published, or a call panicked. Its error is for the issuer's log: it is one
	// line if Mint's errors are, and holds no token if they do not. It must be
	// quick, and safe for concurrent use. Nil means that nobody is told.
	Fault func(error)

	// MaxConnections bounds the connections at once, 1 to 65,536; zero means 256.
	// Where the user of a connection is known, none may have more than three
	// quarters of them. Further ones are closed; clients try again.
	MaxConnections int

	// MaxStreams bounds the calls at once of one connection, 1 to 1,024; zero
	// means 64. Further ones wait in the client.
	MaxStreams int
}

// Identity says who is given JWT-SVIDs of a SPIFFE ID.
type Identity struct {
	// ID is the sub claim: a SPIFFE ID with a path, at most 600 bytes. Required.
	ID spiffeid.ID

	// Hint helps a workload that has several identities to choose: up to 255
	// printable characters, and unique among those that one caller gets. Empty
	// means none.
	Hint string

	// UID is the user that a process must have run as when it connected, as the
	// kernel says. 0 to 4,294,967,294 without 65,534, which stands for every user
	// that a user namespace does not map. Nil means any process that can open the
	// socket. Linux only: elsewhere [New] refuses it, and what divides identities
	// is a socket for each of them.
	UID *int
}

// Server is the endpoint. It is made by [New], serves once, and is safe for
// concurrent use.
type Server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	cfg     Config
	domains map[spiffeid.TrustDomain]bool
	grpc    *grpc.Server
	tokens  *tokens
	held    atomic.Pointer[keySet] // of the last answer of Config.Keys

	served   atomic.Bool
	stopping chan struct{} // closed when Serve begins to end

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, by Refresh
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultConnections
	}
	if cfg.MaxStreams == 0 {
		cfg.MaxStreams = defaultStreams
	}
	if cfg.Fault == nil {
		cfg.Fault = func(error) {}
	}
	cfg.Identities = slices.Clone(cfg.Identities)
	s := &Server{cfg: cfg, domains: map[spiffeid.TrustDomain]bool{}, stopping: make(chan struct{}), changed: make(chan struct{})}
	for _, identity := range cfg.Identities {
		s.domains[identity.ID.TrustDomain()] = true
	}
	s.tokens = newTokens(s.mint, cfg.Fault)
	s.grpc = s.newGRPC()
	workload.RegisterSpiffeWorkloadAPIServer(s.grpc, s)
	return s, nil
}

// Refresh says that Config.Keys gives other keys than before, so that watchers of
// the bundles get them at once; without it they do within a minute. (What is held
// of a key that is gone is not handed out in any case.)
func (s *Server) Refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// change is closed by the next Refresh.
func (s *Server) change() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (cfg Config) check() error {
	switch {
	case cfg.Mint == nil:
		return errors.New("workloadapi: Config.Mint is required")
	case cfg.Keys == nil:
		return errors.New("workloadapi: Config.Keys is required")
	case !strings.HasPrefix(cfg.Issuer, "https://"):
		return fmt.Errorf("workloadapi: Config.Issuer: %q is not an https URL: give the issuer that the tokens name", cfg.Issuer)
	case cfg.MaxConnections < 0 || cfg.MaxConnections > mostConnections:
		return fmt.Errorf("workloadapi: Config.MaxConnections: %d is not between 1 and %d", cfg.MaxConnections, mostConnections)
	case cfg.MaxStreams < 0 || cfg.MaxStreams > mostStreams:
		return fmt.Errorf("workloadapi: Config.MaxStreams: %d is not between 1 and %d", cfg.MaxStreams, mostStreams)
	case len(cfg.Identities) == 0 || len(cfg.Identities) > mostIdentities:
		return fmt.Errorf("workloadapi: Config.Identities: %d of them; want 1 to %d", len(cfg.Identities), mostIdentities)
	}
	for i, identity := range cfg.Identities {
		if err := identity.check(); err != nil {
			return fmt.Errorf("workloadapi: Config.Identities: %d: %w", i, err)
		}
		for j, other := range cfg.Identities[:i] {
			if err := identity.conflict(other); err != nil {
				return fmt.Errorf("workloadapi: Config.Identities: %d and %d: %w", j, i, err)
			}
		}
	}
	return nil
}

func (i Identity) check() error {
	switch {
	case i.ID.IsZero():
		return errors.New("ID is required")
	case i.ID.Path() == "":
		return fmt.Errorf("ID %q names a trust domain and no workload: add a path, as in spiffe://example.org/app", i.ID)
	case len(i.ID.String()) > maxValue:
		return fmt.Errorf("ID is %d bytes long; Entra takes at most %d", len(i.ID.String()), maxValue)
	case len(i.Hint) > mostHint || !utf8.ValidString(i.Hint) || strings.ContainsFunc(i.Hint, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the hint %.300q is not up to %d printable characters", i.Hint, mostHint)
	case i.UID == nil:
		return nil
	case !knowsUsers:
		return errors.New("UID: this system does not say who connects: leave it out, and give each identity a socket of its own")
	case *i.UID < 0 || int64(*i.UID) >= math.MaxUint32:
		return fmt.Errorf("UID %d is not between 0 and %d", *i.UID, uint32(math.MaxUint32-1))
	case *i.UID == overflowUID:
		return fmt.Errorf("UID %d stands for every user that a user namespace does not map: give the workload a user of its own", overflowUID)
	}
	return nil
}

// conflict holds that no caller gets an identity twice, or one hint twice (API,
// section 6.2.1).
func (i Identity) conflict(other Identity) error {
	if i.UID != nil && other.UID != nil && *i.UID != *other.UID {
		return nil
	}
	switch {
	case i.ID == other.ID:
		return fmt.Errorf("the same caller would get %q twice: leave one out", i.ID)
	case i.Hint != "" && i.Hint == other.Hint:
		return fmt.Errorf("the same caller would get two identities with the hint %q: change one", i.Hint)
	}
	return nil
}

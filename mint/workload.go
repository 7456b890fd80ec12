package mint

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	fetchTimeout  = 5 * time.Second // of one fetch, connection and bundles included
	redialFirst   = 100 * time.Millisecond
	redialMost    = time.Second // gRPC's own limit is 2 min: an agent's restart would be felt that long
	maxSocketPath = 107         // bytes, on Linux; elsewhere it may be less
)

// errClosed is the cause that a closed Workload ends its fetch with.
var errClosed = errors.New("the source is closed")

// WorkloadConfig configures [NewWorkload].
type WorkloadConfig struct {
	// Address is the socket of the SPIFFE Workload API: unix:///path or
	// tcp://ip:port (on Windows npipe:name instead of unix). Empty means what
	// SPIFFE_ENDPOINT_SOCKET says when NewWorkload is called.
	Address string

	// Audience is the aud claim to ask for, 1 to 600 printable ASCII characters,
	// as the cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Subject is the SPIFFE ID to ask for, if the agent has several for this
	// process. Empty means the only one.
	Subject string

	// Hint chooses by the hint of the registration entry instead. At most one of
	// Subject and Hint may be set.
	Hint string

	// VerifyBundle makes each JWT-SVID prove its signature against the agent's
	// own bundle of its trust domain before it is used.
	VerifyBundle bool

	// StartupGrace is how long after NewWorkload an identity that the agent does
	// not issue counts as one that it may still issue (see [Error.Temporary]).
	// 0 to 1 h; zero means 60 s.
	StartupGrace time.Duration
}

// Workload is a source of assertions from the SPIFFE Workload API: JWT-SVIDs
// that an agent issues to this process. One is fetched and handed out until half
// of its life is over. A Workload is safe for concurrent use; callers that need
// a new one at the same time share it. It must be closed.
type Workload struct {
	cfg        WorkloadConfig
	subject    spiffeid.ID // zero if none is asked for
	graceUntil time.Time
	worked     atomic.Bool // the agent has issued what was asked for

	holder holder
	base   context.Context // of every fetch; ends with Close
	stop   context.CancelCauseFunc

	mu     sync.Mutex          // orders the opening of client and Close
	client *workloadapi.Client // nil until the first fetch
}

// NewWorkload checks cfg. It opens no connection.
func NewWorkload(cfg WorkloadConfig) (*Workload, error) {
	if cfg.Address == "" {
		cfg.Address = os.Getenv(workloadapi.SocketEnv)
	}
	if cfg.StartupGrace == 0 {
		cfg.StartupGrace = defaultStartupGrace
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	w := &Workload{cfg: cfg, graceUntil: time.Now().Add(cfg.StartupGrace)}
	if cfg.Subject != "" {
		w.subject = spiffeid.RequireFromString(cfg.Subject)
	}
	w.base, w.stop = context.WithCancelCause(context.Background())
	w.holder.doing = "fetch a JWT-SVID"
	w.holder.fault = func() error { return w.refuse(Claims{}, nil, true, "the client panicked", "report this as a fault") }
	return w, nil
}

func (cfg WorkloadConfig) check() error {
	if err := checkAddress(cfg.Address); err != nil {
		return fmt.Errorf("mint: WorkloadConfig.Address: %w", err)
	}
	if err := checkValue(cfg.Audience); err != nil {
		return fmt.Errorf("mint: WorkloadConfig.Audience: %w", err)
	}
	if cfg.Subject != "" {
		if err := checkSubject(cfg.Subject); err != nil {
			return fmt.Errorf("mint: WorkloadConfig.Subject: %w", err)
		}
	}
	if cfg.Subject != "" && cfg.Hint != "" {
		return errors.New("mint: WorkloadConfig.Hint: Subject chooses already; set one of the two")
	}
	if cfg.StartupGrace < 0 || cfg.StartupGrace > maxStartupGrace {
		return fmt.Errorf("mint: WorkloadConfig.StartupGrace %v is not between 0 and %v", cfg.StartupGrace, maxStartupGrace)
	}
	return nil
}

// checkAddress holds what go-spiffe takes, and refuses two more: unix://run/x
// would be the path /x, and a longer path fails only when it is dialled.
func checkAddress(address string) error {
	if address == "" {
		return fmt.Errorf("required, as %s is not set; give the agent's socket, such as unix:///run/spire/agent.sock", workloadapi.SocketEnv)
	}
	if err := workloadapi.ValidateAddress(address); err != nil {
		return fmt.Errorf("%q: %s", address, foreignText(err))
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "unix":
		return nil
	case u.Host != "":
		return fmt.Errorf("%q: the path must be absolute, as in unix:///run/spire/agent.sock (three slashes)", address)
	case len(u.Path) > maxSocketPath:
		return fmt.Errorf("%q: the path has %d bytes; that of a unix socket has at most %d", address, len(u.Path), maxSocketPath)
	}
	return nil
}

// Assertion returns the assertion in use, or fetches one when half of its life
// is over. If the agent then refuses, is away, or takes longer than a second,
// the old one serves until 10 s before its end, and the agent is asked again by
// each call. Without one the caller waits until ctx is done, at most 5 s; the
// fetch goes on for those who still want it.
//
// A refusal is an [*Error]; one for a context that is done matches its cause.
func (w *Workload) Assertion(ctx context.Context) (Assertion, error) {
	if ctx.Err() == nil && w.base.Err() != nil {
		return Assertion{}, w.closed()
	}
	return w.holder.assertion(ctx, "", w.fetch)
}

// Fresh is Assertion without regard to the one in use, which was refused. The
// agent may answer with the same one again, since it keeps a copy too.
func (w *Workload) Fresh(ctx context.Context) (Assertion, error) {
	w.holder.drop()
	return w.Assertion(ctx)
}

// Close ends the fetch under way, waits for it, and closes the connection. Later
// calls of Assertion fail.
func (w *Workload) Close() error {
	w.mu.Lock()
	w.stop(errClosed)
	client := w.client
	w.client = nil
	w.mu.Unlock()
	_, _, _ = w.holder.flight.Do("", func() (any, error) { return nil, w.closed() }) // joins the fetch, if there is one
	if client == nil {
		return nil
	}
	return client.Close()
}

// fetch asks the agent once. What it returns has passed inspect.
func (w *Workload) fetch() (*Assertion, error) {
	ctx, cancel := context.WithTimeout(w.base, fetchTimeout)
	defer cancel()
	client, err := w.open(ctx)
	if err != nil {
		return nil, err
	}
	svid, err := client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: w.cfg.Audience, Subject: w.subject})
	if err != nil {
		return nil, w.explain(err)
	}
	raw := svid.Marshal()
	claims, err := parse(raw)
	if err != nil {
		return nil, w.unreadable(err)
	}
	if w.cfg.VerifyBundle {
		if err := w.verify(ctx, client, raw, claims); err != nil {
			return nil, err
		}
	}
	w.worked.Store(true)
	return &Assertion{Value: secret.New(raw), Claims: claims}, nil
}

// open returns the client, which connects in the background and keeps at it:
// workloadapi.New waits for nothing, but it does begin to dial.
func (w *Workload) open(ctx context.Context) (*workloadapi.Client, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.base.Err() != nil {
		return nil, w.closed()
	}
	if w.client != nil {
		return w.client, nil
	}
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(w.cfg.Address), workloadapi.WithDialOptions(
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMost},
			MinConnectTimeout: fetchTimeout,
		}),
		grpc.WithNoProxy(), // a proxy for the web has no business with identities
		grpc.WithUnaryInterceptor(w.inspect),
	))
	if err != nil {
		return nil, w.refuse(Claims{}, err, false, "cannot be dialled ("+foreignText(err)+")", "check the address")
	}
	w.client = client
	return client, nil
}

package mint

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	defaultFetchTimeout = 10 * time.Second
	minFetchTimeout     = time.Second
	maxFetchTimeout     = time.Minute
	maxFetched          = 64 << 10 // bytes of a reply or of a command's output
)

// Fetcher is a source of assertions that an issuer elsewhere makes when it is
// asked: GitHub Actions ([NewGitHub]), Google Cloud ([NewGoogle]), whatever a
// command knows ([NewCommand]) or serves at a URL ([NewURL]). They are no
// JWT-SVIDs: their subject may be any text. One is fetched and handed out until
// half of its life is over. A Fetcher is safe for concurrent use; callers that
// need a new one at the same time share it. It must be closed.
type Fetcher struct {
	from     string // who is asked, in errors
	audience string
	timeout  time.Duration
	get      func(ctx context.Context) (raw string, refused *trouble)
	advice   func(rule) string

	worked atomic.Bool // an assertion has come
	holder holder
	base   context.Context // of every fetch; ends with Close
	stop   context.CancelCauseFunc
}

// trouble says why nothing was fetched. Its texts hold nothing of what came.
type trouble struct {
	problem, advice string
	cause           error
	temporary       bool // else it is for a source that has never worked
}

// newFetcher checks what all kinds of Config have. The caller adds from, get and
// advice.
func newFetcher(config, audience string, timeout time.Duration) (*Fetcher, error) {
	if err := checkValue(audience); err != nil {
		return nil, fmt.Errorf("mint: %s.Audience: %w", config, err)
	}
	if timeout == 0 {
		timeout = defaultFetchTimeout
	}
	if timeout < minFetchTimeout || timeout > maxFetchTimeout {
		return nil, fmt.Errorf("mint: %s.Timeout %v is not between %v and %v", config, timeout, minFetchTimeout, maxFetchTimeout)
	}
	f := &Fetcher{audience: audience, timeout: timeout}
	f.base, f.stop = context.WithCancelCause(context.Background())
	f.holder.doing = "fetch an assertion"
	f.holder.fault = func() error { return f.refuse(Claims{}, nil, true, "the source panicked", "report this as a fault") }
	return f, nil
}

// Assertion returns the assertion in use, or fetches one when half of its life
// is over. If that fails, or takes longer than a second, the old one serves until
// 10 s before its end, and each call tries again. Without one the caller waits
// until ctx is done, at most for the configured timeout; the fetch goes on for
// those who still want it.
//
// A refusal is an [*Error]; one for a context that is done matches its cause.
func (f *Fetcher) Assertion(ctx context.Context) (Assertion, error) {
	if ctx.Err() == nil && f.base.Err() != nil {
		return Assertion{}, f.closed()
	}
	return f.holder.assertion(ctx, "", f.fetch)
}

// Fresh is Assertion without regard to the one in use, which was refused. The
// issuer may answer with the same one again, if it keeps a copy too.
func (f *Fetcher) Fresh(ctx context.Context) (Assertion, error) {
	f.holder.drop()
	return f.Assertion(ctx)
}

// Close ends the fetch under way, with the command if there is one, and waits for
// it. Later calls of Assertion fail.
func (f *Fetcher) Close() error {
	f.stop(errClosed)
	_, _, _ = f.holder.flight.Do("", func() (any, error) { return nil, f.closed() }) // joins the fetch, if there is one
	return nil
}

// fetch asks once, and checks what comes as Entra would.
func (f *Fetcher) fetch() (*Assertion, error) {
	ctx, cancel := context.WithTimeout(f.base, f.timeout)
	defer cancel()
	raw, refused := f.get(ctx)
	switch {
	case f.base.Err() != nil:
		return nil, f.closed()
	case refused != nil && ctx.Err() != nil:
		return nil, f.refuse(Claims{}, nil, true, fmt.Sprintf("no answer within %v", f.timeout), refused.advice)
	case refused != nil:
		return nil, f.explain(refused)
	}
	claims, err := parse(raw)
	if err != nil {
		return nil, f.refuse(Claims{}, err, false, "what came is no assertion: "+err.Error(), f.advice(ruleType))
	}
	if b := f.breach(claims); b != nil {
		return nil, f.refuse(claims, b.cause, b.temporary, b.problem, f.advice(b.rule))
	}
	f.worked.Store(true)
	return &Assertion{Value: secret.New(raw), Claims: claims}, nil
}

// breach adds to Entra's rules what a JWT-SVID's source checks in its own way.
func (f *Fetcher) breach(c Claims) *breach {
	switch b := breachOf(c, time.Now()); {
	case b != nil:
		return b
	case c.Subject == "":
		return &breach{rule: ruleSubject, problem: fmt.Sprintf("no sub claim, which Entra requires (%v)", c)}
	case !slices.Contains(c.Audience, f.audience):
		return &breach{rule: ruleAudience, problem: fmt.Sprintf("its audience is %s, want %s (%v)", shownList(c.Audience), shown(f.audience), c)}
	}
	return nil
}

// explain takes what refuses for a permanent trouble only where nothing has come
// yet: an issuer that has worked and refuses is being restarted or mended.
func (f *Fetcher) explain(t *trouble) *Error {
	advice := t.advice
	if !t.temporary && f.worked.Load() {
		advice = "it worked before; if it does not again soon, " + advice
	}
	return f.refuse(Claims{}, t.cause, t.temporary || f.worked.Load(), t.problem, advice)
}

func (f *Fetcher) closed() *Error {
	return f.refuse(Claims{}, errClosed, false, errClosed.Error(), "svidecar is stopping")
}

func (f *Fetcher) refuse(c Claims, cause error, temporary bool, problem, advice string) *Error {
	return &Error{
		Claims:    c,
		text:      fmt.Sprintf("mint: %s: %s; %s", f.from, problem, advice),
		temporary: temporary,
		cause:     cause,
	}
}

// issuerAdvice mends each breach where the issuer is the operator's choice.
var issuerAdvice = map[rule]string{
	ruleAlgorithm: "have the issuer sign with RS256, by an RSA key",
	ruleKeyID:     "have the issuer write the kid of its key set into the header",
	ruleType:      "check that it gives one JWT, with typ JWT or none in the header, and nothing else",
	ruleIssuer:    "have the issuer write iss, as the federated credential names it",
	ruleIssuedAt:  "have the issuer write iat",
	ruleExpiry:    "have the issuer write exp: an assertion must end",
	ruleUnexpired: "check that it gives a new one each time, and that the clocks of this machine and of the issuer agree",
	ruleBegun:     "check that the clocks of this machine and of the issuer agree",
	ruleLife:      "have the issuer make it for a shorter time",
	ruleSubject:   "have the issuer write sub, as the federated credential names it",
}

// byIssuer is issuerAdvice, and for an unwanted audience what asks for another.
func byIssuer(audience string) func(rule) string {
	return func(r rule) string {
		if r == ruleAudience {
			return audience + ", or set the source's audience to what the federated credential names"
		}
		return issuerAdvice[r]
	}
}

// byPlatform advises where the issuer's tokens are known to be good.
func byPlatform(sure string) func(rule) string {
	return func(r rule) string {
		if r == ruleBegun || r == ruleUnexpired {
			return "check this machine's clock"
		}
		return sure
	}
}

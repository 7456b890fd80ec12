package mint

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/svidecar/svidecar/internal/secret"
)

const (
	defaultLifetime = 5 * time.Minute
	minLifetime     = time.Minute
	maxLifetime     = time.Hour
	skew            = 30 * time.Second // nbf lies this far before iat: Entra's clock may be behind ours
	patience        = time.Second      // for the signer, while the assertion we hold is still good
	lastUse         = 10 * time.Second // of life that an assertion needs to reach Entra
	jtiBytes        = 16
)

// LocalConfig configures [NewLocal].
type LocalConfig struct {
	// Signer holds the RSA key, 2,048 to 4,096 bits, and signs PKCS #1 v1.5 with
	// SHA-256. It must be safe for concurrent use, and may be remote and slow.
	// Either it or Keys is required.
	Signer crypto.Signer

	// Keys takes the place of Signer where the key changes: it returns the key
	// that signs now, which is as Signer describes it. It is called before each
	// assertion is handed out, so it must be quick, and safe for concurrent use.
	Keys func() (crypto.Signer, error)

	// Issuer is the iss claim, verbatim: an https URL of at most 600 printable
	// ASCII characters, with a host, and without user, query, fragment,
	// percent-encoding, or empty or dot segments. One trailing slash is kept, and
	// counts: Entra compares byte for byte. Required.
	Issuer string

	// Subject is the sub claim: a SPIFFE ID with a path, at most 600 characters.
	// Required.
	Subject string

	// Audience is the aud claim, 1 to 600 printable ASCII characters, as the
	// cloud wants it (api://AzureADTokenExchange). Required.
	Audience string

	// Lifetime is exp minus iat: whole seconds, 1 min to 1 h. Zero means 5 min.
	Lifetime time.Duration
}

// Local is a source of assertions signed here: JWT-SVIDs with RS256. One is
// minted and handed out until half of its life is over, or its key no longer is
// the one that [LocalConfig.Keys] returns. A Local is safe for concurrent use;
// callers that need a new one at the same time share it.
type Local struct {
	cfg  LocalConfig
	last atomic.Pointer[signingKey] // whose key id is known

	holder holder
}

// NewLocal checks cfg. It signs nothing, and does not call Keys: a key that is
// missing at the start may come.
func NewLocal(cfg LocalConfig) (*Local, error) {
	if cfg.Lifetime == 0 {
		cfg.Lifetime = defaultLifetime
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &Local{cfg: cfg}
	if cfg.Signer != nil {
		if _, err := l.known(cfg.Signer); err != nil {
			return nil, fmt.Errorf("mint: LocalConfig.Signer: %w", err)
		}
	}
	l.holder.doing = "sign an assertion"
	l.holder.fault = func() error { return signError(nil, true, "the signer panicked; report this as a fault") }
	return l, nil
}

func (cfg LocalConfig) check() error {
	switch {
	case cfg.Signer == nil && cfg.Keys == nil:
		return errors.New("mint: LocalConfig.Signer is required, or Keys")
	case cfg.Signer != nil && cfg.Keys != nil:
		return errors.New("mint: LocalConfig.Keys: there is a Signer too; set one of the two")
	}
	if _, err := issuerURL(cfg.Issuer); err != nil {
		return fmt.Errorf("mint: LocalConfig.Issuer: %w", err)
	}
	if err := checkSubject(cfg.Subject); err != nil {
		return fmt.Errorf("mint: LocalConfig.Subject: %w", err)
	}
	if err := checkValue(cfg.Audience); err != nil {
		return fmt.Errorf("mint: LocalConfig.Audience: %w", err)
	}
	if cfg.Lifetime < minLifetime || cfg.Lifetime > maxLifetime || cfg.Lifetime%time.Second != 0 {
		return fmt.Errorf("mint: LocalConfig.Lifetime: %v is not a whole number of seconds between %v and %v", cfg.Lifetime, minLifetime, maxLifetime)
	}
	return nil
}

func checkSubject(subject string) error {
	if err := checkValue(subject); err != nil {
		return err
	}
	id, err := spiffeid.FromString(subject)
	if err != nil {
		return fmt.Errorf("%q is not a SPIFFE ID: %w", subject, err)
	}
	if id.Path() == "" {
		return fmt.Errorf("%q names a trust domain and no workload: add a path, as in spiffe://example.org/app", subject)
	}
	return nil
}

// checkValue holds what a federated credential can match: Entra takes at most
// 600 characters of issuer, subject and audience each.
func checkValue(s string) error {
	switch {
	case s == "":
		return errors.New("required")
	case len(s) > maxValue:
		return fmt.Errorf("%d characters long; Entra takes at most %d", len(s), maxValue)
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%q has a character that is not printable ASCII", s)
	}
	return nil
}

// Assertion returns the assertion in use, or mints one when half of its life is
// over. If the signer then fails, or takes longer than a second, the old one
// serves until 10 s before its end, and the signer is asked again by each call.
// Without one the caller waits for the signer until ctx is done; the signing goes
// on for those who still want it, since crypto.Signer takes no context.
//
// An assertion of a key that [LocalConfig.Keys] no longer returns never serves,
// whatever the signer does: the key may have been stolen. Without a key there is
// no assertion.
//
// A refusal is an [*Error]; one for a context that is done matches its cause.
func (l *Local) Assertion(ctx context.Context) (Assertion, error) {
	key, err := l.key()
	if err != nil {
		return Assertion{}, err
	}
	return l.holder.assertion(ctx, key.id, func() (*Assertion, error) { return l.mint(key) })
}

// Fresh is Assertion without regard to the one in use, which was refused.
func (l *Local) Fresh(ctx context.Context) (Assertion, error) {
	l.holder.drop()
	return l.Assertion(ctx)
}

// mint signs a new assertion and reads it back: a remote signer may answer with
// another key than the one it showed.
func (l *Local) mint(key *signingKey) (*Assertion, error) {
	signer, err := key.jose()
	if err != nil {
		return nil, signError(nil, false, "the signer cannot be used: "+foreignText(err))
	}
	raw, err := jwt.Signed(signer).Claims(l.claims(time.Now())).Serialize()
	if err != nil {
		return nil, signError(err, true, "the signer answered: "+foreignText(err)+"; check that the key is reachable and allowed to sign")
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		panic("mint: internal error: a token made here does not parse")
	}
	var std jwt.Claims
	if err := token.Claims(key.public, &std); err != nil {
		return nil, signError(err, false, "the signature does not fit the signer's public key; the key may have been replaced: restart with the new one")
	}
	claims, err := claimsOf(token.Headers[0], std)
	if err != nil {
		return nil, signError(err, true, "this machine's clock is far off: set it")
	}
	return &Assertion{Value: secret.New(raw), Claims: claims}, nil
}

func (l *Local) claims(now time.Time) jwt.Claims {
	issued := now.Truncate(time.Second)
	return jwt.Claims{
		Issuer:    l.cfg.Issuer,
		Subject:   l.cfg.Subject,
		Audience:  jwt.Audience{l.cfg.Audience},
		IssuedAt:  jwt.NewNumericDate(issued),
		NotBefore: jwt.NewNumericDate(issued.Add(-skew)),
		Expiry:    jwt.NewNumericDate(issued.Add(l.cfg.Lifetime)),
		ID:        tokenID(),
	}
}

func tokenID() string {
	var id [jtiBytes]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(id[:])
}

func signError(cause error, temporary bool, problem string) *Error {
	return &Error{text: "mint: sign an assertion: " + problem, temporary: temporary, cause: cause}
}

// fresh reports whether now lies in the first half of the life of a, which may
// be nil. Times in claims have no monotonic reading, so that a clock set back
// counts: Entra would refuse an assertion from the future.
func (a *Assertion) fresh(now time.Time) bool {
	if a == nil {
		return false
	}
	life := a.Claims.Expiry.Sub(a.Claims.IssuedAt)
	return !now.Before(a.Claims.NotBefore) && now.Before(a.Claims.IssuedAt.Add(life/2))
}

// usable reports whether a, which may be nil, can still be redeemed.
func (a *Assertion) usable(now time.Time) bool {
	return a != nil && !now.Before(a.Claims.NotBefore) && now.Add(lastUse).Before(a.Claims.Expiry)
}

// clone keeps a caller from changing what the next one gets.
func (a *Assertion) clone() Assertion {
	out := *a
	out.Claims.Audience = slices.Clone(a.Claims.Audience)
	return out
}

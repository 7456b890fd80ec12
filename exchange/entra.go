package exchange

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/AzureAD/microsoft-authentication-library-for-go/apps/confidential"

	"github.com/svidecar/svidecar/internal/secret"
)

// Authority hosts of the clouds. See
// learn.microsoft.com/entra/identity-platform/authentication-national-cloud.
const (
	PublicAuthority = "https://login.microsoftonline.com/"
	USGovAuthority  = "https://login.microsoftonline.us/"
	ChinaAuthority  = "https://login.partner.microsoftonline.cn/"
)

// noRegion keeps MSAL from reading MSAL_FORCE_REGION, which could make it ask
// 169.254.169.254 for the region: an address that is likely this program.
const noRegion = "DisableMsalForceRegion"

// EntraConfig says where and how assertions are redeemed.
type EntraConfig struct {
	// Authority is the https URL of the authority host, without a tenant.
	// Empty means PublicAuthority.
	Authority string
	// Assertion is required.
	Assertion AssertionFunc
	// Roots verify the authority's certificate. Nil means the system's.
	Roots *x509.CertPool
	// Region of the token service, such as "westeurope". Empty means the
	// global one.
	Region string
}

// Entra redeems assertions at Microsoft Entra ID through MSAL. It keeps no
// token: its caller, Source, does. It is safe for concurrent use.
type Entra struct {
	cfg       EntraConfig
	authority string // without a trailing slash
	transport *guarded
	client    *http.Client
}

// NewEntra validates cfg. It opens no connection.
func NewEntra(cfg EntraConfig) (*Entra, error) {
	if cfg.Assertion == nil {
		return nil, errors.New("exchange: EntraConfig.Assertion is required")
	}
	if cfg.Authority == "" {
		cfg.Authority = PublicAuthority
	}
	u, err := url.Parse(cfg.Authority)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("exchange: authority host %q is not an https URL without a path, such as %s", cfg.Authority, PublicAuthority)
	}
	if err := checkProxy(u); err != nil {
		return nil, err
	}
	transport := newTransport(u, cfg.Roots, cfg.Region)
	return &Entra{
		cfg:       cfg,
		authority: "https://" + u.Host,
		transport: transport,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections. Redeem must not be called after it.
func (e *Entra) Close() { e.transport.close() }

// Redeem is a RedeemFunc. Its error is always an *Error. An assertion that Entra
// finds outside its validity is replaced by a fresh one, once.
//
// MSAL's client is made anew for each exchange, so that its cache, which scans,
// never evicts and coalesces nothing, stays empty; what would make that dear,
// the discovery document, is remembered by the transport.
func (e *Entra) Redeem(ctx context.Context, key Key) (Token, error) {
	token, err := e.redeem(ctx, key, false)
	if err != nil && err.class() == stale {
		token, err = e.redeem(ctx, key, true)
	}
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

func (e *Entra) redeem(ctx context.Context, key Key, fresh bool) (Token, *Error) {
	// The assertion comes first: what is wrong on this side is said before
	// what is wrong on the other.
	assertion, err := e.cfg.Assertion(ctx, key, fresh)
	if err != nil {
		return Token{}, fromSource(err)
	}
	client, err := e.msal(key, assertion)
	if err != nil {
		return Token{}, &Error{Kind: BadRequest, Cause: "client id and tenant make no valid request", Fix: "check client id and tenant id"}
	}
	start := time.Now()
	res, err := client.AcquireTokenByCredential(ctx, []string{key.Scope})
	if err != nil {
		failed := classify(err, assertion)
		failed.Cause += e.skewed(failed)
		return Token{}, failed
	}
	return accept(res, start)
}

// Skew is how far Entra's clock is ahead of this machine's, to about a second,
// by the Date of its last reply; zero if none has come.
func (e *Entra) Skew() time.Duration { return e.transport.skew() }

// maxSkew is the difference that no assertion of five minutes should fail on.
const maxSkew = 30 * time.Second

// skewed explains a failure that has to do with time by the clocks, if they
// differ.
func (e *Entra) skewed(failed *Error) string {
	skew := e.Skew().Round(time.Second)
	if failed.class() != stale || skew.Abs() < maxSkew {
		return ""
	}
	if skew > 0 {
		return fmt.Sprintf("; this machine's clock is %v behind Entra's", skew)
	}
	return fmt.Sprintf("; this machine's clock is %v ahead of Entra's", -skew)
}

// msal makes a client for one exchange.
func (e *Entra) msal(key Key, assertion secret.Value) (confidential.Client, error) {
	callback := func(context.Context, confidential.AssertionRequestOptions) (string, error) {
		return assertion.Reveal(), nil
	}
	region := e.cfg.Region
	if region == "" {
		region = noRegion
	}
	return confidential.New(e.authority+"/"+url.PathEscape(key.Tenant), key.ClientID,
		confidential.NewCredFromAssertionCallback(callback),
		confidential.WithHTTPClient(e.client),
		confidential.WithInstanceDiscovery(false),
		confidential.WithAzureRegion(region))
}

// accept checks what Entra issued before anything relies on it.
func accept(res confidential.AuthResult, start time.Time) (Token, *Error) {
	// MSAL counts the life from when it read the reply; counting from
	// before the request was sent errs on the safe side.
	life := time.Until(res.ExpiresOn).Round(time.Second)
	var refresh time.Duration
	if !res.Metadata.RefreshOn.IsZero() {
		refresh = time.Until(res.Metadata.RefreshOn).Round(time.Second)
	}
	if life <= 0 || !isTokenText(res.AccessToken) {
		return Token{}, unavailable("Entra's reply holds no usable token", "look for a proxy in between; the next request tries again")
	}
	return NewToken(secret.New(res.AccessToken), start, life, refresh), nil
}

// isTokenText reports whether s has only characters that a bearer token may
// have (RFC 6750 section 2.1), so that it needs no escaping anywhere.
func isTokenText(s string) bool {
	const most = 64 << 10 // real ones are a few KiB
	if len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("-._~+/=", c) < 0 {
			return false
		}
	}
	return s != ""
}

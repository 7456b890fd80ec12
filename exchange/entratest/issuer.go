package entratest

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxDocument = 256 << 10 // bytes of a discovery document or key set
	maxKeys     = 100       // further keys do not count
	minKeyBits  = 2048
	wellKnown   = "/.well-known/openid-configuration"
)

// jwk is one key of an issuer's key set (RFC 7517 section 4).
type jwk struct{ kty, use, alg, kid, x5t, x5tS256, n, e string }

// parseJWK reads member names as they are spelled; encoding/json would accept
// any letter case in a struct. Members that are not strings read as absent.
func parseJWK(raw json.RawMessage) (k jwk, ok bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return jwk{}, false
	}
	if _, private := members["d"]; private { // the issuer published its private key
		return jwk{}, false
	}
	for name, to := range map[string]*string{
		"kty": &k.kty, "use": &k.use, "alg": &k.alg, "kid": &k.kid,
		"x5t": &k.x5t, "x5t#S256": &k.x5tS256, "n": &k.n, "e": &k.e,
	} {
		*to, _, _ = stringMember(members, name)
	}
	return k, true
}

// issuers fetches the issuers' documents and remembers their keys.
type issuers struct {
	client  *http.Client
	timeout time.Duration
	ttl     time.Duration // zero: nothing is remembered

	mu    sync.Mutex
	cache map[string]cachedKeys
}

type cachedKeys struct {
	keys  []jwk
	until time.Time
}

// newIssuers copies client, so that redirects are refused without changing the
// caller's: Entra is not known to follow them.
func newIssuers(client *http.Client, timeout, ttl time.Duration) *issuers {
	strict := *client
	strict.Jar = nil
	strict.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &issuers{client: &strict, timeout: timeout, ttl: ttl, cache: map[string]cachedKeys{}}
}

// keys returns the issuer's first 100 keys. No lock is held while it fetches.
func (i *issuers) keys(ctx context.Context, issuer string) ([]jwk, *refusal) {
	if keys, ok := i.cached(issuer); ok {
		return keys, nil
	}
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	location, r := i.discover(ctx, issuer)
	if r != nil {
		return nil, r
	}
	keys, r := i.fetchKeys(ctx, location)
	if r != nil {
		return nil, r
	}
	i.remember(issuer, keys)
	return keys, nil
}

func (i *issuers) cached(issuer string) ([]jwk, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c, ok := i.cache[issuer]
	return c.keys, ok && time.Now().Before(c.until)
}

func (i *issuers) remember(issuer string, keys []jwk) {
	if i.ttl == 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cache[issuer] = cachedKeys{keys: keys, until: time.Now().Add(i.ttl)}
}

// discover reads the issuer's discovery document (OpenID Connect Discovery
// section 4) and returns where its keys are.
func (i *issuers) discover(ctx context.Context, issuer string) (string, *refusal) {
	if !isIssuerURL(issuer) {
		return "", refuse(50166)
	}
	doc, r := i.get(ctx, strings.TrimSuffix(issuer, "/")+wellKnown)
	if r != nil {
		return "", r
	}
	if raw, ok := doc["authorization_endpoint"]; ok && string(raw) == `""` {
		return "", refuse(90061)
	}
	if said, _, err := stringMember(doc, "issuer"); err != nil || said != issuer {
		return "", refuse(501661)
	}
	location, _, err := stringMember(doc, "jwks_uri")
	if err != nil || !isHTTPS(location) || !completeDiscovery(doc) {
		return "", refuse(501661)
	}
	return location, nil
}

// completeDiscovery checks the members that are required besides issuer and
// jwks_uri (OpenID Connect Discovery section 3).
func completeDiscovery(doc map[string]json.RawMessage) bool {
	lists := map[string][]string{}
	for _, name := range []string{"response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"} {
		var list []string
		if json.Unmarshal(doc[name], &list) != nil || list == nil {
			return false
		}
		lists[name] = list
	}
	return slices.Contains(lists["id_token_signing_alg_values_supported"], "RS256")
}

func (i *issuers) fetchKeys(ctx context.Context, location string) ([]jwk, *refusal) {
	doc, r := i.get(ctx, location)
	if r != nil {
		return nil, r
	}
	var raw []json.RawMessage
	if json.Unmarshal(doc["keys"], &raw) != nil || raw == nil {
		return nil, refuse(501661)
	}
	keys := make([]jwk, min(len(raw), maxKeys))
	for n := range keys {
		var ok bool
		if keys[n], ok = parseJWK(raw[n]); !ok {
			return nil, refuse(501661)
		}
	}
	return keys, nil
}

// get fetches one JSON object: 50166 if it cannot be had, 501661 if it is not
// well formed or too long.
func (i *issuers) get(ctx context.Context, location string) (map[string]json.RawMessage, *refusal) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, refuse(50166)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, refuse(50166)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, refuse(50166)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, refuse(50166)
	}
	doc, err := object(body)
	if err != nil || len(body) > maxDocument {
		return nil, refuse(501661)
	}
	return doc, nil
}

// choose finds the key that id names. A kid that is not there is 7000272; one
// that is there but may not sign is 700027.
func choose(keys []jwk, id keyID, issuer string) (*rsa.PublicKey, *refusal) {
	var found []jwk
	for _, k := range keys {
		if id.names(k) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 0:
		return nil, refuse(7000272, "{name}", id.String(), "{issuer}", issuer)
	case 1:
	default:
		return nil, refuse(700027, "{reason}", fmt.Sprintf("The key set names the key %d times.", len(found)))
	}
	pub, err := found[0].public()
	if err != nil {
		return nil, refuse(700027, "{reason}", "The key may not sign: "+err.Error()+".")
	}
	return pub, nil
}

// names reports whether each identifier in the header is the key's.
func (id keyID) names(k jwk) bool {
	return (id.kid == "" || id.kid == k.kid) &&
		(id.x5t == "" || id.x5t == k.x5t) &&
		(id.x5tS256 == "" || id.x5tS256 == k.x5tS256)
}

// public returns the RSA key (RFC 7518 section 6.3.1).
func (k jwk) public() (*rsa.PublicKey, error) {
	switch {
	case k.kty != "RSA":
		return nil, fmt.Errorf("kty is %q, not RSA", k.kty)
	case k.use != "sig":
		return nil, fmt.Errorf("use is %q, not sig", k.use)
	case k.alg != "" && k.alg != "RS256":
		return nil, fmt.Errorf("alg is %q, not RS256", k.alg)
	}
	n, errN := unbase64(k.n)
	e, errE := unbase64(k.e)
	if errN != nil || errE != nil || len(e) == 0 || len(e) > 4 {
		return nil, fmt.Errorf("n or e is malformed")
	}
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	if pub.E < 3 || pub.E%2 == 0 || pub.E > 1<<31-1 {
		return nil, fmt.Errorf("e is %d", pub.E)
	}
	if bits := pub.N.BitLen(); bits < minKeyBits {
		return nil, fmt.Errorf("it has %d bits, below %d", bits, minKeyBits)
	}
	return pub, nil
}

func isHTTPS(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && u.Fragment == ""
}

// isIssuerURL applies OpenID Connect Core section 2: https, no query, no
// fragment.
func isIssuerURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && isHTTPS(s) && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(s, "#")
}

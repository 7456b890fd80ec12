package proxy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
)

// Identity is one that requests may use.
type Identity struct {
	ClientID   string // required
	Tenant     string // required
	ObjectID   string // empty: not selectable by object id
	ResourceID string // empty: not selectable by resource id
	// Resources that may be asked for. Empty means all.
	Resources []string
}

// PolicyConfig says which identities there are.
type PolicyConfig struct {
	// Identities that may be selected.
	Identities []Identity
	// Default is the index in Identities of the one that requests without a
	// selector get. Negative means none: such requests are refused.
	Default int
	// AnyClientTenant, if not empty, allows every client id, in this tenant,
	// as azure-workload-identity's sidecar does. Identities go first.
	AnyClientTenant string
}

// Policy decides which identity a request uses. It is immutable.
type Policy struct {
	cfg PolicyConfig
	// by holds the identities under each selector, in lower case. Several
	// under one make it ambiguous.
	by map[imds.SelectorKind]map[string][]*Identity
}

// NewPolicy validates cfg.
func NewPolicy(cfg PolicyConfig) (*Policy, error) {
	if cfg.Default >= len(cfg.Identities) {
		return nil, fmt.Errorf("proxy: default identity %d of %d does not exist", cfg.Default, len(cfg.Identities))
	}
	p := &Policy{cfg: cfg, by: map[imds.SelectorKind]map[string][]*Identity{
		imds.ByClientID: {}, imds.ByObjectID: {}, imds.ByResourceID: {},
	}}
	for i := range cfg.Identities {
		id := &cfg.Identities[i]
		if id.ClientID == "" || id.Tenant == "" {
			return nil, errors.New("proxy: an identity lacks its client id or tenant")
		}
		p.add(imds.ByClientID, id.ClientID, id)
		p.add(imds.ByObjectID, id.ObjectID, id)
		p.add(imds.ByResourceID, id.ResourceID, id)
	}
	return p, nil
}

func (p *Policy) add(kind imds.SelectorKind, value string, id *Identity) {
	if value != "" {
		value = strings.ToLower(value)
		p.by[kind][value] = append(p.by[kind][value], id)
	}
}

// Resolve is the only maker of keys: one request leads to exactly one key, or
// to an *imds.Refusal. A selector that is not known is refused, never answered
// with another identity.
func (p *Policy) Resolve(req imds.Request) (exchange.Key, error) {
	id, err := p.identity(req.Selector)
	if err != nil {
		return exchange.Key{}, err
	}
	if !id.allows(req.Resource) {
		return exchange.Key{}, &imds.Refusal{Outcome: imds.AccessDenied,
			Description: fmt.Sprintf("the identity with client id %s may not ask for %s: add that to its allowed-resources in svidecar's configuration, or correct the app's setting", id.ClientID, quoted(req.Resource))}
	}
	return exchange.Key{Tenant: id.Tenant, ClientID: id.ClientID, Scope: exchange.Scope(req.Resource)}, nil
}

// Tenant is the default identity's, or the one that all share.
func (p *Policy) Tenant() (string, error) {
	if p.cfg.Default >= 0 {
		return p.cfg.Identities[p.cfg.Default].Tenant, nil
	}
	tenant := p.cfg.AnyClientTenant
	for _, id := range p.cfg.Identities {
		if tenant != "" && !strings.EqualFold(id.Tenant, tenant) {
			return "", notFound("Identity not found: svidecar's identities are of several tenants, and none is the default one: mark one as default")
		}
		tenant = id.Tenant
	}
	if tenant == "" {
		return "", notFound("Identity not found: svidecar has no identity, and so no tenant")
	}
	return tenant, nil
}

func (p *Policy) identity(sel imds.Selector) (*Identity, error) {
	if sel.Kind == imds.NoSelector {
		if p.cfg.Default < 0 {
			return nil, notFound("Identity not found: the request names no identity and there is no default one: send client_id, or configure client-id (AZURE_CLIENT_ID)")
		}
		return &p.cfg.Identities[p.cfg.Default], nil
	}
	switch found := p.by[sel.Kind][strings.ToLower(sel.Value)]; len(found) {
	case 1:
		return found[0], nil
	case 0:
		return p.unlisted(sel)
	default:
		return nil, notFound("Identity not found: %s %s selects several identities: use another selector", sel.Name, quoted(sel.Value))
	}
}

// unlisted allows a client id that was not configured where there is no list.
func (p *Policy) unlisted(sel imds.Selector) (*Identity, error) {
	switch {
	case p.cfg.AnyClientTenant == "":
		return nil, notFound("Identity not found: %s %s is none of svidecar's identities: add it to the configuration, or check the app's setting", sel.Name, quoted(sel.Value))
	case sel.Kind != imds.ByClientID:
		return nil, notFound("Identity not found: svidecar knows no identity with %s %s: list the identity in the configuration, or select by client_id", sel.Name, quoted(sel.Value))
	case !isGUID(sel.Value):
		return nil, notFound("Identity not found: client_id %s is not a GUID", quoted(sel.Value))
	}
	return &Identity{ClientID: strings.ToLower(sel.Value), Tenant: p.cfg.AnyClientTenant}, nil
}

func notFound(format string, args ...any) *imds.Refusal {
	return &imds.Refusal{Outcome: imds.IdentityNotFound, Description: fmt.Sprintf(format, args...)}
}

// allows compares resources as people write them: without regard to case or a
// trailing slash, and by what Scope takes for the resource.
func (id *Identity) allows(resource string) bool {
	for _, allowed := range id.Resources {
		if plain(allowed) == plain(resource) {
			return true
		}
	}
	return len(id.Resources) == 0
}

func plain(resource string) string {
	resource = strings.TrimSuffix(exchange.Scope(resource), "/.default")
	return strings.TrimSuffix(strings.ToLower(resource), "/")
}

// quoted shows a selector in a message. What has not the form of one is cut
// short: it may be something that was never meant to be shown.
func quoted(value string) string {
	const most = 16
	if len(value) > most && !isGUID(value) && !isNamed(value) {
		value = value[:most] + "…"
	}
	return fmt.Sprintf("%q", value)
}

// isNamed reports whether value looks like a resource or an identity by name, of
// which no part is longer than a GUID by much.
func isNamed(value string) bool {
	return (strings.Contains(value, "://") || strings.HasPrefix(value, "/")) && shownPath(value) == value
}

// isGUID reports whether s has the form 8-4-4-4-12 in hexadecimal.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i] | 0x20
		hex := s[i] >= '0' && s[i] <= '9' || c >= 'a' && c <= 'f'
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash && s[i] != '-' || !dash && !hex {
			return false
		}
	}
	return true
}

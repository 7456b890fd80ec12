// Package imds owns the wire protocols of managed identity: it parses a token
// request and writes the reply. It does no I/O of its own, keeps no clock, and
// never decides which identity a request may use.
//
// The wire contract is docs/protocol.md.
package imds

// Protocol is one of the managed-identity protocols.
type Protocol uint8

const (
	// IMDS is the Azure VM instance metadata service:
	// GET /metadata/identity/oauth2/token with Metadata: true.
	IMDS Protocol = iota + 1
	// AppService is App Service's local endpoint, api-version 2019-08-01
	// (X-IDENTITY-HEADER) and 2017-09-01 (Secret). Clients mix the two, so
	// they are one protocol here.
	AppService
)

// String returns the name used in logs and metrics.
func (p Protocol) String() string {
	switch p {
	case IMDS:
		return "imds"
	case AppService:
		return "appservice"
	default:
		return "none"
	}
}

// SelectorKind says which property of an identity a request names.
type SelectorKind uint8

const (
	NoSelector SelectorKind = iota // the default identity
	ByClientID
	ByObjectID
	ByResourceID
)

// Selector is the identity that a request names. The zero Selector asks for
// the default identity.
type Selector struct {
	Kind SelectorKind
	// Name is the parameter as the reply echoes it: client_id, object_id,
	// msi_res_id or mi_res_id.
	Name string
	// Value is what the client sent, decoded; identities are matched
	// without regard to case.
	Value string
}

// Request is a validated token request.
type Request struct {
	Protocol   Protocol
	Resource   string   // as asked, decoded; URI characters only, never empty
	APIVersion string   // as asked; empty if absent
	Selector   Selector // at most one
}

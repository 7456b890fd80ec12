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
	// AzureML is Azure Machine Learning's endpoint. On the wire it is App
	// Service 2017-09-01 by another name.
	AzureML
	// CloudShell is Cloud Shell's endpoint: Metadata: true, and POST with a form;
	// GET with a query from Java's clients.
	CloudShell
	// ServiceFabric is App Service's protocol over HTTPS, with a certificate
	// that clients know by its thumbprint.
	ServiceFabric
	// Arc is Azure Arc's endpoint: that of IMDS, for clients that prove that
	// they may read a file.
	Arc
)

// Protocols returns every protocol, in order.
func Protocols() []Protocol {
	return []Protocol{IMDS, AppService, AzureML, CloudShell, ServiceFabric, Arc}
}

// String returns the name used in logs and metrics.
func (p Protocol) String() string {
	switch p {
	case IMDS:
		return "imds"
	case AppService:
		return "appservice"
	case AzureML:
		return "azureml"
	case CloudShell:
		return "cloudshell"
	case ServiceFabric:
		return "servicefabric"
	case Arc:
		return "arc"
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
	// Unwanted is the SHA-256, in lower-case hexadecimal, of a token that the
	// client was refused with: it wants another one. Empty means none.
	Unwanted string
	// BypassCache asks for another token than the one held, whichever it is.
	BypassCache bool
}

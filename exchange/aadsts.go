package exchange

// class says how far an error code is to be taken at its word.
type class uint8

const (
	// lasting: until somebody mends it, or for as long as its kind says.
	lasting class = iota
	// momentary: Entra says it now and then of a healthy credential; one
	// that has worked is tried again at once.
	momentary
	// spreading: the key is new, and not all of Entra has it yet; one whose
	// identity has worked is tried again within minutes.
	spreading
	// stale: the assertion was outside its validity; a fresh one is tried
	// once.
	stale
)

// advice is what is known of one of Entra's error codes.
type advice struct {
	kind       Kind
	cause, fix string
	class      class
}

const (
	fixCredential = "compare issuer, subject and audience of the assertion (`svidecar mint`) with the identity's federated credentials, byte for byte; a new credential takes up to some minutes to work"
	fixIssuerDocs = "make the issuer's /.well-known/openid-configuration and its jwks_uri public over https, reachable without sign-in, and well formed"
	fixKeys       = "check that the issuer's key set at jwks_uri holds this kid with use=sig among its first 100 keys; Entra takes 1 to 30 minutes to see a new key"
	fixAudience   = "use the audience of the cloud: api://AzureADTokenExchange, api://AzureADTokenExchangeUSGov or api://AzureADTokenExchangeChina"
	fixRS256      = "sign with RS256; in SPIRE set jwt_key_type = \"rsa-2048\""
	fixResource   = "check the resource's spelling, and that its application exists in the tenant"
	fixLater      = "nothing on this side; the next request tries again"
)

// codes explains Entra's error numbers. Behaviour follows the HTTP status and
// the "error" field; a number only chooses the words, and the kind where the
// status alone says too little. Sources: Microsoft's error reference
// (learn.microsoft.com/entra/identity-platform/reference-error-codes) and the
// rules of workload identity federation.
var codes = map[int]advice{
	// The federated credential does not match the assertion.
	70021:   {Refused, "no federated credential of the identity matches the assertion", fixCredential, momentary},
	700211:  {Refused, "no federated credential of the identity has the assertion's issuer", fixCredential, momentary},
	700212:  {Refused, "no federated credential of the identity has the assertion's audience", fixCredential, momentary},
	700213:  {Refused, "no federated credential of the identity has the assertion's subject", fixCredential, momentary},
	7002138: {Refused, "the assertion matches a federated credential but for upper and lower case", fixCredential, lasting},
	70025:   {Refused, "the identity has no federated credentials", "add a federated credential for the assertion's issuer, subject and audience", momentary},

	// The assertion itself.
	5002738: {Refused, "the assertion's signature algorithm is not RS256", fixRS256, lasting},
	5002723: {Refused, "the assertion's header names no key (kid, x5t or x5t#S256)", "let the issuer put a kid into the header", lasting},
	5002727: {Refused, "the assertion's header has a typ other than JWT", "let the issuer set typ to JWT, or leave it out", lasting},
	90014:   {Refused, "the assertion or the request lacks a required field, such as iss or aud", "let the issuer set iss and aud; in SPIRE set jwt_issuer", lasting},
	70023:   {Refused, "the assertion lives too long: exp minus iat is over 25 hours, or iat is missing", "issue assertions of an hour or less, with iat", lasting},
	700024:  {Refused, "the assertion is outside its validity", "check the clocks of the issuer and of this machine, and that the assertion is renewed", stale},
	700027:  {Refused, "the assertion's signature does not verify with the issuer's keys as Entra has them", fixKeys, spreading},
	7000272: {Refused, "the key that signed the assertion is not in the issuer's key set as Entra has it", fixKeys, spreading},
	50012:   {Refused, "the assertion's signature is wrong", fixKeys, spreading},
	700222:  {Refused, "an Entra token cannot be an assertion here", "use a token of another issuer: a SPIFFE JWT-SVID or a Kubernetes service-account token", lasting},
	700226:  {Refused, "an Entra token of this kind cannot be an assertion", "use a token of another issuer: a SPIFFE JWT-SVID or a Kubernetes service-account token", lasting},
	700236:  {Refused, "an Entra token cannot be an assertion for this application", "use a token of another issuer: a SPIFFE JWT-SVID or a Kubernetes service-account token", lasting},
	900382:  {Refused, "the assertion's audience belongs to another cloud", fixAudience, lasting},
	900432:  {Refused, "the assertion's audience belongs to another cloud", fixAudience, lasting},

	// The issuer's documents.
	50166:  {Refused, "Entra could not fetch the issuer's documents", fixIssuerDocs, lasting},
	501661: {Refused, "Entra could not read the issuer's documents", fixIssuerDocs, lasting},
	90061:  {Refused, "the issuer's discovery document is not as Entra needs it", fixIssuerDocs + "; leave out an empty authorization_endpoint", lasting},

	// The identity, the tenant, the resource.
	700016:  {Refused, "the client id names no application in this tenant", "check client id and tenant id; for a user-assigned identity use its client id, not its object id", lasting},
	7000218: {Refused, "the request carried no client assertion", "report this as a fault of svidecar", lasting},
	90002:   {Refused, "the tenant does not exist", "check the tenant id and the cloud (authority host)", lasting},
	900021:  {Refused, "the tenant's name is not valid", "check the tenant id", lasting},
	500011:  {BadResource, "the resource does not exist in this tenant", fixResource, lasting},
	70011:   {BadResource, "the resource does not make a valid scope", fixResource, lasting},
	1002012: {BadResource, "the resource does not make a valid scope", fixResource, lasting},
	650057:  {BadResource, "the application does not ask for this resource", fixResource, lasting},
	900144:  {BadRequest, "the request lacks a parameter", "report this as a fault of svidecar", lasting},

	// Policies of the tenant.
	53003:  {Refused, "a conditional-access policy blocks this identity", "ask the tenant's administrator to exempt the workload, or meet the policy", lasting},
	700223: {Refused, "a policy of the tenant forbids this federated credential's issuer", "ask the tenant's administrator to allow the issuer", lasting},
	700238: {Refused, "a policy of the tenant forbids workload identity federation for this application", "ask the tenant's administrator to allow it", lasting},

	// Entra's own trouble.
	50196: {Throttled, "Entra saw the same request too often", "find what asks in a loop; svidecar's own requests are bounded by its cache", lasting},
	90006: {Unavailable, "Entra has trouble of its own", fixLater, lasting},
	90012: {Unavailable, "the request to Entra timed out on its side", fixLater, lasting},
	90024: {Unavailable, "Entra has trouble of its own", fixLater, lasting},
	90033: {Unavailable, "Entra has trouble of its own", fixLater, lasting},
	90055: {Throttled, "Entra has too many requests for this tenant", fixLater, lasting},
}

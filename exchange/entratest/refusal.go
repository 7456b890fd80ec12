package entratest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Refusal is one way in which the emulator refuses a request, as Entra does.
type Refusal struct {
	Code   int    // the number after AADSTS
	Status int    // HTTP status
	Error  string // the OAuth 2.0 error (RFC 6749 section 5.2, and Entra's own)
	Text   string // the description's first line; words in braces are filled in
}

// Refusals returns every refusal the emulator knows, in order of Code. Those
// that no request can cause are there for [Fault].AADSTS.
func Refusals() []Refusal {
	all := make([]Refusal, 0, len(refusals))
	for _, code := range Codes() {
		r := refusals[code]
		r.Code = code
		all = append(all, r)
	}
	return all
}

// Codes returns the codes of all [Refusals] in ascending order.
func Codes() []int { return slices.Sorted(maps.Keys(refusals)) }

const (
	invalidClient   = "invalid_client"
	invalidRequest  = "invalid_request"
	invalidScope    = "invalid_scope"
	invalidResource = "invalid_resource"
	unauthorized    = "unauthorized_client"
	unavailable     = "temporarily_unavailable"
)

const seeFederation = " https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
const checkFIC = " Check your federated identity credential Subject, Audience and Issuer against the presented assertion." + seeFederation

// refusals is the closed table of what the token endpoint answers. Texts and
// statuses are as seen from Entra.
var refusals = map[int]Refusal{
	// The request.
	900561:  {Status: 400, Error: invalidRequest, Text: "The endpoint only accepts POST requests. Received a {method} request."},
	900144:  {Status: 400, Error: invalidRequest, Text: "The request body must contain the following parameter: '{name}'."},
	9000411: {Status: 400, Error: invalidRequest, Text: "The request is not properly formatted. The parameter '{name}' is duplicated."},
	90100:   {Status: 400, Error: invalidRequest, Text: "{name} parameter is empty or not valid."},
	90002:   {Status: 400, Error: "invalid_tenant", Text: "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."},
	50049:   {Status: 400, Error: "invalid_instance", Text: "Unknown or invalid instance."},
	70003:   {Status: 400, Error: "unsupported_grant_type", Text: "The app requested an unsupported grant type '{name}'."},
	70011:   {Status: 400, Error: invalidScope, Text: "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid."},
	1002012: {Status: 400, Error: invalidScope, Text: "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."},
	700016:  {Status: 400, Error: unauthorized, Text: "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."},
	500011:  {Status: 400, Error: invalidResource, Text: "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."},

	// Client authentication without a usable assertion.
	7000215: {Status: 401, Error: invalidClient, Text: "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'."},
	7000218: {Status: 401, Error: invalidClient, Text: "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},

	// The assertion's form. 50027 also stands for the emulator's own strictness.
	50027:   {Status: 401, Error: invalidClient, Text: "JWT token is invalid or malformed. {reason}"},
	5002723: {Status: 401, Error: invalidClient, Text: "Invalid JWT token. No certificate SHA-1 thumbprint, certificate SHA-256 thumbprint, nor keyId specified in token header."},
	5002727: {Status: 401, Error: invalidClient, Text: "Invalid JWT header type specified. Allowed types: 'JWT','http://openid.net/specs/jwt/1.0'."},
	5002738: {Status: 401, Error: invalidClient, Text: "Invalid JWT token. '{alg}' is not a supported signature algorithm. Supported signing algorithms are: 'RS256'"},
	90014:   {Status: 400, Error: invalidRequest, Text: "The required field '{name}' is missing from the credential. Ensure that you have all the necessary parameters for the login request."},

	// The federated credential.
	70021:   {Status: 400, Error: invalidRequest, Text: "No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{audience}'." + seeFederation},
	700211:  {Status: 401, Error: invalidClient, Text: "No matching federated identity record found for presented assertion issuer '{issuer}'." + checkFIC},
	700212:  {Status: 401, Error: invalidClient, Text: "No matching federated identity record found for presented assertion audience '{audience}'." + checkFIC},
	700213:  {Status: 401, Error: invalidClient, Text: "No matching federated identity record found for presented assertion subject '{subject}'." + checkFIC},
	7002138: {Status: 401, Error: invalidClient, Text: "No matching federated identity record found for presented assertion subject '{subject}'. The {name} matches with case-insensitive matching, but not with case-sensitive matching." + checkFIC},
	70025:   {Status: 401, Error: invalidClient, Text: "The client '{client}' has no configured federated identity credentials."},
	700222:  {Status: 401, Error: invalidClient, Text: "AAD-issued tokens may not be used for federated identity flows."},
	700226:  {Status: 401, Error: invalidClient, Text: "Only MSI tokens may be used as Federated Identity Credentials for AAD issuer."},
	700236:  {Status: 401, Error: invalidClient, Text: "Entra ID tokens issued by issuer '{issuer}' may not be used for federated identity credential flows for applications or managed identities registered in this tenant."},
	700223:  {Status: 401, Error: invalidClient, Text: "Workload identity federation has been disabled for this tenant by an administrator."},
	700238:  {Status: 401, Error: invalidClient, Text: "Tokens issued by issuer '{issuer}' may not be used for federated identity credential flows for applications or managed identities registered in this tenant."},
	900382:  {Status: 401, Error: invalidClient, Text: "Confidential Client is not supported in Cross Cloud request."},
	900432:  {Status: 401, Error: invalidClient, Text: "Confidential Client is not supported in Cross Cloud request."},

	// The assertion's lifetime.
	70023:  {Status: 401, Error: invalidClient, Text: "External OIDC Provider token must have a lifetime of less than or equal to 1.01:00:00. {reason}"},
	700024: {Status: 401, Error: invalidClient, Text: "Client assertion is not within its valid time range. {reason} Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."},

	// The issuer's documents and keys.
	50166:   {Status: 400, Error: invalidRequest, Text: "Request to External OIDC endpoint failed."},
	501661:  {Status: 400, Error: invalidRequest, Text: "Request to External OIDC endpoint failed."},
	90061:   {Status: 400, Error: invalidRequest, Text: "Request to External OIDC endpoint failed."},
	7000272: {Status: 401, Error: invalidClient, Text: "The certificate with identifier {name} used to sign the federated credential could not be found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token."},
	700027:  {Status: 401, Error: invalidClient, Text: "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {reason}]"},
	50012:   {Status: 401, Error: invalidClient, Text: "Client assertion contains an invalid signature. [Reason - The provided signature value did not match the expected signature value.]"},

	// Policy and Entra's own trouble: by Fault only.
	53003: {Status: 400, Error: "interaction_required", Text: "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
	50196: {Status: 400, Error: "invalid_grant", Text: "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."},
	90006: {Status: 503, Error: unavailable, Text: "The service is temporarily unavailable. Please retry later."},
	90012: {Status: 503, Error: unavailable, Text: "The request has timed out."},
	90024: {Status: 504, Error: unavailable, Text: "A transient error has occurred because the request budget was exceeded. Please try again."},
	90033: {Status: 503, Error: unavailable, Text: "A transient error has occurred. Please try again."},
	90055: {Status: 429, Error: unavailable, Text: "The tenant is being throttled because of too many requests. Please retry later."},
}

// refusal is one refused request: a code of the table, and what fills its text.
type refusal struct {
	code  int
	pairs []string // "{name}", value, …
}

// refuse returns a refusal. Each odd argument is a word in braces of the
// code's text, each even one what replaces it.
func refuse(code int, pairs ...string) *refusal {
	if _, ok := refusals[code]; !ok || len(pairs)%2 != 0 {
		panic("entratest: internal error: refusal " + strconv.Itoa(code))
	}
	return &refusal{code: code, pairs: pairs}
}

// malformed refuses an assertion's form.
func malformed(format string, args ...any) *refusal {
	return refuse(50027, "{reason}", fmt.Sprintf(format, args...))
}

// text fills the table's text; words that nobody filled read "unknown".
func (r *refusal) text(context ...string) string {
	pairs := slices.Concat(r.pairs, context, []string{
		"{issuer}", "unknown", "{subject}", "unknown", "{audience}", "unknown", "{client}", "unknown",
		"{tenant}", "unknown", "{scope}", "unknown", "{resource}", "unknown", "{name}", "unknown",
		"{alg}", "unknown", "{method}", "unknown", "{reason}", "",
	})
	return strings.TrimSpace(strings.NewReplacer(pairs...).Replace(refusals[r.code].Text))
}

// errorBody is the JSON of a refusal, in Entra's order.
type errorBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

// write answers r's request with the refusal. A status of 0 means the table's.
func (r *refusal) write(w http.ResponseWriter, req *http.Request, status int, context ...string) {
	entry := refusals[r.code]
	if status == 0 {
		status = entry.Status
	}
	body := errorBody{
		Error:         entry.Error,
		Codes:         []int{r.code},
		Timestamp:     time.Now().UTC().Format("2006-01-02 15:04:05Z"),
		TraceID:       w.Header().Get("X-Ms-Request-Id"),
		CorrelationID: correlation(req),
		URI:           "https://login.microsoftonline.com/error?code=" + strconv.Itoa(r.code),
	}
	body.Description = fmt.Sprintf("AADSTS%d: %s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s",
		r.code, r.text(context...), body.TraceID, body.CorrelationID, body.Timestamp)
	writeJSON(w, status, body)
}

// correlation echoes the caller's request id if it is a GUID.
func correlation(req *http.Request) string {
	if id := req.Header.Get("Client-Request-Id"); isGUID(id) {
		return id
	}
	return newGUID()
}

// writeJSON marshals before it writes, so a reply is whole or absent.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("entratest: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

package imds

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcome is the closed set of what a token request can end in.
type Outcome uint8

const (
	OK                 Outcome = iota
	MetadataMissing            // no Metadata: true; the recorded reply, byte for byte
	InvalidRequest             // malformed, forwarded, from a browser, ambiguous
	IdentityNotFound           // the selector names no identity, or there is no default
	InvalidResource            // Entra does not know the resource
	UnauthorizedClient         // Entra refuses the identity or its assertion, for good
	NoAssertion                // no assertion is to be had, for good
	Unauthorized               // the secret header is wrong or missing
	Challenged                 // no key yet, on Arc's protocol: the reply says where one is
	AccessDenied               // policy forbids the identity or the resource
	NotFound                   // no such path
	MethodNotAllowed           // the path exists, the method does not
	Throttled                  // Entra or a local limit: slow down
	Unavailable                // Entra or the source of assertions fails for now
	ClientGone                 // the client gave up; nobody reads the reply
	Internal                   // a bug in this program
	outcomes                   // how many
)

// form is how an outcome looks on the wire (docs/protocol.md, "Errors") and in
// logs and metrics.
type form struct {
	status int
	code   string // the OAuth-style "error"
	label  string
	retry  bool // carries Retry-After
}

// forms maps every outcome. What is permanent is 400, 401 or 403, because SDKs
// retry 404, 408, 410, 429 and 5xx for seconds to minutes.
var forms = [outcomes]form{
	OK:                 {http.StatusOK, "", "ok", false},
	MetadataMissing:    {http.StatusBadRequest, "invalid_request", "metadata_missing", false},
	InvalidRequest:     {http.StatusBadRequest, "invalid_request", "invalid_request", false},
	IdentityNotFound:   {http.StatusBadRequest, "invalid_request", "identity_not_found", false},
	InvalidResource:    {http.StatusBadRequest, "invalid_resource", "invalid_resource", false},
	UnauthorizedClient: {http.StatusBadRequest, "unauthorized_client", "unauthorized_client", false},
	NoAssertion:        {http.StatusBadRequest, "invalid_request", "no_assertion", false},
	Unauthorized:       {http.StatusUnauthorized, "unauthorized_client", "unauthorized", false},
	Challenged:         {http.StatusUnauthorized, "unauthorized_client", "challenged", false},
	AccessDenied:       {http.StatusForbidden, "access_denied", "access_denied", false},
	NotFound:           {http.StatusNotFound, "not_found", "not_found", false},
	MethodNotAllowed:   {http.StatusMethodNotAllowed, "method_not_allowed", "method_not_allowed", false},
	Throttled:          {http.StatusTooManyRequests, "too_many_requests", "throttled", true},
	Unavailable:        {http.StatusServiceUnavailable, "service_unavailable", "unavailable", true},
	ClientGone:         {http.StatusServiceUnavailable, "service_unavailable", "client_gone", false},
	Internal:           {http.StatusInternalServerError, "server_error", "internal", false},
}

// Outcomes returns every outcome, for tables that must be complete.
func Outcomes() []Outcome {
	all := make([]Outcome, outcomes)
	for i := range all {
		all[i] = Outcome(i)
	}
	return all
}

// Status is the HTTP status of the reply.
func (o Outcome) Status() int { return forms[o].status }

// String is the constant name used in logs and metric labels.
func (o Outcome) String() string { return forms[o].label }

// Refusal is a reply other than a token. Its Description is shown to the
// client: it says what was wrong and what to do, and never holds a token, an
// assertion or a key.
type Refusal struct {
	Outcome     Outcome
	Description string
	// RetryAfter is sent with Throttled and Unavailable, rounded up to
	// whole seconds and held within 1 to 20 (azidentity stops retrying
	// above 25). Zero means 1 s.
	RetryAfter time.Duration
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("imds: %s: %s", r.Outcome, r.Description)
}

func refuse(o Outcome, format string, args ...any) *Refusal {
	return &Refusal{Outcome: o, Description: fmt.Sprintf(format, args...)}
}

// metadataMissing is what the real service sends, byte for byte; .NET's probe
// compares it.
const metadataMissing = `{"error":"invalid_request","error_description":"Required metadata header not specified"}`

// refusalBody is the JSON of every other refusal.
type refusalBody struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	StatusCode    int    `json:"statusCode"`
	Message       string `json:"message"`
	CorrelationID string `json:"correlationId"`
}

// Retry bounds, in seconds.
const minRetry, maxRetry = 1, 20

// WriteRefusal sends r. The correlation id is a UUID that the log line carries
// too. An error means that the client is gone.
func WriteRefusal(w http.ResponseWriter, r *Refusal, correlationID string) error {
	f := forms[r.Outcome]
	h := w.Header()
	if f.retry {
		seconds := int((r.RetryAfter + time.Second - 1) / time.Second)
		h.Set("Retry-After", strconv.Itoa(min(max(seconds, minRetry), maxRetry)))
	}
	return send(w, f.status, r.body(f, correlationID))
}

func (r *Refusal) body(f form, correlationID string) []byte {
	if r.Outcome == MetadataMissing {
		return []byte(metadataMissing)
	}
	text := public(r.Description)
	body, err := json.Marshal(refusalBody{f.code, text, f.status, text, correlationID})
	if err != nil {
		panic("imds: internal error: a struct of strings does not marshal: " + err.Error())
	}
	return body
}

// public makes text safe for the parsers that read it: one line, bounded, never
// empty, and without the word that makes msrestazure and old JavaScript clients
// take any reply for a failure of their own.
func public(text string) string {
	const most = 1500
	text = strings.Join(strings.Fields(text), " ")
	text = strings.ReplaceAll(text, "ExceptionMessage", "Exception-Message")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	if text == "" {
		return "no description"
	}
	return text
}

// Values of headers that all replies share; net/http only reads them.
var (
	contentType  = []string{"application/json; charset=utf-8"}
	cacheControl = []string{"no-store"}
)

func send(w http.ResponseWriter, status int, body []byte) error {
	h := w.Header()
	h["Content-Type"] = contentType
	h["Cache-Control"] = cacheControl
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, err := w.Write(body)
	return err
}

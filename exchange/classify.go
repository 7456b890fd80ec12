package exchange

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/svidecar/svidecar/internal/secret"
)

// classify turns any error of MSAL's into an *Error. MSAL's own error keeps the
// request, whose body is the assertion, and quotes the reply: it ends here. The
// assertion is given so that an echo of it can be struck out.
func classify(err error, sent secret.Value) *Error {
	var call msalerrors.CallErr
	if errors.As(err, &call) && call.Resp != nil {
		return fromReply(call.Resp, sent)
	}
	return fromTransport(err)
}

// fromSource keeps the text of the mint's errors, which are made to be shown.
func fromSource(err error) *Error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Error{Kind: Unavailable, Cause: "the source of assertions did not answer in time", Fix: "check the source (`svidecar mint`)", origin: atSource}
	}
	kind := NoAssertion
	var temporary interface{ Temporary() bool }
	if errors.As(err, &temporary) && temporary.Temporary() {
		kind = Unavailable
	}
	return &Error{Kind: kind, Cause: err.Error(), origin: atSource}
}

// entraError is Entra's error JSON, as far as it is used.
type entraError struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	TraceID     string `json:"trace_id"`
}

// fromReply explains an HTTP reply other than 200.
func fromReply(resp *http.Response, sent secret.Value) *Error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	var said entraError
	if err != nil || json.Unmarshal(body, &said) != nil || said.Error == "" {
		return fromStranger(resp)
	}
	e := explain(resp.StatusCode, said)
	e.Detail = clean(said.Description, sent)
	e.TraceID = guid(said.TraceID)
	if e.Kind.Temporary() {
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	}
	return e
}

// explain chooses kind and words: by status first, then by code, then by the
// OAuth error.
func explain(status int, said entraError) *Error {
	e := &Error{}
	if len(said.Codes) > 0 {
		e.Code = "AADSTS" + strconv.Itoa(said.Codes[0])
		if known, ok := codes[said.Codes[0]]; ok {
			e.Kind, e.Cause, e.Fix = known.kind, known.cause, known.fix
		}
	}
	switch {
	case status == http.StatusTooManyRequests:
		e.Kind = Throttled
	case status >= 500 || said.Error == "temporarily_unavailable":
		e.Kind = Unavailable
	}
	if e.Kind == 0 {
		e.Kind = kindOf(said.Error)
	}
	if e.Cause == "" {
		e.Cause, e.Fix = wordsOf(e.Kind, status)
	}
	return e
}

// kindOf classifies by OAuth's error field alone (RFC 6749 section 5.2).
func kindOf(oauth string) Kind {
	switch oauth {
	case "invalid_resource", "invalid_scope", "invalid_target":
		return BadResource
	case "invalid_request", "unsupported_grant_type":
		return BadRequest
	default:
		return Refused
	}
}

func wordsOf(k Kind, status int) (cause, fix string) {
	switch k {
	case Throttled:
		return "Entra asks to slow down", fixLater
	case Unavailable:
		return fmt.Sprintf("Entra answered with HTTP %d", status), fixLater
	case BadResource:
		return "Entra does not grant this resource", fixResource
	case BadRequest:
		return "Entra calls the request malformed", "check client id, tenant id and resource"
	default:
		return "Entra refuses this identity", "look the code up in Entra's error reference and in the tenant's sign-in log"
	}
}

// fromStranger explains a reply that is not in Entra's form: something stands
// in between, or Entra is in trouble. Either passes without a change here.
func fromStranger(resp *http.Response) *Error {
	e := unavailable(fmt.Sprintf("the reply (HTTP %d) is not in Entra's form", resp.StatusCode),
		"look for a proxy, firewall or sign-in page between here and the authority host; else the next request tries again")
	if resp.StatusCode == http.StatusTooManyRequests {
		e.Kind, e.Cause, e.Fix = Throttled, "Entra asks to slow down", fixLater
	}
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	return e
}

// fromTransport explains what failed below HTTP. It reads types only, never
// texts: MSAL's JSON errors quote the reply, which may be a token.
func fromTransport(err error) *Error {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dial      *net.OpError
		broken    *url.Error
		ours      *transportError
	)
	to := "the authority host"
	if errors.As(err, &dial) && dial.Op == "proxyconnect" {
		to = "the proxy of HTTPS_PROXY"
	}
	switch {
	case errors.As(err, &ours):
		return unavailable(ours.cause, ours.fix)
	case errors.Is(err, context.DeadlineExceeded):
		return unavailable("Entra did not answer in time", "check the network path to the authority host, and HTTPS_PROXY if a proxy stands in between")
	case errors.Is(err, context.Canceled):
		return unavailable("the exchange was stopped", "svidecar is shutting down; ask again")
	case errors.As(err, &dns):
		return unavailable(fmt.Sprintf("the name %q of %s cannot be resolved", dns.Name, to), "check DNS, and the name's spelling")
	case errors.As(err, &authority):
		return unavailable("the certificate of "+to+" is signed by an unknown authority",
			"if a proxy inspects TLS, give its CA by --authority-ca-file")
	case errors.As(err, &host), errors.As(err, &invalid):
		return unavailable("the certificate of "+to+" is not valid", "check the authority host, the clock, and any proxy that inspects TLS")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return unavailable(to+" does not speak TLS", "check the authority host and the proxy settings")
	case errors.Is(err, syscall.ECONNREFUSED):
		return unavailable(to+" refuses the connection"+at(dial), "check the network path, HTTPS_PROXY and NO_PROXY")
	case errors.As(err, &dial), errors.As(err, &broken), errors.Is(err, io.ErrUnexpectedEOF):
		return unavailable("the connection to "+to+" failed"+at(dial), "check the network path, and HTTPS_PROXY if a proxy stands in between; the next request tries again")
	default:
		return unavailable("Entra's reply could not be read", "look for a proxy in between; the next request tries again")
	}
}

// at names the address of a failed connection.
func at(dial *net.OpError) string {
	var inner *net.OpError
	if dial != nil && errors.As(dial.Err, &inner) {
		dial = inner
	}
	if dial == nil || dial.Addr == nil {
		return ""
	}
	return " at " + dial.Addr.String()
}

// Entra's own Retry-After may be a minute; longer ones are taken as that.
const maxRetryAfter = 2 * time.Minute

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3).
func retryAfter(header string) time.Duration {
	if at, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	seconds, err := strconv.Atoi(header)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
}

// word matches a run of the characters that tokens are made of.
var word = regexp.MustCompile(`[A-Za-z0-9_\-.]+`)

// withoutTokens strikes out what could be a token, or a part of one: a long word,
// or one in which a JSON object begins, in base64.
func withoutTokens(text string) string {
	const long = 100
	return word.ReplaceAllStringFunc(text, func(w string) string {
		if len(w) >= long || strings.Contains(w, "eyJ") {
			return secret.Redacted
		}
		return w
	})
}

var guidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// clean reduces Entra's description to its first line, without control
// characters, of bounded length, and without anything like a token.
func clean(description string, sent secret.Value) string {
	const most = 500
	line, _, _ := strings.Cut(description, "Trace ID:")
	if !sent.IsZero() {
		line = strings.ReplaceAll(line, sent.Reveal(), secret.Redacted)
	}
	line = withoutTokens(line)
	line = strings.Join(strings.Fields(strings.Map(printable, line)), " ")
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\uFFFD' {
		return ' '
	}
	return r
}

func guid(s string) string {
	if guidForm.MatchString(s) {
		return s
	}
	return ""
}

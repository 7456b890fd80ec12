package proxy

import (
	"errors"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/svidecar/svidecar/exchange"
	"github.com/svidecar/svidecar/imds"
)

// call is one request on its way: the writer that handlers are given, and what
// the log line and the metrics will say of it.
type call struct {
	http.ResponseWriter
	protocol imds.Protocol
	outcome  imds.Outcome
	status   int16  // of a reply that was passed on; else the outcome's counts
	path     string // canonical
	id       string // correlation id; only refusals have one
	key      exchange.Key
	err      error
}

// serve guards, routes, and accounts for one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, routes chi.Router) {
	c := &call{ResponseWriter: w}
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("internal error", "stack", string(debug.Stack()))
			c.fail(&imds.Refusal{Outcome: imds.Internal, Description: "an internal error: please report it with svidecar's log"})
		}
		s.answered.Add(-1)
		s.account(r, c, time.Since(start))
	}()
	// HTTP/1.0 has no chunks: what such a request calls its body, the next
	// read would take for another request.
	if s.draining.Load() || !r.ProtoAtLeast(1, 1) {
		w.Header().Set("Connection", "close")
	}
	if s.answered.Add(1) > int64(s.cfg.MaxRequests) {
		c.fail(&imds.Refusal{Outcome: imds.Throttled, Description: "too many requests at once: come back; find what asks so often, or raise --max-requests"})
		return
	}
	path, refusal := s.guard(r)
	c.path = path
	if refusal != nil {
		c.fail(refusal)
		return
	}
	r.URL.Path, r.URL.RawPath = path, ""
	if rctx := chi.RouteContext(r.Context()); rctx != nil {
		rctx.Reset()
	}
	routes.ServeHTTP(c, r)
}

// Paths of the token endpoints. The second is svidecar's choice: App Service
// clients learn it from IDENTITY_ENDPOINT. The third is what MSI_ENDPOINT names in
// Cloud Shell itself; Java's clients send GET there, which the second has for others.
const (
	imdsPath       = "/metadata/identity/oauth2/token"
	appServicePath = "/msi/token"
	cloudShellPath = "/oauth2/token"
)

// routes lists all that is served; there is nothing else behind the listener.
func (s *Server) routes() chi.Router {
	r := chi.NewRouter()
	r.Get(imdsPath, s.tokenOf(imds.IMDS))
	r.Get(appServicePath, s.tokenOf(s.secretProtocol()))
	r.Get(cloudShellPath, s.tokenOf(imds.CloudShell))
	r.Post(cloudShellPath, s.tokenOf(imds.CloudShell))
	if s.serves(imds.CloudShell) {
		r.Post(appServicePath, s.tokenOf(imds.CloudShell))
	}
	s.routeBeside(r)
	// Clients of the second IMDS version probe for it. 400 would mean that
	// it is there; 404 is retried.
	r.HandleFunc("/metadata/identity/getplatformmetadata", refuseIMDSv2)
	r.HandleFunc("/metadata/identity/issuecredential", refuseIMDSv2)
	r.Get(proofPath, s.tellProof)
	r.NotFound(notServed)
	r.MethodNotAllowed(s.wrongMethodHere)
	return r
}

// token parses, decides, fetches and writes.
func (s *Server) token(c *call, r *http.Request) {
	req, err := s.parse(c, r)
	if err == nil {
		err = s.checkVersion(req)
	}
	if err == nil {
		c.key, err = s.cfg.Policy.Resolve(req)
	}
	var token exchange.Token
	if err == nil {
		token, err = s.fetchToken(r, c.key, req)
	}
	if err != nil {
		c.fail(err)
		return
	}
	now := time.Now()
	c.err = imds.WriteToken(c.ResponseWriter, req, imds.Token{
		Value:     token.Value,
		ClientID:  c.key.ClientID,
		NotBefore: token.NotBefore,
		// By the clock that the client reads, even if it was set back.
		ExpiresOn: now.Add(token.Left(now)),
	}, now)
}

// fetchToken asks for another token where the client says that the one it has is
// refused.
func (s *Server) fetchToken(r *http.Request, key exchange.Key, req imds.Request) (exchange.Token, error) {
	if req.Unwanted != "" || req.BypassCache {
		return s.cfg.Tokens.Refresh(r.Context(), key, req.Unwanted)
	}
	return s.cfg.Tokens.Token(r.Context(), key)
}

func (s *Server) checkVersion(req imds.Request) error {
	if s.cfg.RequireAPIVersion && req.Protocol == imds.IMDS && req.APIVersion == "" {
		return missingVersion()
	}
	return nil
}

// fail sends the one reply that an error leads to.
func (c *call) fail(err error) {
	refusal := refusalOf(err)
	c.outcome, c.err, c.id = refusal.Outcome, err, newID()
	_ = imds.WriteRefusal(c.ResponseWriter, refusal, c.id) // if it fails, the client is gone
}

// outcomes maps the closed set of failed exchanges to replies.
var outcomes = map[exchange.Kind]imds.Outcome{
	exchange.Unavailable: imds.Unavailable,
	exchange.Throttled:   imds.Throttled,
	exchange.Refused:     imds.UnauthorizedClient,
	exchange.BadResource: imds.InvalidResource,
	exchange.BadRequest:  imds.InvalidRequest,
	exchange.NoAssertion: imds.NoAssertion,
}

// refusalOf is the one place where errors become replies.
func refusalOf(err error) *imds.Refusal {
	var (
		refusal *imds.Refusal
		failed  *exchange.Error
	)
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &failed):
		outcome, ok := outcomes[failed.Kind]
		if !ok {
			outcome = imds.Internal
		}
		return &imds.Refusal{Outcome: outcome, Description: failed.Error(), RetryAfter: failed.RetryAfter}
	default:
		// The source returns nothing else but the cause of the request's
		// context: nobody reads this.
		return &imds.Refusal{Outcome: imds.ClientGone, Description: "the client closed the connection"}
	}
}

func refuseIMDSv2(w http.ResponseWriter, _ *http.Request) {
	w.(*call).fail(&imds.Refusal{Outcome: imds.AccessDenied, Description: "credentials bound to a virtual machine are not served here"})
}

func notServed(w http.ResponseWriter, _ *http.Request) {
	w.(*call).fail(&imds.Refusal{Outcome: imds.NotFound, Description: "svidecar serves " + imdsPath + " and " + appServicePath + " only"})
}

func wrongMethod(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", http.MethodGet)
	w.(*call).fail(&imds.Refusal{Outcome: imds.MethodNotAllowed, Description: "the method is not allowed here: use GET"})
}

// wrongMethodHere knows of the paths that take POST.
func (s *Server) wrongMethodHere(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == cloudShellPath || r.URL.Path == appServicePath && s.serves(imds.CloudShell) {
		w.Header().Set("Allow", "GET, POST")
		w.(*call).fail(&imds.Refusal{Outcome: imds.MethodNotAllowed, Description: "the method is not allowed here: use GET, or POST as Cloud Shell's clients do"})
		return
	}
	wrongMethod(w, r)
}

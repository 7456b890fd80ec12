package entratest

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxBody       = 64 << 10 // bytes of a token request
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	defaultSuffix = "/.default"
)

// tokenRequest is a form posted to the token endpoint (RFC 6749 section 4.4,
// RFC 7523 section 2.2), not yet checked.
type tokenRequest struct {
	ctx       context.Context
	tenant    string
	form      url.Values
	scope     string // the one that asks for a resource, or the first
	assertion string
}

// token answers the token endpoint: read, sabotage, redeem, write.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	req, refused := readTokenRequest(w, r)
	defer s.calls.begin(req.scope)()
	fault, _ := s.faults.take(req.scope)
	if s.sabotage(w, r, fault, req.assertion) {
		return
	}
	var app *App
	if refused == nil {
		app, refused = s.redeem(req)
	}
	if refused != nil {
		s.refuse(w, r, refused, 0, req.context()...)
		return
	}
	s.grant(w, app, req, fault)
}

// context returns what fills the texts of refusals.
func (req *tokenRequest) context() []string {
	return []string{
		"{tenant}", req.tenant, "{client}", req.form.Get("client_id"), "{scope}", req.scope,
		"{resource}", strings.TrimSuffix(req.scope, defaultSuffix),
	}
}

// readTokenRequest reads the form. The request is never nil, so that faults
// and counts apply to refused ones too.
func readTokenRequest(w http.ResponseWriter, r *http.Request) (*tokenRequest, *refusal) {
	req := &tokenRequest{ctx: r.Context(), tenant: strings.ToLower(r.PathValue("tenant"))}
	if r.Method != http.MethodPost {
		return req, refuse(900561, "{method}", r.Method)
	}
	// Entra does not read a body of another type, and misses its first parameter.
	if typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || typ != "application/x-www-form-urlencoded" {
		return req, refuse(900144, "{name}", "grant_type")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return req, refuse(90100, "{name}", "request body")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return req, refuse(90100, "{name}", "request body")
	}
	req.form = form
	req.scope = mainScope(form.Get("scope"))
	req.assertion = form.Get("client_assertion")
	for name, values := range form {
		if len(values) > 1 {
			return req, refuse(9000411, "{name}", name)
		}
	}
	return req, nil
}

// mainScope returns the scope that is not one of OpenID Connect's, if any.
func mainScope(scope string) string {
	for word := range strings.SplitSeq(scope, " ") {
		if word != "" && !isOpenIDScope(word) {
			return word
		}
	}
	return scope
}

// isOpenIDScope names what MSAL adds to every request.
func isOpenIDScope(word string) bool {
	return word == "openid" || word == "profile" || word == "offline_access"
}

// redeem checks a request, in Entra's order.
func (s *Server) redeem(req *tokenRequest) (*App, *refusal) {
	if r := s.checkRequest(req); r != nil {
		return nil, r
	}
	app, r := s.dir.find(req.tenant, req.form.Get("client_id"))
	if r != nil {
		return nil, r
	}
	if r := checkCredentialType(req.form); r != nil {
		return nil, r
	}
	set, r := s.checkAssertion(req, app)
	if r != nil {
		return nil, r
	}
	resource := strings.TrimSuffix(strings.TrimSuffix(req.scope, defaultSuffix), "/")
	if len(s.resources) > 0 && !slices.Contains(s.resources, resource) {
		return nil, refuse(500011)
	}
	s.calls.verified(app.ClientID, set)
	return app, nil
}

func (s *Server) checkRequest(req *tokenRequest) *refusal {
	if !s.dir.hasTenant(req.tenant) {
		return refuse(90002)
	}
	for _, name := range []string{"grant_type", "client_id", "scope"} {
		if req.form.Get(name) == "" {
			return refuse(900144, "{name}", name)
		}
	}
	if grant := req.form.Get("grant_type"); grant != "client_credentials" {
		return refuse(70003, "{name}", grant)
	}
	return checkScope(req.form.Get("scope"))
}

// checkScope wants one resource's /.default and at most MSAL's additions.
func checkScope(scope string) *refusal {
	var resources int
	seen := map[string]bool{}
	for word := range strings.SplitSeq(scope, " ") {
		switch {
		case word == "" || seen[word]:
			return refuse(70011, "{scope}", scope)
		case isOpenIDScope(word):
		case !strings.HasSuffix(word, defaultSuffix):
			return refuse(1002012, "{scope}", scope)
		case word == defaultSuffix:
			return refuse(70011, "{scope}", scope)
		default:
			resources++
		}
		seen[word] = true
	}
	if resources != 1 {
		return refuse(70011, "{scope}", scope)
	}
	return nil
}

// checkCredentialType wants an assertion and no secret: there are no secrets
// here.
func checkCredentialType(form url.Values) *refusal {
	switch {
	case form.Has("client_secret"):
		return refuse(7000215)
	case !form.Has("client_assertion"):
		return refuse(7000218)
	case form.Get("client_assertion_type") == "":
		return refuse(900144, "{name}", "client_assertion_type")
	case form.Get("client_assertion_type") != assertionType:
		return refuse(90100, "{name}", "client_assertion_type")
	}
	return nil
}

// grant writes the success reply (RFC 6749 section 5.1).
func (s *Server) grant(w http.ResponseWriter, app *App, req *tokenRequest, fault Fault) {
	life, expiresIn := s.life, s.life-time.Second
	if fault.ExpiresIn != 0 {
		life, expiresIn = fault.ExpiresIn, fault.ExpiresIn
	}
	token, err := s.signer.issue(app, strings.TrimSuffix(req.scope, defaultSuffix), life)
	if err != nil {
		panic("entratest: internal error: " + err.Error())
	}
	reply := map[string]any{"token_type": "Bearer", "access_token": token}
	if !fault.OmitExpiresIn {
		reply["expires_in"] = int(expiresIn / time.Second)
		reply["ext_expires_in"] = int(expiresIn / time.Second)
	}
	if refresh := defaultTo(fault.RefreshIn, s.refreshIn); refresh != 0 && !fault.OmitRefreshIn {
		reply["refresh_in"] = int(refresh / time.Second)
	}
	s.calls.add(func(c *Calls) { c.Successes++ })
	writeJSON(w, http.StatusOK, reply)
}

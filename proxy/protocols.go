package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"

	"github.com/svidecar/svidecar/imds"
)

// Endpoint is a listener of one protocol alone: of Service Fabric's, which is
// HTTPS, and of Arc's, whose path is that of IMDS. Which protocol a request is
// read by is decided by listener, path and method, never by its headers.
type Endpoint struct {
	Protocol imds.Protocol
	Listener net.Listener
	// Certificate makes it HTTPS. Nil means plain HTTP.
	Certificate *tls.Certificate
}

// checkProtocols wants known ones, and what they cannot do without.
func (c *Config) checkProtocols() error {
	for _, p := range c.Protocols {
		switch {
		case !slices.Contains(imds.Protocols(), p):
			return fmt.Errorf("proxy: there is no protocol %d", p)
		case p == imds.ServiceFabric && c.IdentityHeader.IsZero():
			return errors.New("proxy: Service Fabric's protocol needs Config.IdentityHeader")
		case p == imds.Arc && c.ArcTokensDir == "":
			return errors.New("proxy: Arc's protocol needs Config.ArcTokensDir")
		}
	}
	return nil
}

func (s *Server) serves(p imds.Protocol) bool { return slices.Contains(s.cfg.Protocols, p) }

// secretProtocol is the one that GET on the App Service path is counted as: the
// requests of Azure ML differ in nothing that a server could see.
func (s *Server) secretProtocol() imds.Protocol {
	if s.serves(imds.AzureML) && !s.serves(imds.AppService) {
		return imds.AzureML
	}
	return imds.AppService
}

// ownRoutes is all that the listener of one protocol serves.
func (s *Server) ownRoutes(p imds.Protocol) chi.Router {
	r := chi.NewRouter()
	r.Get(imdsPath, s.tokenOf(p))
	r.NotFound(notServed)
	r.MethodNotAllowed(wrongMethod)
	return r
}

// tokenOf answers requests of one protocol.
func (s *Server) tokenOf(p imds.Protocol) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := w.(*call)
		c.protocol = p
		refusal := s.admit(c, r)
		if refusal == nil && !s.serves(p) {
			// 400, because clients retry 404, and go on to the next
			// credential of their chain after this.
			refusal = invalid("the protocol " + p.String() + " is not switched on: add it to --protocols")
		}
		if refusal != nil {
			c.fail(refusal)
			return
		}
		s.token(c, r)
	}
}

// admit holds a request to what its protocol is authenticated by.
func (s *Server) admit(c *call, r *http.Request) *imds.Refusal {
	switch c.protocol {
	case imds.AppService, imds.AzureML, imds.ServiceFabric:
		return s.requireSecret(r.Header)
	case imds.Arc:
		return s.admitArc(c, r)
	}
	return requireMetadata(r.Header)
}

// parse reads the request, where its protocol has the parameters.
func (s *Server) parse(c *call, r *http.Request) (imds.Request, error) {
	if c.protocol == imds.CloudShell && r.Method == http.MethodPost {
		body, refusal := readForm(c.ResponseWriter, r)
		if refusal != nil {
			return imds.Request{}, refusal
		}
		return imds.ParseForm(c.protocol, r.URL.RawQuery, body)
	}
	if refusal := requireNoBody(r); refusal != nil {
		return imds.Request{}, refusal
	}
	return imds.ParseRequest(c.protocol, r.URL.RawQuery)
}

// readForm reads the body of a request that says once that it is a plain form.
func readForm(w http.ResponseWriter, r *http.Request) (string, *imds.Refusal) {
	types := r.Header["Content-Type"]
	if len(types) != 1 || len(r.Header["Content-Encoding"]) > 0 {
		return "", invalid("a POST must have one Content-Type, application/x-www-form-urlencoded, and no Content-Encoding")
	}
	if media, _, err := mime.ParseMediaType(types[0]); err != nil || media != "application/x-www-form-urlencoded" {
		return "", invalid("the body is not a form: send application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, imds.MaxForm))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return "", invalid("the form is longer than 16 KiB")
	case err != nil:
		return "", invalid("the body ended before it was whole, or is not well-formed")
	}
	return string(body), nil
}

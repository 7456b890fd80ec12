package proxy

import (
	"net/http"
	"strings"

	"github.com/svidecar/svidecar/imds"
)

// What the metadata service serves beside the token (docs/protocol.md, "Beside
// the token"). None of it asks Entra.

const instancePath = "/metadata/instance"

// routeBeside adds these paths.
func (s *Server) routeBeside(r router) {
	r.Get("/metadata/versions", s.versions)
	r.Get("/metadata/identity/info", s.info)
	r.Get(instancePath, s.instance)
	r.Get(instancePath+"/*", s.instance)
	for _, path := range s.cfg.PassThrough.Paths {
		r.Get(metadataPrefix+path, s.pass)
		r.Get(metadataPrefix+path+"/*", s.pass)
	}
}

// router is the part of chi's that routes are added by.
type router interface {
	Get(pattern string, h http.HandlerFunc)
}

// askedBeside holds such a request to the rules of a token request.
func (s *Server) askedBeside(r *http.Request, versioned bool) (imds.Metadata, error) {
	if refusal := requireMetadata(r.Header); refusal != nil {
		return imds.Metadata{}, refusal
	}
	if refusal := requireNoBody(r); refusal != nil {
		return imds.Metadata{}, refusal
	}
	m, err := imds.ParseMetadata(r.URL.RawQuery)
	if err == nil && versioned && s.cfg.RequireAPIVersion && m.APIVersion == "" {
		err = missingVersion()
	}
	return m, err
}

func (s *Server) versions(w http.ResponseWriter, r *http.Request) {
	c := w.(*call)
	if _, err := s.askedBeside(r, false); err != nil {
		c.fail(err)
		return
	}
	c.err = imds.WriteVersions(c.ResponseWriter)
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) {
	c := w.(*call)
	_, err := s.askedBeside(r, true)
	var tenant string
	if err == nil {
		tenant, err = s.cfg.Policy.Tenant()
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.err = imds.WriteTenant(c.ResponseWriter, tenant)
}

// instance answers from the static document, or refuses: what this machine is
// called is not the app's to know unless somebody says so.
func (s *Server) instance(w http.ResponseWriter, r *http.Request) {
	c := w.(*call)
	m, err := s.askedBeside(r, true)
	if err == nil && s.cfg.Instance == nil {
		err = &imds.Refusal{Outcome: imds.AccessDenied, Description: "svidecar serves tokens, not what this machine says of itself: if an app needs that, see --instance-metadata-file and --instance-metadata-paths"}
	}
	if err == nil {
		err = s.cfg.Instance.Write(c.ResponseWriter, strings.TrimPrefix(c.path, instancePath), m)
		if refusal, ok := err.(*imds.Refusal); ok {
			c.fail(refusal)
			return
		}
		c.err = err
		return
	}
	c.fail(err)
}

func missingVersion() *imds.Refusal {
	return invalid("the parameter 'api-version' is missing: add api-version=2018-02-01")
}

package mint

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// cacheControl lets verifiers and proxies keep a document for 5 minutes. A key
// is published long before it signs, so that no copy need be fresher.
const cacheControl = "public, max-age=300"

// IssuerConfig configures [NewIssuer].
type IssuerConfig struct {
	Issuer string             // as LocalConfig.Issuer; required
	Keys   []crypto.PublicKey // as for Documents; required
}

// Issuer serves the two documents of [Documents] at the paths of the issuer URL,
// and nothing else. It expects the request path as the client sent it, with any
// path of the issuer still in front. It is immutable and safe for concurrent use.
type Issuer struct {
	documents map[string]document // by escaped path
}

type document struct {
	body []byte
	etag string // strong (RFC 9110, section 8.8.3)
}

// NewIssuer checks cfg and builds the documents.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	discovery, keySet, err := Documents(cfg.Issuer, cfg.Keys...)
	if err != nil {
		return nil, err
	}
	u, err := issuerURL(cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("mint: IssuerConfig.Issuer: %w", err)
	}
	base := strings.TrimSuffix(u.EscapedPath(), "/")
	return &Issuer{documents: map[string]document{
		base + discoveryPath: newDocument(discovery),
		base + keySetPath:    newDocument(keySet),
	}}, nil
}

func newDocument(body []byte) document {
	sum := sha256.Sum256(body)
	return document{body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`}
}

// ServeHTTP implements [http.Handler]: GET and HEAD, with If-None-Match; 405 for
// other methods, and 404 for other paths.
func (s *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	doc, ok := s.documents[r.URL.EscapedPath()]
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, `{"error":"not_found","error_description":"this server has the issuer's discovery document and key set only"}`)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, `{"error":"method_not_allowed","error_description":"use GET or HEAD"}`)
	default:
		doc.serve(w, r)
	}
}

func (d document) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", cacheControl)
	h.Set("ETag", d.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
}

func refuse(w http.ResponseWriter, status int, body string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body + "\n"))
}

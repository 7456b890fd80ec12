package mint

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
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
// path of the issuer still in front. It is safe for concurrent use.
type Issuer struct {
	issuer    string
	documents atomic.Pointer[map[string]document] // by escaped path; a map in place is never changed
}

type document struct {
	body []byte
	etag string // strong (RFC 9110, section 8.8.3)
}

// NewIssuer checks cfg and builds the documents.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	s := &Issuer{issuer: cfg.Issuer}
	if err := s.Update(cfg.Keys...); err != nil {
		return nil, err
	}
	return s, nil
}

// Update puts documents with other keys, as for [Documents], in the place of
// those that are served, both at once. On an error the old ones stay.
func (s *Issuer) Update(keys ...crypto.PublicKey) error {
	discovery, keySet, err := Documents(s.issuer, keys...)
	if err != nil {
		return err
	}
	u, err := issuerURL(s.issuer)
	if err != nil {
		return fmt.Errorf("mint: IssuerConfig.Issuer: %w", err)
	}
	base := strings.TrimSuffix(u.EscapedPath(), "/")
	s.documents.Store(&map[string]document{
		base + discoveryPath: newDocument(discovery),
		base + keySetPath:    newDocument(keySet),
	})
	return nil
}

func newDocument(body []byte) document {
	sum := sha256.Sum256(body)
	return document{body: body, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `"`}
}

// ServeHTTP implements [http.Handler]: GET and HEAD, with If-None-Match; 405 for
// other methods, and 404 for other paths.
func (s *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	doc, ok := (*s.documents.Load())[r.URL.EscapedPath()]
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

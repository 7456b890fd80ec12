package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/svidecar/svidecar/imds"
)

// PassThrough says which requests are passed on to the machine's own metadata
// service. The zero PassThrough passes none.
type PassThrough struct {
	// Host is the host, or host:port, of that service. Empty means
	// 169.254.169.254.
	Host string
	// Paths below /metadata/, in lower case, such as "instance/compute":
	// each stands for itself and what is below it. Neither "identity", which
	// is where the machine's own tokens are, nor "versions" can be one.
	Paths []string
}

const (
	metadataPrefix = "/metadata/"
	passTimeout    = 5 * time.Second // of one request, its reply included
	maxPassed      = 1 << 20         // of a reply
	// passMarker is on all that is passed on. What comes in with it came from
	// a svidecar: 169.254.169.254 leads back here.
	passMarker = "X-Svidecar-Pass-Through"
)

// passable is a path by name: nothing in it could be read in two ways.
var passable = regexp.MustCompile(`^[a-z0-9-]+(/[a-z0-9-]+)*$`)

// passed is the path of a request. A segment such as "..;" is a way up to some
// servers.
var passed = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`)

func (p *PassThrough) check() error {
	for _, path := range p.Paths {
		top, _, _ := strings.Cut(path, "/")
		if !passable.MatchString(path) || top == "identity" || top == "versions" {
			return fmt.Errorf("proxy: %q cannot be passed through: name a path below /metadata/, such as instance/compute, that is not identity or versions", path)
		}
	}
	return nil
}

// newUpstream never goes by a proxy: what stands between the machine and its
// own metadata service is nobody's to choose by a variable.
func newUpstream() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: passTimeout}).DialContext,
		MaxConnsPerHost:        8, // the real service serves 5 at once
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// pass passes a request on. What is sent is written anew: nothing of the
// client's but the path, which a rule names, and the query.
func (s *Server) pass(w http.ResponseWriter, r *http.Request) {
	c := w.(*call)
	if _, err := s.askedBeside(r, false); err != nil {
		c.fail(err)
		return
	}
	path := collapsed(r.RequestURI)
	if !passed.MatchString(path) {
		c.fail(invalid("only names of letters, digits, '-', '_' and '.', of which none begins with a dot, are passed on in a path"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), passTimeout)
	defer cancel()
	resp, body, err := s.fetch(ctx, path, r.URL.RawQuery)
	switch {
	case err == nil:
		c.status = int16(resp.StatusCode)
		c.err = writePassed(c.ResponseWriter, resp, body)
	case r.Context().Err() != nil: // the client left
		c.fail(context.Cause(r.Context()))
	default:
		c.fail(&imds.Refusal{Outcome: imds.Unavailable, Description: "the machine's own metadata service gave no reply that can be passed on: " + passFault(err)})
	}
}

// fetch reads no reply but a whole, final one: what follows a 101 is under no
// context's rule, and a status that net/http cannot write would be a panic.
func (s *Server) fetch(ctx context.Context, path, query string) (*http.Response, []byte, error) {
	target := url.URL{Scheme: "http", Host: s.cfg.PassThrough.Host, Path: path, RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header = http.Header{"Metadata": {"true"}, "User-Agent": {"svidecar"}, passMarker: {"1"}}
	resp, err := s.upstream.RoundTrip(req) // follows no redirect
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	defer context.AfterFunc(ctx, func() { _ = resp.Body.Close() })()
	if class := resp.StatusCode / 100; class != 2 && class != 4 && class != 5 {
		return nil, nil, errStatus
	}
	if resp.Header.Get("Content-Encoding") != "" {
		return nil, nil, errUnfit
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPassed+1))
	if err == nil && len(body) > maxPassed {
		err = errLong
	}
	return resp, body, err
}

var (
	errStatus = errors.New("its status is not one of 200 to 299 and 400 to 599: it redirects, or is no metadata service")
	errUnfit  = errors.New("it compresses unasked")
	errLong   = errors.New("its reply is larger than 1 MiB")
)

// passFault says why in words that hold nothing of the request.
func passFault(err error) string {
	switch {
	case errors.Is(err, errStatus), errors.Is(err, errUnfit), errors.Is(err, errLong):
		return err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "it took longer than 5 s"
	}
	return "the connection failed; is it reachable from here?"
}

// collapsed is the path as the client wrote it, letters included, without the
// slashes that canonicalPath ignores too.
func collapsed(target string) string {
	raw, _, _ := strings.Cut(target, "?")
	var b strings.Builder
	for segment := range strings.SplitSeq(raw, "/") {
		if segment != "" {
			b.WriteByte('/')
			b.WriteString(segment)
		}
	}
	return b.String()
}

// writePassed takes over the status, the type and the advice to wait. All other
// headers are about that connection, or none of the app's business.
func writePassed(w http.ResponseWriter, resp *http.Response, body []byte) error {
	h := w.Header()
	for _, name := range []string{"Content-Type", "Retry-After"} {
		if value := resp.Header.Get(name); value != "" {
			h.Set(name, value)
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(resp.StatusCode)
	_, err := w.Write(body)
	return err
}

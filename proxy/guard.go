package proxy

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/svidecar/svidecar/imds"
)

// The guard stands before the router. What it refuses has cost nothing but the
// reading of headers, and has reached no rule that could read the request in
// another way.

// guard returns the path to route by, or why the request is not served at all.
func (s *Server) guard(r *http.Request) (path string, refusal *imds.Refusal) {
	path, refusal = canonicalPath(r)
	if refusal == nil {
		refusal = s.guardHost(r.Host)
	}
	if refusal == nil {
		refusal = guardHeaders(r.Header)
	}
	return path, refusal
}

func invalid(description string) *imds.Refusal {
	return &imds.Refusal{Outcome: imds.InvalidRequest, Description: description}
}

// canonicalPath reads the path as the client sent it: without regard to case,
// with doubled and trailing slashes ignored, and never by a redirect, which
// several SDKs fail on. What a decoding proxy or library could read as another
// path is refused: encodings, backslashes, dot segments. They are how earlier
// products were bypassed (GHSA-p82q-rxpm-hjpc).
func canonicalPath(r *http.Request) (string, *imds.Refusal) {
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(raw, "/") {
		return "", invalid("the request target is not a path: a proxy stands in between; exempt this address by NO_PROXY=127.0.0.1,localhost,169.254.169.254")
	}
	if strings.ContainsFunc(raw, notInPath) {
		return "", invalid("the path holds an encoded character, a backslash or a character that no path has")
	}
	if isCanonical(raw) {
		return raw, nil
	}
	var b strings.Builder
	for segment := range strings.SplitSeq(strings.ToLower(raw), "/") {
		switch segment {
		case "":
		case ".", "..":
			return "", invalid("the path holds a dot segment")
		default:
			b.WriteByte('/')
			b.WriteString(segment)
		}
	}
	return b.String(), nil
}

// isCanonical spares what most clients send the copying. It knows the paths by
// name, so that there is one place that reads paths.
func isCanonical(path string) bool { return path == imdsPath || path == appServicePath }

func notInPath(r rune) bool {
	return r <= ' ' || r >= 0x7f || r == '%' || r == '\\' || r == '#'
}

// guardHost keeps pages in a browser that resolve their own name to this
// address (DNS rebinding) from being served.
func (s *Server) guardHost(hostport string) *imds.Refusal {
	hostport = strings.ToLower(hostport)
	host, _ := splitPort(hostport)
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" || s.hosts[host] || s.hosts[strings.TrimPrefix(hostport, "[")] {
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if err == nil && (addr.IsLoopback() || addr == imdsAddr) {
		return nil
	}
	return invalid("the Host header is neither loopback nor 169.254.169.254: if the name is right, allow it by --allowed-hosts")
}

// splitPort cuts a port, which may be absent; net.SplitHostPort makes that an
// error, at the price of an allocation for each request.
func splitPort(hostport string) (host, port string) {
	at := strings.LastIndexByte(hostport, ':')
	if at < 0 || strings.HasSuffix(hostport, "]") {
		return hostport, ""
	}
	return hostport[:at], hostport[at+1:]
}

var imdsAddr = netip.AddrFrom4([4]byte{169, 254, 169, 254})

// forwarded are set by proxies, which no direct client does: the request may
// come from another machine (server-side request forgery).
var forwarded = []string{"X-Forwarded-For", "Forwarded", "Via"}

// browser headers are set by every browser. Sec-Fetch-Mode alone is not among
// them: Node's fetch sends it too, and a browser never sends it alone.
var browser = []string{"Origin", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Sec-Fetch-User"}

func guardHeaders(h http.Header) *imds.Refusal {
	for _, name := range forwarded {
		if _, ok := h[name]; ok {
			return invalid("the header " + name + " shows a proxy in between: ask directly; exempt this address by NO_PROXY=127.0.0.1,localhost,169.254.169.254")
		}
	}
	if _, ok := h[passMarker]; ok {
		return invalid("the request was passed through by svidecar and came back: here 169.254.169.254 leads to svidecar itself, so nothing can be passed through")
	}
	for _, name := range browser {
		if _, ok := h[name]; ok {
			return invalid("the header " + name + " shows a browser: web pages are not served")
		}
	}
	return nil
}

// requireNoBody refuses a body, which no token route takes: two servers could
// disagree on where it ends.
func requireNoBody(r *http.Request) *imds.Refusal {
	if r.ContentLength != 0 {
		return invalid("the request has a body: send parameters in the query")
	}
	return nil
}

// requireMetadata holds IMDS requests to the header that no link, form or
// naive forgery can set.
func requireMetadata(h http.Header) *imds.Refusal {
	if values := h["Metadata"]; len(values) == 1 && strings.EqualFold(values[0], "true") {
		return nil
	}
	return &imds.Refusal{Outcome: imds.MetadataMissing, Description: "the header 'Metadata: true' is missing"}
}

// requireSecret holds App Service requests to the shared secret, in either of
// the two headers that clients use; where both are there, both must be right.
func (s *Server) requireSecret(h http.Header) *imds.Refusal {
	if s.cfg.IdentityHeader.IsZero() {
		return &imds.Refusal{Outcome: imds.Unauthorized, Description: "no secret is configured for this endpoint: start svidecar with --identity-header-file, or use the IMDS path"}
	}
	given := append(append([]string(nil), h["X-Identity-Header"]...), h["Secret"]...)
	right := len(given) > 0
	for _, value := range given {
		right = s.cfg.IdentityHeader.Equal(value) && right
	}
	if !right {
		return &imds.Refusal{Outcome: imds.Unauthorized, Description: "the header X-IDENTITY-HEADER (or Secret) is missing or wrong: it must carry IDENTITY_HEADER as svidecar was given it"}
	}
	return nil
}

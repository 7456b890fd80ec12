package imds

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
)

// Limits of a token request. Real ones are under 300 bytes.
const (
	maxQuery    = 8 << 10
	MaxForm     = 16 << 10 // bytes of a form body
	maxResource = 1024
	maxSelector = 512
)

// parameter says what a query parameter means: the resource, the version, or a
// selector and the name under which the reply echoes it.
type parameter struct {
	kind SelectorKind
	echo string
}

// selectors lists every spelling of a selector that a client is known to send,
// in lower case. Any of them is accepted on any protocol.
var selectors = map[string]parameter{
	"client_id":    {ByClientID, "client_id"},
	"clientid":     {ByClientID, "client_id"},
	"object_id":    {ByObjectID, "object_id"},
	"objectid":     {ByObjectID, "object_id"},
	"principal_id": {ByObjectID, "object_id"},
	"principalid":  {ByObjectID, "object_id"},
	"msi_res_id":   {ByResourceID, "msi_res_id"},
	"mi_res_id":    {ByResourceID, "mi_res_id"},
}

// ParseRequest reads a token request from a query string (or a form body, which
// has the same syntax). Names match without regard to case and in any order;
// unknown parameters are ignored; an empty selector counts as absent.
//
// A resource or a selector that could be read in two ways is refused: repeated,
// two selectors, a raw ';' or '#' (which end a value for some parsers), or characters
// that no URI has (a space would smuggle a second scope to Entra). The error is
// a *Refusal. See docs/protocol.md, "Requests".
func ParseRequest(p Protocol, query string) (Request, error) {
	req := Request{Protocol: p}
	if err := checkText("query", query, maxQuery); err != nil {
		return Request{}, err
	}
	var seen seen
	for pair := range strings.SplitSeq(query, "&") {
		if err := req.add(pair, &seen); err != nil {
			return Request{}, err
		}
	}
	return req.whole()
}

// whole refuses a request that names no resource.
func (r Request) whole() (Request, error) {
	if r.Resource == "" {
		return Request{}, refuse(InvalidRequest, "the parameter 'resource' is missing: add, for instance, resource=https://vault.azure.net")
	}
	return r, nil
}

// checkText refuses what parsers could divide in two ways.
func checkText(what, text string, most int) error {
	if len(text) > most {
		return refuse(InvalidRequest, "the %s is longer than %d bytes", what, most)
	}
	if strings.ContainsAny(text, ";#") {
		return refuse(InvalidRequest, "the %s has a raw ';' or '#': separate parameters with '&', and encode these characters in values", what)
	}
	return nil
}

// seen is what a query has named so far, even if empty. The aliases of one
// property count as one name: client_id and clientid together are a repetition.
type seen struct {
	resource, version, unwanted, bypass bool

	selector [ByResourceID + 1]bool
}

// add takes one name=value pair into the request.
func (r *Request) add(pair string, seen *seen) error {
	name, value, err := decode(pair)
	if err != nil {
		return err
	}
	switch name {
	case "resource":
		return r.setResource(value, seen)
	case "api-version":
		r.APIVersion = value
		return nil
	case "token_sha256_to_refresh":
		return r.setUnwanted(value, seen)
	case "bypass_cache":
		if seen.bypass {
			return refuse(InvalidRequest, "the parameter 'bypass_cache' is repeated")
		}
		seen.bypass = true
		r.BypassCache = strings.EqualFold(value, "true")
		return nil
	}
	if param, ok := selectors[name]; ok {
		return r.setSelector(param, name, value, seen)
	}
	return nil
}

// decode reads one name=value pair; the name is in lower case.
func decode(pair string) (name, value string, err error) {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	if name, err = url.QueryUnescape(rawName); err != nil {
		return "", "", refuse(InvalidRequest, "a parameter's name has a malformed %%-escape")
	}
	if value, err = url.QueryUnescape(rawValue); err != nil {
		return "", "", refuse(InvalidRequest, "a parameter's value has a malformed %%-escape")
	}
	return lower(name), value, nil
}

func (r *Request) setResource(value string, seen *seen) error {
	if seen.resource {
		return refuse(InvalidRequest, "the parameter 'resource' is repeated")
	}
	seen.resource = true
	if value == "" {
		return nil // reported as missing
	}
	if len(value) > maxResource || !isURIText(value) {
		return refuse(InvalidRequest, "the resource must be a URI or GUID of at most %d characters, without spaces", maxResource)
	}
	r.Resource = value
	return nil
}

func (r *Request) setUnwanted(value string, seen *seen) error {
	if seen.unwanted {
		return refuse(InvalidRequest, "the parameter 'token_sha256_to_refresh' is repeated")
	}
	seen.unwanted = true
	if digest, err := hex.DecodeString(value); err != nil || value != "" && len(digest) != sha256.Size {
		return refuse(InvalidRequest, "the parameter 'token_sha256_to_refresh' must be the token's SHA-256, in 64 hexadecimal digits")
	}
	r.Unwanted = strings.ToLower(value)
	return nil
}

func (r *Request) setSelector(param parameter, name, value string, seen *seen) error {
	if seen.selector[param.kind] {
		return refuse(InvalidRequest, "the selector %q is repeated", name)
	}
	seen.selector[param.kind] = true
	if value == "" {
		return nil
	}
	if r.Selector.Kind != NoSelector {
		return refuse(InvalidRequest, "both %q and %q select an identity: send one", r.Selector.Name, param.echo)
	}
	if len(value) > maxSelector || !isURIText(value) {
		return refuse(InvalidRequest, "the selector %q must have at most %d characters, without spaces", name, maxSelector)
	}
	r.Selector = Selector{Kind: param.kind, Name: param.echo, Value: value}
	return nil
}

// lower is name in lower case if it is ASCII; else it is none of ours. Unicode's
// rules would make "clİent_id" a client_id for us alone.
func lower(name string) string {
	for i := range len(name) {
		if name[i] >= 0x80 {
			return ""
		}
	}
	return strings.ToLower(name)
}

// isURIText reports whether s has only the characters of RFC 3986, of which
// none needs escaping in JSON, in a log line or in a scope.
func isURIText(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

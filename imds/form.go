package imds

import "strings"

// ParseForm reads a token request whose parameters are in a form body, as Cloud
// Shell's clients send it, by the rules of [ParseRequest]. What names a token or
// an identity is taken from the body alone: in the query it is refused, since
// servers differ in which of the two they read. The api-version may be in
// either, not in both. The error is a *Refusal.
func ParseForm(p Protocol, query, body string) (Request, error) {
	req := Request{Protocol: p}
	var seen seen
	if err := req.addQuery(query, &seen); err != nil {
		return Request{}, err
	}
	if err := checkText("form", body, MaxForm); err != nil {
		return Request{}, err
	}
	for pair := range strings.SplitSeq(body, "&") {
		if name, _, err := decode(pair); err == nil && name == "api-version" && seen.version {
			return Request{}, refuse(InvalidRequest, "the parameter 'api-version' is repeated, in the query and in the form")
		}
		if err := req.add(pair, &seen); err != nil {
			return Request{}, err
		}
	}
	return req.whole()
}

// addQuery takes what the query of a POST may say.
func (r *Request) addQuery(query string, seen *seen) error {
	if err := checkText("query", query, maxQuery); err != nil {
		return err
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, err := decode(pair)
		if err != nil {
			return err
		}
		_, selects := selectors[name]
		switch {
		case name == "api-version":
			r.APIVersion, seen.version = value, true
		case selects, name == "resource", name == "token_sha256_to_refresh", name == "bypass_cache":
			return refuse(InvalidRequest, "the parameter %q is in the query of a POST: send it in the form", name)
		}
	}
	return nil
}

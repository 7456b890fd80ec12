package entratest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const maxDepth = 16

// object reads one JSON object and nothing else. It refuses invalid UTF-8 and
// a member that is repeated, at any depth: parsers disagree on which one counts.
func object(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8")
	}
	if err := unique(data); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return nil, errors.New("it is not a JSON object")
	}
	if members == nil {
		return nil, errors.New("it is null, not a JSON object")
	}
	return members, nil
}

func unique(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := uniqueValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func uniqueValue(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("the JSON is nested too deep")
	}
	tok, err := dec.Token()
	if err != nil {
		return errors.New("it is not JSON")
	}
	switch tok {
	case json.Delim('{'):
		return uniqueMembers(dec, depth)
	case json.Delim('['):
		for dec.More() {
			if err := uniqueValue(dec, depth+1); err != nil {
				return err
			}
		}
		return closing(dec)
	}
	return nil
}

func uniqueMembers(dec *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return errors.New("it is not JSON")
		}
		if seen[name] {
			return fmt.Errorf("the member %q is repeated", name)
		}
		seen[name] = true
		if err := uniqueValue(dec, depth+1); err != nil {
			return err
		}
	}
	return closing(dec)
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errors.New("it is not JSON")
	}
	return nil
}

// unbase64 decodes base64url (RFC 7515 section 2) and accepts only the one
// canonical spelling: no padding, no line breaks, no stray bits.
func unbase64(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != s {
		return nil, errors.New("it is not canonical base64url")
	}
	return b, nil
}

// stringMember returns a member that is a JSON string, and whether it is there at all.
func stringMember(members map[string]json.RawMessage, name string) (value string, present bool, err error) {
	raw, ok := members[name]
	if !ok {
		return "", false, nil
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return "", true, fmt.Errorf("the member %q is not a string", name)
	}
	return *s, true, nil
}

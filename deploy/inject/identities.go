package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var identityKeys = []string{"clientId", "tenantId", "objectId", "resourceId", "default", "allowedResources"}

// readIdentities reads a JSON list of flat objects, and refuses keys that are
// unknown, in another case, or doubled, all of which encoding/json would let by.
// What the values must be is for the sidecar's own parser to say.
func readIdentities(w *wish, value string) error {
	dec := json.NewDecoder(strings.NewReader(value))
	var entries []json.RawMessage
	if err := dec.Decode(&entries); err != nil {
		return fmt.Errorf("%s is no JSON list: %w", quote(value), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s goes on after the list: remove what follows it", quote(value))
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s lists no identity: add one, or remove the annotation", quote(value))
	}
	w.identities = nil
	for i, entry := range entries {
		id, err := readIdentity(entry)
		if err != nil {
			return fmt.Errorf("%s: entry %d: %w", quote(value), i+1, err)
		}
		w.identities = append(w.identities, id)
	}
	return nil
}

func readIdentity(entry json.RawMessage) (Identity, error) {
	var id Identity
	if err := checkKeys(entry); err != nil {
		return id, err
	}
	if err := json.Unmarshal(entry, &id); err != nil {
		return id, fmt.Errorf("its values are not text, default not true or false, or allowedResources no list: %w", err)
	}
	return id, nil
}

func checkKeys(entry json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(entry))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("it is no object with %s", strings.Join(identityKeys, ", "))
	}
	var seen []string
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		switch {
		case !slices.Contains(identityKeys, key):
			return fmt.Errorf("key %s is unknown: it may be %s", quote(key), strings.Join(identityKeys, ", "))
		case slices.Contains(seen, key):
			return fmt.Errorf("key %s is there twice: keep one", quote(key))
		}
		seen = append(seen, key)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		// An empty list would otherwise be none, and so allow everything.
		if v := string(value); v == "null" || v == `""` || strings.Trim(v, "[] \t\r\n") == "" {
			return fmt.Errorf("key %s has no value: give one, or leave the key out", quote(key))
		}
	}
	return nil
}

// listed is an identity with the keys of the sidecar's configuration.
type listed struct {
	ClientID         string   `json:"client-id,omitempty"`
	TenantID         string   `json:"tenant-id,omitempty"`
	ObjectID         string   `json:"object-id,omitempty"`
	ResourceID       string   `json:"resource-id,omitempty"`
	Default          bool     `json:"default,omitempty"`
	AllowedResources []string `json:"allowed-resources,omitempty"`
}

// identityList is the value of SVIDECAR_IDENTITIES.
func identityList(ids []Identity) (string, error) {
	var list []listed
	for _, id := range ids {
		list = append(list, listed(id))
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(list); err != nil {
		return "", errors.New("inject: internal error: " + err.Error())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

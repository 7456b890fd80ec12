package imds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Limits of a static document. Real ones are under 10 KiB, and 6 deep.
const (
	maxInstance = 1 << 20
	maxDepth    = 32
)

// Instance is a document that stands for what a virtual machine says of itself
// under /metadata/instance. It is immutable.
type Instance struct{ root *node }

// node is one value of the document.
type node struct {
	raw    json.RawMessage // compact
	text   string          // of a leaf
	leaf   bool
	names  []string         // as written, in order; indexes for a list
	called map[string]*node // by name in lower case, since paths have no case
}

// ParseInstance reads a JSON object whose leaves are strings, as the real
// service's are. Names that differ in case alone are refused, since a path could
// mean either. The error names the place.
func ParseInstance(data []byte) (*Instance, error) {
	if len(data) > maxInstance {
		return nil, fmt.Errorf("imds: the document is larger than %d bytes", maxInstance)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, fmt.Errorf("imds: the document is not JSON: %v", err)
	}
	root, err := parseNode(compact.Bytes(), "", 0)
	if err != nil {
		return nil, fmt.Errorf("imds: %w", err)
	}
	if root.leaf || root.raw[0] != '{' {
		return nil, errors.New(`imds: the document is not an object: begin it with {"compute": {`)
	}
	return &Instance{root}, nil
}

func parseNode(raw json.RawMessage, at string, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the document is nested more than %d deep", maxDepth)
	}
	n := &node{raw: raw, called: map[string]*node{}}
	switch raw[0] {
	case '"':
		n.leaf = true
		return n, json.Unmarshal(raw, &n.text)
	case '{', '[':
		return n, n.parseChildren(at, depth)
	}
	return nil, fmt.Errorf("%s/ is neither a text, a list nor an object: the real service writes numbers and true or false as texts, in quotes", at)
}

func (n *node) parseChildren(at string, depth int) error {
	dec := json.NewDecoder(bytes.NewReader(n.raw))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for i := 0; dec.More(); i++ {
		name := strconv.Itoa(i)
		if n.raw[0] == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ = key.(string)
		}
		if err := n.parseChild(dec, at, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) parseChild(dec *json.Decoder, at, name string, depth int) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	key := lower(name)
	if key == "" || strings.Contains(key, "/") {
		return fmt.Errorf("%s/ has a name that no path can hold: use ASCII letters and digits", at)
	}
	if n.called[key] != nil {
		return fmt.Errorf("%s/%s is there twice: names that differ in case alone count as one", at, key)
	}
	child, err := parseNode(raw, at+"/"+key, depth+1)
	if err != nil {
		return err
	}
	n.names, n.called[key] = append(n.names, name), child
	return nil
}

// Write answers a request for path, which begins after /metadata/instance, in
// lower case. A *Refusal is an answer that was not written; another error means
// that the client is gone.
func (i *Instance) Write(w http.ResponseWriter, path string, m Metadata) error {
	n := i.root
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if segment == "" {
			continue
		}
		if n = n.called[segment]; n == nil {
			return refuse(NotFound, "svidecar's static document has nothing at this path")
		}
	}
	switch {
	case m.Text:
		return sendText(w, n.listing())
	case n.leaf:
		return refuse(InvalidRequest, "the path names a single value: add format=text, or ask for what holds it")
	}
	return send(w, http.StatusOK, n.raw)
}

// listing is a leaf's text, or the names of what is below, as the real service
// lists them: a slash marks what has more below.
func (n *node) listing() string {
	if n.leaf {
		return n.text
	}
	lines := make([]string, len(n.names))
	for i, name := range n.names {
		lines[i] = name
		if !n.called[lower(name)].leaf {
			lines[i] += "/"
		}
	}
	return strings.Join(lines, "\n")
}

func sendText(w http.ResponseWriter, body string) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h["Cache-Control"] = cacheControl
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, err := io.WriteString(w, body)
	return err
}

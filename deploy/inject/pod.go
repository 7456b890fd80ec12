package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// object is a JSON object.
type object = map[string]any

// pod is the tree of a pod, and what was changed in it. Every change is made in
// the tree and noted in ops, so that later changes see earlier ones.
type pod struct {
	root object
	ops  []operation
}

// operation is one of RFC 6902.
type operation struct {
	Op    string `json:"op"`
	From  string `json:"from,omitempty"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// errShape says that the pod is not one. The API server refuses such a thing
// itself, in more words.
var errShape = errors.New("the pod is malformed")

// parsePod reads the pod. Numbers stay as they are written, and whatever this
// package reads has the type that it should have.
func parsePod(raw []byte) (*pod, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	p := &pod{}
	if err := dec.Decode(&p.root); err != nil {
		return nil, fmt.Errorf("%w: %v", errShape, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more than one JSON value", errShape)
	}
	if p.root == nil {
		return nil, fmt.Errorf("%w: it is null", errShape)
	}
	return p, p.check()
}

// get gives what stands at the path, or nil.
func (p *pod) get(path ...string) any {
	var at any = p.root
	for _, key := range path {
		o, ok := at.(object)
		if !ok {
			return nil
		}
		at = o[key]
	}
	return at
}

// text gives the string at the path, or nothing.
func (p *pod) text(path ...string) string {
	s, _ := p.get(path...).(string)
	return s
}

// strings gives the map of strings at the path. A value of another type is none.
func (p *pod) strings(path ...string) map[string]string {
	o, _ := p.get(path...).(object)
	m := map[string]string{}
	for k, v := range o {
		if s, ok := v.(string); ok {
			m[k] = s
		}
	}
	return m
}

// set puts a value at the path, below objects that are made if they are missing.
func (p *pod) set(value any, path ...string) {
	at := p.root
	for i, key := range path {
		if i == len(path)-1 {
			p.note("add", pointer(path...), value)
			at[key] = value
			return
		}
		below, ok := at[key].(object)
		if !ok {
			nested := any(value)
			for _, k := range slices.Backward(path[i+1:]) {
				nested = object{k: nested}
			}
			p.note("add", pointer(path[:i+1]...), nested)
			at[key] = copied(nested)
			return
		}
		at = below
	}
}

// insert puts a value into the list that is called key in the object at the
// path, which must exist. An index beyond the end appends.
func (p *pod) insert(in object, value any, index int, path string, key string) {
	list, _ := in[key].([]any)
	at := path + pointer(key)
	switch {
	case len(list) == 0:
		p.note("add", at, []any{value})
	case index >= len(list):
		p.note("add", at+"/-", value)
	default:
		p.note("add", at+"/"+strconv.Itoa(index), value)
	}
	in[key] = slices.Insert(slices.Clone(list), min(index, len(list)), value)
}

// move takes the entry of a list to an index.
func (p *pod) move(in object, from, to int, path, key string) {
	list, _ := in[key].([]any)
	at := path + pointer(key) + "/"
	p.ops = append(p.ops, operation{Op: "move", From: at + strconv.Itoa(from), Path: at + strconv.Itoa(to)})
	entry := list[from]
	in[key] = slices.Insert(slices.Delete(slices.Clone(list), from, from+1), to, entry)
}

// note copies the value: the tree's own may change by later operations.
func (p *pod) note(op, path string, value any) {
	p.ops = append(p.ops, operation{Op: op, Path: path, Value: copied(value)})
}

// copied is a deep copy of a JSON value that this package made.
func copied(v any) any {
	switch v := v.(type) {
	case object:
		c := object{}
		for k, e := range v {
			c[k] = copied(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = copied(e)
		}
		return c
	}
	return v
}

// pointer is an RFC 6901 pointer.
func pointer(path ...string) string {
	var b strings.Builder
	for _, key := range path {
		b.WriteString("/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1"))
	}
	return b.String()
}

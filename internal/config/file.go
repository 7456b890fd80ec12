package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds each file that is read whole.
const maxFile = 1 << 20

var errTooLarge = errors.New("larger than 1 MiB")

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}

// reader turns the YAML file into candidates for settings, and into identities
// and sources. Problems go to the loader's list.
type reader struct {
	*loader
	path   string
	values map[string]candidate
	// at says where a line is: in the file, or in the variable of identities.
	at func(line int) origin
}

func (l *loader) newReader(path string) *reader {
	return &reader{
		loader: l, path: path, values: map[string]candidate{},
		at: func(line int) origin { return fromFile(path, line) },
	}
}

// readConfig reads the file that the config setting names.
func (l *loader) readConfig() map[string]candidate {
	r := l.newReader(l.cfg.ConfigFile)
	data, err := readBounded(r.path)
	switch {
	case errors.Is(err, errTooLarge):
		r.fail(1, "the file is larger than 1 MiB: it is not a configuration of svidecar, or must be cut down")
	case err != nil:
		l.addf(l.where("config"), "%w: correct the path, or create the file", err)
	default:
		r.read(data)
	}
	return r.values
}

func (r *reader) fail(line int, format string, args ...any) {
	r.addf(r.at(line).place(), format, args...)
}

func (r *reader) read(data []byte) {
	if root := r.tree(data); root != nil {
		r.settings(root)
	}
}

// tree gives the root of a document that is fit to be read, or nil.
func (r *reader) tree(data []byte) *yaml.Node {
	if line := unreadable(data); line > 0 {
		r.fail(line, "the line is not UTF-8, or holds a control character: save the file as UTF-8 text")
		return nil
	}
	root, ok := r.parse(data)
	if !ok || root == nil {
		return nil
	}
	before := len(r.list)
	if r.refuseReferences(root); len(r.list) > before {
		return nil
	}
	return root
}

// identitiesEnv holds what the file has under identities, for pods that have no
// file: the same list, as YAML or as JSON, which is YAML too.
const identitiesEnv = envPrefix + "IDENTITIES"

// readIdentities lets the variable outrank the file's list.
func (l *loader) readIdentities(env map[string]string) {
	value := env[identitiesEnv]
	if value == "" {
		return
	}
	r := l.newReader("")
	r.at = func(int) origin { return fromEnv(identitiesEnv, rankEnv) }
	before := len(r.list)
	root := r.tree([]byte(value))
	if root != nil {
		l.cfg.Identities = decodeList(r, "identities", root, identityFields)
	} else if len(r.list) == before {
		r.fail(1, "identities: wants a list with at least one entry: add one, or unset the variable")
	}
}

// unreadable gives the first line that YAML's reader would refuse without
// saying where, and zero if there is none.
func unreadable(data []byte) int {
	line := 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == '\n':
			line++
		case c == utf8.RuneError && size == 1, isUnusual(c) && (c != '\ufeff' || i > 0):
			return line
		}
		i += size
	}
	return 0
}

func isUnusual(c rune) bool {
	switch c {
	case '\t', '\n', '\r':
		return false
	case '\u2028', '\u2029', '\ufeff', '\ufffe', '\uffff':
		return true
	}
	return unicode.IsControl(c)
}

// parse gives the root of the one document, or nil if the file holds none.
func (r *reader) parse(data []byte) (root *yaml.Node, ok bool) {
	// Duplicate keys are found later, where they can be named with their lines.
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithUniqueKeys(false))
	if err != nil {
		panic("config: internal error: " + err.Error())
	}
	var first, second yaml.Node
	if err := loader.Load(&first); err != nil {
		return nil, r.ended(err)
	}
	if err := loader.Load(&second); err == nil {
		r.fail(second.Line, "a second document begins here: keep one, and remove the --- line")
		return nil, false
	} else if !r.ended(err) {
		return nil, false
	}
	if len(first.Content) == 0 || first.Content[0].ShortTag() == "!!null" {
		return nil, true
	}
	return first.Content[0], true
}

// ended reports whether err is the end of the file; otherwise it is noted. Only
// texts that cannot hold a piece of the file are passed on: a secret may be
// what does not parse.
func (r *reader) ended(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	line, what := 1, "not valid YAML"
	if le := (*yaml.LoadError)(nil); errors.As(err, &le) {
		line = max(1, le.Mark.Line, le.ContextMark.Line)
		what = describe(le)
	}
	r.fail(line, "%s: mend the line, or put its value in quotes", what)
	return false
}

func describe(le *yaml.LoadError) string {
	quotesInput := strings.Contains(le.Message, "YAML tag")
	if quotesInput || (le.Stage != yaml.ScannerStage && le.Stage != yaml.ParserStage) {
		return "not valid YAML, or a tag, anchor or alias, which are not supported"
	}
	what := "not valid YAML: " + le.Message
	if le.ContextMsg != "" && le.ContextMark.Line > 0 {
		what += fmt.Sprintf(" (%s that begins on line %d)", le.ContextMsg, le.ContextMark.Line)
	}
	return what
}

// refuseReferences refuses whatever makes a value differ from what stands
// written at its place.
func (r *reader) refuseReferences(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		r.fail(n.Line, "aliases are not supported: write the value out, or put it in quotes if it begins with *")
		return
	case n.Anchor != "":
		r.fail(n.Line, "anchors are not supported: remove it, or put the value in quotes if it begins with &")
	case n.Tag == "!!merge":
		r.fail(n.Line, "merge keys are not supported: write the settings out")
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(n.Line, "tags are not supported: remove it, or put the value in quotes if it begins with !")
	}
	for _, c := range n.Content {
		r.refuseReferences(c)
	}
}

// settings reads the top level.
func (r *reader) settings(root *yaml.Node) {
	known := []string{"identities", "sources"}
	byName := map[string]setting{}
	for _, s := range settings {
		byName[s.name] = s
		known = append(known, s.name)
	}
	r.entries(root, "", known, "--help lists the settings, and there are identities and sources", func(key string, n *yaml.Node) {
		switch key {
		case "identities":
			r.cfg.Identities = decodeList(r, key, n, identityFields)
		case "sources":
			r.cfg.Sources = decodeList(r, key, n, sourceFields)
		default:
			r.setting(byName[key], n)
		}
	})
}

var errFlagOnly = errors.New("a file cannot name another: remove the line, and give the file as flag or variable")

func (r *reader) setting(s setting, n *yaml.Node) {
	v, err := nodeText(n, s.kind)
	if s.flagOnly {
		err = errFlagOnly
	}
	if err != nil {
		r.fail(n.Line, "%s: %w", s.name, err)
		return
	}
	r.values[s.name] = candidate{v, fromFile(r.path, n.Line)}
}

// entries hands the pairs of the mapping n to each, refusing unknown and
// repeated keys. within is the path of n, empty at the top.
func (r *reader) entries(n *yaml.Node, within string, known []string, hint string, each func(key string, n *yaml.Node)) {
	if within != "" {
		within += ": "
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, `%swants settings, one "name: value" on each line`, within)
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content) && len(r.list) <= maxProblems; i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch first, again := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || !slices.Contains(known, k.Value):
			r.fail(k.Line, "%s%s", within, unknownKey(k, known, hint))
		case again:
			r.fail(k.Line, "%s%q is given again, first on line %d: keep one", within, k.Value, first)
		default:
			seen[k.Value] = k.Line
			each(k.Value, v)
		}
	}
}

// keyShape is what a mistyped name looks like; anything else might be a value,
// perhaps a secret one, that slipped into the place of a key.
var keyShape = regexp.MustCompile(`^[A-Za-z_-]+$`)

func unknownKey(k *yaml.Node, known []string, hint string) string {
	if k.Kind != yaml.ScalarNode || !keyShape.MatchString(k.Value) || len(k.Value) > 40 {
		return "the key is not the name of a setting; " + hint
	}
	return fmt.Sprintf("unknown setting %q%s", k.Value, didYouMean(k.Value, known, hint))
}

// decodeList reads a list of identities or sources.
func decodeList[T any](r *reader, key string, n *yaml.Node, fields []field[T]) []T {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		r.fail(n.Line, "%s: wants a list with at least one entry: add one, or remove %s", key, key)
		return nil
	}
	var entries []T
	for i, e := range n.Content {
		path := fmt.Sprintf("%s[%d]", key, i)
		r.cfg.from[path] = r.at(e.Line)
		entries = append(entries, decodeEntry(r, path, e, fields))
	}
	return entries
}

func decodeEntry[T any](r *reader, path string, n *yaml.Node, fields []field[T]) T {
	var entry T
	var known []string
	byName := map[string]field[T]{}
	for _, f := range fields {
		known = append(known, f.name)
		byName[f.name] = f
	}
	r.entries(n, path, known, "it may be "+strings.Join(known, ", "), func(key string, n *yaml.Node) {
		f := byName[key]
		v, err := nodeText(n, f.kind)
		switch {
		case err != nil:
		case v == "":
			err = errEmpty
		default:
			err = f.set(&entry, v)
		}
		if err != nil {
			r.fail(n.Line, "%s.%s: %w", path, key, err)
		}
		r.cfg.from[path+"."+key] = r.at(n.Line)
	})
	return entry
}

// nodeText is the text of a value of kind k. It never shows the value.
func nodeText(n *yaml.Node, k kind) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return "", errors.New("the value is missing: give one, or remove the line")
	case k == list:
		return listText(n)
	case k == words && n.Kind == yaml.SequenceNode:
		return commandText(n)
	case n.Kind != yaml.ScalarNode:
		return "", fmt.Errorf("wants %s", k.wants())
	}
	if want := scalarTag(k); n.ShortTag() != want {
		if want == "!!str" && k == text {
			return "", errors.New("wants text, and YAML takes this for something else: put it in quotes")
		}
		return "", fmt.Errorf("wants %s", k.wants())
	}
	return n.Value, nil
}

func scalarTag(k kind) string {
	switch k {
	case boolean:
		return "!!bool"
	case count:
		return "!!int"
	}
	return "!!str"
}

// commandText is what the flag would be: JSON.
func commandText(n *yaml.Node) (string, error) {
	var parts []string
	for i, e := range n.Content {
		v, err := nodeText(e, text)
		if err != nil {
			return "", fmt.Errorf("entry %d: %w", i+1, err)
		}
		parts = append(parts, v)
	}
	return wordsText(parts), nil
}

func listText(n *yaml.Node) (string, error) {
	if n.Kind != yaml.SequenceNode {
		return "", errors.New("wants a list: write [a, b], or each entry on a line of its own after a dash")
	}
	var parts []string
	for i, e := range n.Content {
		v, err := nodeText(e, text)
		if err == nil && (v == "" || strings.Contains(v, ",")) {
			err = errors.New("is empty or holds a comma: write each entry by itself")
		}
		if err != nil {
			return "", fmt.Errorf("entry %d: %w", i+1, err)
		}
		parts = append(parts, v)
	}
	return strings.Join(parts, ","), nil
}

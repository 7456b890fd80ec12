package config

import (
	"errors"
	"fmt"
	"strconv"
)

// origin says where a value came from, as Print and errors show it.
type origin struct {
	text string // "flag --listen", "env SVIDECAR_LISTEN", "default", "derived from cloud"
	path string // of the file, if the value is from there
	line int
	rank rank
}

// rank orders origins: a higher one wins.
type rank int

const (
	rankDefault rank = iota // by default or derived
	rankAmbient             // an AZURE_ variable
	rankFile
	rankEnv
	rankFlag
)

func fromFlag(name string) origin { return origin{text: "flag --" + name, rank: rankFlag} }

func fromEnv(name string, r rank) origin { return origin{text: "env " + name, rank: r} }

func fromFile(path string, line int) origin {
	at := path + ":" + strconv.Itoa(line)
	return origin{text: "file " + at, path: path, line: line, rank: rankFile}
}

func derivedFrom(name string) origin { return origin{text: "derived from " + name} }

// given reports whether someone wrote the value down.
func (o origin) given() bool { return o.rank != rankDefault }

// explicit reports whether someone wrote the value down for svidecar.
func (o origin) explicit() bool { return o.rank > rankAmbient }

// prefix begins an error about the value called name. Values of the file begin
// with file:line, so that editors can jump to it.
func (o origin) prefix(name string) string {
	switch {
	case o.path != "":
		return fmt.Sprintf("%s:%d: %s", o.path, o.line, name)
	case o.given():
		return fmt.Sprintf("%s (from %s)", name, o.text)
	case o.text != "":
		return fmt.Sprintf("%s (%s)", name, o.text)
	}
	return name
}

// place is where text stands that does not become a value.
func (o origin) place() string {
	if o.path != "" {
		return fmt.Sprintf("%s:%d", o.path, o.line)
	}
	return o.text
}

// mention names a value in the middle of an error.
func (o origin) mention(name string) string {
	if o.path != "" {
		return fmt.Sprintf("%s (from file %s:%d)", name, o.path, o.line)
	}
	return o.prefix(name)
}

// problems collects errors, one line each, up to a number that a person reads.
type problems struct{ list []error }

const maxProblems = 50

// add notes err about what where says.
func (p *problems) add(where string, err error) {
	switch n := len(p.list); {
	case n < maxProblems:
		p.list = append(p.list, fmt.Errorf("%s: %w", where, err))
	case n == maxProblems:
		p.list = append(p.list, errors.New(where+": this and further problems are left out: mend the ones above first"))
	}
}

func (p *problems) addf(where, format string, args ...any) { p.add(where, fmt.Errorf(format, args...)) }

func (p *problems) err() error { return errors.Join(p.list...) }

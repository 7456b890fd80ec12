package config

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is the shape of a value: what YAML must hold and what --help shows.
type kind int

const (
	text kind = iota
	boolean
	count
	duration
	list  // in flags and variables: separated by commas
	words // in flags and variables: JSON, so that each may hold any character
)

func (k kind) String() string {
	return [...]string{"string", "bool", "int", "duration", "strings", "command"}[k]
}

// wants says in an error what a value of kind k looks like.
func (k kind) wants() string {
	return [...]string{
		"text", "true or false", "a whole number",
		"a duration with its unit, such as 10s", "a list", "a list of texts, or one text",
	}[k]
}

// field is one value of a T: its name, how text becomes the value, and how the
// value becomes text. get gives "" for a value that is not set.
type field[T any] struct {
	name   string
	kind   kind
	secret bool
	set    func(*T, string) error
	get    func(*T) string
}

func textField[T any](name string, at func(*T) *string, parse func(string) (string, error)) field[T] {
	return field[T]{
		name: name, kind: text,
		set: func(t *T, s string) (err error) {
			*at(t), err = parse(s)
			return err
		},
		get: func(t *T) string { return *at(t) },
	}
}

func boolField[T any](name string, at func(*T) *bool) field[T] {
	return field[T]{
		name: name, kind: boolean,
		set: func(t *T, s string) error {
			if s != "true" && s != "false" {
				return fmt.Errorf("%s is neither true nor false", quote(s))
			}
			*at(t) = s == "true"
			return nil
		},
		get: func(t *T) string { return strconv.FormatBool(*at(t)) },
	}
}

func countField[T any](name string, at func(*T) *int, low, high int) field[T] {
	return field[T]{
		name: name, kind: count,
		set: func(t *T, s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < low || n > high {
				return fmt.Errorf("%s is not a whole number from %d to %d", quote(s), low, high)
			}
			*at(t) = n
			return nil
		},
		get: func(t *T) string { return strconv.Itoa(*at(t)) },
	}
}

func durationField[T any](name string, at func(*T) *time.Duration, low, high time.Duration) field[T] {
	return field[T]{
		name: name, kind: duration,
		set: func(t *T, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil || d < low || d > high {
				return fmt.Errorf("%s is not a duration from %s to %s, such as 10s", quote(s), shortDuration(low), shortDuration(high))
			}
			*at(t) = d
			return nil
		},
		get: func(t *T) string { return shortDuration(*at(t)) },
	}
}

// listField parses entries one by one and refuses those that repeat.
func listField[T any](name string, at func(*T) *[]string, parse func(string) (string, error)) field[T] {
	return field[T]{
		name: name, kind: list,
		set: func(t *T, s string) error {
			entries, err := parseEntries(s, parse)
			*at(t) = entries
			return err
		},
		get: func(t *T) string { return strings.Join(*at(t), ",") },
	}
}

func parseEntries(s string, parse func(string) (string, error)) ([]string, error) {
	var entries []string
	seen := map[string]bool{}
	for i, part := range strings.Split(s, ",") {
		v, err := parse(part)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i+1, err)
		}
		fold := strings.ToLower(v)
		if seen[fold] {
			return nil, fmt.Errorf("entry %d: %s is listed twice: remove one", i+1, quote(v))
		}
		seen[fold] = true
		entries = append(entries, v)
	}
	return entries, nil
}

// wordsField keeps words in their order, equal ones too. Its text is JSON.
func wordsField[T any](name string, at func(*T) *[]string, parse func(string) ([]string, error)) field[T] {
	return field[T]{
		name: name, kind: words,
		set: func(t *T, s string) (err error) {
			*at(t), err = parse(s)
			return err
		},
		get: func(t *T) string {
			if len(*at(t)) == 0 {
				return ""
			}
			return wordsText(*at(t))
		},
	}
}

// wordsText is the list as JSON, with < > & as they are.
func wordsText(list []string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(list); err != nil {
		panic("config: internal error: a list of strings does not marshal: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// shortDuration is d without the zeros that time.Duration appends: 5m, not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// quote is %q, cut to a length that fits an error.
func quote(s string) string {
	const most = 120
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "…"
}

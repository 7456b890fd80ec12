package config

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes every setting with its value and where that came from, one a
// line in aligned columns, then the identities and the sources. A secret shows
// as [redacted], a value that is not set as a dash.
func (c *Config) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "NAME\tVALUE\tFROM\n")
	for _, s := range settings {
		c.printRow(t, s.name, s.get(c))
	}
	for i := range c.Identities {
		printEntry(t, c, identityPath(i), &c.Identities[i], identityFields)
	}
	for i := range c.Sources {
		printEntry(t, c, fmt.Sprintf("sources[%d]", i), &c.Sources[i], sourceFields)
	}
	return t.Flush()
}

// printEntry leaves out what the entry does not have.
func printEntry[T any](w io.Writer, c *Config, path string, entry *T, fields []field[T]) {
	for _, f := range fields {
		if v := f.get(entry); !f.kind.isZero(v) {
			c.printRow(w, path+"."+f.name, v)
		}
	}
}

// isZero reports whether v says of a value of kind k that there is none.
func (k kind) isZero(v string) bool {
	return v == "" || (k == boolean && v == "false") || (k == duration && v == "0s")
}

func (c *Config) printRow(w io.Writer, name, value string) {
	from := c.from[name].text
	if from == "" {
		from = "the program" // a Config made by hand
	}
	fmt.Fprintf(w, "%s\t%s\t%s\n", name, cell(value), from)
}

// cell keeps a value from breaking the table.
func cell(v string) string {
	switch {
	case v == "":
		return "-"
	case hasSpace(v) || strings.HasPrefix(v, `"`):
		return fmt.Sprintf("%q", v)
	}
	return v
}

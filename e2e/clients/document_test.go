//go:build e2e && linux

package clients_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const document = "../../docs/compatibility.md"

// requireRows compares the rows with those of the document, and rewrites it by -update.
func requireRows(t *testing.T, language string, rows []row) {
	t.Helper()
	var b strings.Builder
	b.WriteString("| client | version | protocol | system-assigned | client id | object id | resource id |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.client, r.version, r.protocol, strings.Join(r.cells, " | "))
	}
	requireTable(t, language, b.String())
}

// tableOf is a table of the document.
func tableOf(t *testing.T, name string) string {
	t.Helper()
	_, old, _ := cutTable(t, name)
	return old
}

// cellsOf are the cells of a table's rows, without its first two lines and the first
// column.
func cellsOf(table string) (rows [][]string) {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	for _, line := range lines[min(2, len(lines)):] {
		rows = append(rows, strings.Split(strings.Trim(line, "| "), " | ")[1:])
	}
	return rows
}

// cutTable finds a table, which stands between two marks.
func cutTable(t *testing.T, name string) (before, table, after string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	head, rest, found := strings.Cut(string(text), begin)
	table, tail, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no %q with its end", document, begin)
	}
	return head + begin, table, end + tail
}

// requireTable holds a table of the document.
func requireTable(t *testing.T, name, table string) {
	t.Helper()
	before, old, after := cutTable(t, name)
	if old == table {
		return
	}
	if *update {
		if err := os.WriteFile(document, []byte(before+table+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s, table %s: if the change is right, go test -tags e2e ./e2e/clients -update (-document +found):\n%s", document, name, cmp.Diff(strings.Split(old, "\n"), strings.Split(table, "\n")))
}

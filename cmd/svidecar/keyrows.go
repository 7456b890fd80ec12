package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/svidecar/svidecar/mint/keydir"
)

// keyRow is one key as keys list shows it.
type keyRow struct {
	ID        string     `json:"kid"`
	State     string     `json:"state"`
	Bits      int        `json:"bits"`
	Created   *time.Time `json:"created,omitempty"`
	Published *time.Time `json:"published,omitempty"`
	SignsFrom *time.Time `json:"signs_from,omitempty"`
	RetiredAt *time.Time `json:"retires,omitempty"`
	RemovedAt *time.Time `json:"leaves,omitempty"`
}

func rowsOf(keys []keydir.Key) []keyRow {
	rows := []keyRow{} // an empty list is [] in JSON
	for _, k := range keys {
		rows = append(rows, keyRow{
			ID: k.ID, State: k.State.String(), Bits: k.Bits,
			Created: known(k.Created), Published: known(k.Published), SignsFrom: known(k.SignsFrom), RetiredAt: known(k.RetiredAt), RemovedAt: known(k.RemovedAt),
		})
	}
	return rows
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func printRows(w io.Writer, rows []keyRow) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "KEY\tSTATE\tBITS\tPUBLISHED\tSIGNS FROM\tUNTIL\tLEAVES THE KEY SET")
	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.ID, r.State, r.Bits, when(r.Published), when(r.SignsFrom), when(r.RetiredAt), when(r.RemovedAt))
	}
	return table.Flush()
}

func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

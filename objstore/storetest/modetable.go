package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"coffer/objstore"
)

// ModeTable renders the rows of one server as Markdown: a line a verb, a
// column a mode, in the order in which they first appear, and the notes below.
func ModeTable(rows []ModeRow) string {
	rows = slices.Clone(rows)
	var columns []objstore.Mode
	cells := map[objstore.Mode]map[string]ModeRow{}
	for _, r := range rows {
		if cells[r.Mode] == nil {
			columns = append(columns, r.Mode)
			cells[r.Mode] = map[string]ModeRow{}
		}
		cells[r.Mode][r.Verb] = r
	}
	// A mode that a server lacks has few verbs: the order is that of the others.
	slices.SortStableFunc(rows, func(a, b ModeRow) int { return cmp.Compare(len(cells[b.Mode]), len(cells[a.Mode])) })
	var verbs []string
	for _, r := range rows {
		if !slices.Contains(verbs, r.Verb) {
			verbs = append(verbs, r.Verb)
		}
	}
	var b strings.Builder
	var notes []string
	b.WriteString("| verb |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, v := range verbs {
		fmt.Fprintf(&b, "| %s |", v)
		for _, c := range columns {
			r, ok := cells[c][v]
			if !ok {
				b.WriteString(" - |")
				continue
			}
			fmt.Fprintf(&b, " %s", r.Verdict)
			if r.Note != "" {
				n := slices.Index(notes, r.Note)
				if n < 0 {
					notes = append(notes, r.Note)
					n = len(notes) - 1
				}
				fmt.Fprintf(&b, " [%d]", n+1)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for i, n := range notes {
		fmt.Fprintf(&b, "%d. %s\n", i+1, n)
	}
	return b.String()
}

package storetest

import (
	"fmt"
	"slices"
	"strings"

	"coffer/objstore"
)

// ModeTable renders rows as Markdown: a line a verb, a column a server and
// mode, in the order in which they first appear, and the notes below it.
func ModeTable(rows []ModeRow) string {
	type column struct {
		server string
		mode   objstore.Mode
	}
	var verbs []string
	var columns []column
	cells := map[column]map[string]ModeRow{}
	for _, r := range rows {
		c := column{r.Server, r.Mode}
		if cells[c] == nil {
			columns = append(columns, c)
			cells[c] = map[string]ModeRow{}
		}
		if !slices.Contains(verbs, r.Verb) {
			verbs = append(verbs, r.Verb)
		}
		cells[c][r.Verb] = r
	}
	var b strings.Builder
	var notes []string
	b.WriteString("| verb |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s, %s |", c.server, c.mode)
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

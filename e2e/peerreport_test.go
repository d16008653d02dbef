package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// figure is what one program took for one job.
type figure struct {
	wall, cpu, mib float64 // seconds, seconds of its processor, peak memory
	problem        string  // why there is none of these
}

// median is the figure in the middle by time, or the first that is none.
func median(figures []figure) figure {
	for _, f := range figures {
		if f.problem != "" {
			return f
		}
	}
	sorted := slices.Clone(figures)
	slices.SortFunc(sorted, func(a, b figure) int { return int(1e6 * (a.wall - b.wall)) })
	return sorted[len(sorted)/2]
}

// unit is in what a job is told: the rate of an amount, or plain seconds.
type unit struct {
	rate   string  // "MiB/s"
	cost   string  // "CPU s/GiB"
	scale  float64 // of the rate: how many of its unit are one of the amount
	perOne float64 // of the cost: likewise
}

var (
	byBytes   = unit{"MiB/s", "s/GiB", 1024, 1}
	byFiles   = unit{"files/s", "ms/file", 1, 1000}
	byReads   = unit{"reads/s", "ms/read", 1, 1000}
	byEntries = unit{"entries/s", "us/entry", 1, 1e6}
	bySeconds = unit{"s", "s", 0, 1}
)

// row is a job of the table.
type row struct {
	name   string
	unit   unit
	amount float64 // GiB, files, reads or entries
	cells  map[string]figure
	notes  map[string]string // what else is to be told of a program
}

func (r row) rate(f figure) float64 {
	if r.unit.scale == 0 {
		return f.wall
	}
	return r.unit.scale * r.amount / f.wall
}

func (r row) cost(f figure) float64 { return r.unit.perOne * f.cpu / r.amount }

// best is the fastest of some programs' figures.
func (r row) best(names []string) (figure, bool) {
	var best figure
	for _, name := range names {
		if f, ok := r.cells[name]; ok && f.problem == "" && (best.wall == 0 || f.wall < best.wall) {
			best = f
		}
	}
	return best, best.wall != 0
}

// markdownTable tells the rows by column. The first column is the program that
// the peers are compared with; limits are columns that are no peers.
func markdownTable(rows []row, columns, limits []string) string {
	var out strings.Builder
	peers := slices.DeleteFunc(slices.Clone(columns[1:]), func(name string) bool { return slices.Contains(limits, name) })
	fmt.Fprintf(&out, "| job | %s | time | processor |", strings.Join(columns, " | "))
	for _, name := range limits {
		fmt.Fprintf(&out, " of %s |", name)
	}
	out.WriteString("\n|" + strings.Repeat("---|", len(columns)+3+len(limits)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "| %s, %s (%s, MiB) |", r.name, r.unit.rate, r.unit.cost)
		for _, name := range columns {
			out.WriteString(" " + r.cell(name) + " |")
		}
		own, done := r.cells[columns[0]]
		done = done && own.problem == ""
		if f, ok := r.best(peers); ok && done {
			fmt.Fprintf(&out, " %.2f | %s |", f.wall/own.wall, ratio(f.cpu, own.cpu))
		} else {
			out.WriteString(" | |")
		}
		for _, name := range limits {
			if f, ok := r.best([]string{name}); ok && done {
				fmt.Fprintf(&out, " %.2f |", f.wall/own.wall)
			} else {
				out.WriteString(" |")
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a/b)
}

func (r row) cell(name string) string {
	f, ok := r.cells[name]
	switch {
	case !ok:
		return ""
	case f.problem != "":
		return f.problem
	}
	text := short(r.rate(f))
	var more []string
	if f.cpu > 0 {
		more = append(more, short(r.cost(f)))
	}
	if f.mib > 0 {
		more = append(more, fmt.Sprintf("%.0f", f.mib))
	}
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	if note := r.notes[name]; note != "" {
		text += "; " + note
	}
	return text
}

// short writes a number to three figures or so.
func short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func TestMedian(t *testing.T) {
	got := median([]figure{{wall: 3, cpu: 1}, {wall: 1, cpu: 9}, {wall: 2, cpu: 5}})
	if got != (figure{wall: 2, cpu: 5}) {
		t.Errorf("the figure in the middle is %+v", got)
	}
	if got := median([]figure{{wall: 1}, {problem: "> 120 s"}}); got.problem != "> 120 s" {
		t.Errorf("a job that did not end became %+v", got)
	}
}

// sampleRows are of every kind.
func sampleRows() []row {
	return []row{
		{"read", byBytes, 1, map[string]figure{
			"Coffer": {wall: 1, cpu: .5, mib: 100}, "a": {wall: 2, cpu: 2, mib: 50}, "b": {wall: 4, cpu: 1, mib: 20}, "limit": {wall: .5}}, nil},
		{"reads <4 KiB>", byReads, 1000, map[string]figure{
			"Coffer": {wall: 2, cpu: 1, mib: 30}, "a": {problem: "> 120 s"}}, map[string]string{"Coffer": "1.0 requests, 4 KiB"}},
		{"mount", bySeconds, 1, map[string]figure{"Coffer": {wall: .25, cpu: .02, mib: 20.4}, "b": {wall: .5, cpu: .1, mib: 9}}, nil},
	}
}

func TestMarkdownTable(t *testing.T) {
	want := `| job | Coffer | a | b | limit | time | processor | of limit |
|---|---|---|---|---|---|---|---|
| read, MiB/s (s/GiB, MiB) | 1024 (0.50, 100) | 512 (2.00, 50) | 256 (1.00, 20) | 2048 | 2.00 | 4.00 | 0.50 |
| reads <4 KiB>, reads/s (ms/read, MiB) | 500 (1.00, 30); 1.0 requests, 4 KiB | > 120 s |  |  | | | |
| mount, s (s, MiB) | 0.25 (0.02, 20) |  | 0.50 (0.10, 9) |  | 2.00 | 5.00 | |
`
	if got := markdownTable(sampleRows(), []string{"Coffer", "a", "b", "limit"}, []string{"limit"}); got != want {
		t.Errorf("the table is\n%s\nwant\n%s", got, want)
	}
}

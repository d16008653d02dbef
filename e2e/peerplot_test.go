package e2e

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The plot has a panel of throughput and one of processor seconds, side by
// side, with the same rows: long bars are good on the left and bad on the
// right. Hand-made SVG: forty lines for what a library brings fonts, rasters
// and a dependency.
const (
	plotLeft  = 8   // pixels beside the first panel
	plotPanel = 430 // of each panel, of which the longest bar has
	plotBar   = 360
	plotLine  = 13 // of each bar
)

var plotColours = []string{"#1f6f4a", "#d08770", "#5e81ac", "#81a1c1", "#b48ead", "#9a9a9a", "#c8c8c8"}

// writePlot draws those rows that are of bytes.
func writePlot(w io.Writer, rows []row, columns []string) error {
	var body strings.Builder
	var most, dearest float64
	for _, r := range rows {
		for _, name := range columns {
			if f, ok := r.cells[name]; ok && r.unit == byBytes && f.problem == "" {
				most, dearest = max(most, r.rate(f)), max(dearest, r.cost(f))
			}
		}
	}
	right := plotLeft + plotPanel
	text := func(x, y int, class, s string) {
		fmt.Fprintf(&body, `<text x="%d" y="%d" class="%s">`, x, y, cmp.Or(class, "t"))
		_ = xml.EscapeText(&body, []byte(s)) // a strings.Builder takes all
		body.WriteString("</text>\n")
	}
	bar := func(x, y int, colour string, value, longest float64) {
		if value <= 0 {
			return
		}
		n := int(plotBar * value / longest)
		fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", x, y, n, plotLine-2, colour)
		text(x+n+4, y+plotLine-4, "", short(value))
	}
	y := 20
	text(plotLeft, y, "h", "throughput, MiB/s")
	text(right, y, "h", "processor of the daemon, s/GiB")
	y += 12
	for _, r := range rows {
		if r.unit != byBytes {
			continue
		}
		text(plotLeft, y+plotLine-4, "", r.name) // above its bars: some names are long
		y += plotLine
		for i, name := range columns {
			f, ok := r.cells[name]
			if !ok || f.problem != "" {
				continue
			}
			colour := plotColours[i%len(plotColours)]
			bar(plotLeft, y, colour, r.rate(f), most)
			bar(right, y, colour, r.cost(f), dearest)
			y += plotLine
		}
		y += 8
	}
	for i, name := range columns {
		x := plotLeft + i*125
		fmt.Fprintf(&body, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/>`+"\n", x, y, plotColours[i%len(plotColours)])
		text(x+14, y+9, "", name)
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d">
<style>text{font:11px sans-serif;fill:#333}.h{font-weight:bold}</style>
<rect width="100%%" height="100%%" fill="#fff"/>
%s</svg>
`, max(right+plotPanel, plotLeft+125*len(columns)), y+20, body.String())
	return err
}

func TestPlot(t *testing.T) {
	var got strings.Builder
	must(t, writePlot(&got, sampleRows(), []string{"Coffer", "a", "b", "limit"}))
	golden := filepath.Join("testdata", "plot.svg")
	if os.Getenv("COFFER_GOLDEN") == "1" {
		must(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got.String() != string(want) {
		t.Errorf("the plot is\n%s", got.String())
	}
	for d := xml.NewDecoder(strings.NewReader(got.String())); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

package fs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// L is a look-up of a small file, B of a large one, E of an empty one, r a read; of
// each look-up h and G tell what was asked.
func TestReadBurst(t *testing.T) {
	for name, tt := range map[string]struct{ events, asked string }{
		"every file is read":             {strings.Repeat("Lr", 12), "hhhhhhhhGGGG"},
		"by eight at a time":             {strings.Repeat("LLLLLLLLrrrrrrrr", 3), "hhhhhhhhGGGGGGGGGGGGGGGG"},
		"none is read":                   {strings.Repeat("L", 20), strings.Repeat("h", 20)},
		"every other one":                {strings.Repeat("LLr", 12), strings.Repeat("h", 24)},
		"read again and again":           {strings.Repeat("Lrrrrrr", 4) + strings.Repeat("L", 20), strings.Repeat("h", 24)},
		"ls -l after it":                 {strings.Repeat("Lr", 40) + strings.Repeat("L", 45), strings.Repeat("h", 8) + strings.Repeat("G", 65) + strings.Repeat("h", 12)},
		"and reading again after ls -l":  {strings.Repeat("L", 100) + strings.Repeat("Lr", 200), ""},
		"a single one that is not read":  {strings.Repeat("Lr", 12) + "L" + strings.Repeat("Lr", 4), "hhhhhhhhGGGGGGGGG"},
		"a large one begins anew":        {strings.Repeat("Lr", 10) + "B" + strings.Repeat("Lr", 10), "hhhhhhhhGGG" + "hhhhhhhhGG"},
		"only large ones":                {strings.Repeat("Br", 20), strings.Repeat("h", 20)},
		"empty ones say nothing":         {strings.Repeat("LrE", 12), strings.Repeat("h", 15) + strings.Repeat("G", 9)},
		"what was not asked for is read": {strings.Repeat("r", 100) + strings.Repeat("L", 20), strings.Repeat("h", 20)},
	} {
		var b readBurst
		var asked strings.Builder
		for _, e := range tt.events {
			if e == 'r' {
				b.didRead()
				continue
			}
			if b.wantsWhole() {
				asked.WriteByte('G')
			} else {
				asked.WriteByte('h')
			}
			b.found(map[rune]int64{'L': wholeMax, 'B': wholeMax + 1, 'E': 0}[e])
			require.LessOrEqual(t, b.read, b.asked, name)
		}
		if tt.asked == "" {
			require.True(t, strings.HasSuffix(asked.String(), "GGGG"), name)
			require.NotContains(t, asked.String()[:100], "G", name)
			continue
		}
		require.Equal(t, tt.asked, asked.String(), name)
	}
}

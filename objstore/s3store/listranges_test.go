package s3store

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

// keyStyles are ways in which programs name many objects.
var keyStyles = map[string]func(i int, rnd *rand.Rand) string{
	"numbers":       func(i int, _ *rand.Rand) string { return fmt.Sprintf("d/img-%07d.jpg", i) },
	"plain numbers": func(i int, _ *rand.Rand) string { return fmt.Sprintf("d/%d", i) },
	"hashes": func(i int, _ *rand.Rand) string {
		return fmt.Sprintf("d/%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
	},
	"base64": func(i int, _ *rand.Rand) string {
		s := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		return "d/" + base64.URLEncoding.EncodeToString(s[:9])
	},
	"clustered": func(i int, _ *rand.Rand) string { return fmt.Sprintf("d/%c-%04d", 'a'+i%3*7, i) },
	"dates": func(i int, _ *rand.Rand) string {
		return time.Unix(int64(i)*7200, 0).UTC().Format("d/2006-01-02T15:04:05")
	},
	"not ASCII":      func(i int, _ *rand.Rand) string { return fmt.Sprintf("d/日本%03d-ä", i) },
	"many in groups": func(i int, _ *rand.Rand) string { return fmt.Sprintf("d/g%03d/%02d", i/7, i%7) },
	"groups of all lengths": func(i int, rnd *rand.Rand) string {
		return "d/" + strings.Repeat("ab/"[i%3:i%3+1], 1+rnd.IntN(4)) + fmt.Sprint(i)
	},
	"anything": func(_ int, rnd *rand.Rand) string {
		b := make([]byte, 1+rnd.IntN(6))
		for i := range b {
			b[i] = "/-.09azAZ~"[rnd.IntN(10)]
		}
		return "d/" + string(b)
	},
}

// TestRangesAreTheListing: a listing that is split has every key once, in order,
// whatever keys are called.
func TestRangesAreTheListing(t *testing.T) {
	for name, key := range keyStyles {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			keys := []string{"a/before", "d0"}
			for i := range 500 {
				keys = append(keys, key(i, rnd))
			}
			slices.Sort(keys)
			keys = slices.Compact(keys)
			for i, q := range []objstore.Query{{Prefix: "d/"}, {Prefix: "d/", Delimiter: "/"}, {}, {Prefix: "d/", Delimiter: "/", StartAfter: keys[len(keys)/3]}} {
				cfg := Config{ListVersion: fmt.Sprint(1 + i%2)}
				// The answer is that of the same store when it is near.
				want := list(t, against(t, cfg, (&lister{keys: keys}).ServeHTTP), q)
				far := &lister{keys: keys, most: 20, takes: slowPage + 2*time.Millisecond}
				require.Equal(t, want, list(t, against(t, cfg, far.ServeHTTP), q))
			}
		})
	}
}

// TestRangesPay: where keys are spread evenly several pages are asked for at a time,
// and few more of them. What that saves depends on what else the machine does.
func TestRangesPay(t *testing.T) {
	for _, style := range []string{"numbers", "hashes", "base64"} {
		t.Run(style, func(t *testing.T) {
			var keys []string
			for i := range 4000 {
				keys = append(keys, keyStyles[style](i, nil))
			}
			slices.Sort(keys)
			l := &lister{keys: keys, most: 50, takes: 2 * slowPage}
			b := against(t, Config{}, l.ServeHTTP)
			require.Equal(t, keys, list(t, b, objstore.Query{Prefix: "d/", Delimiter: "/"}))
			require.LessOrEqual(t, int(l.asked.Load()), len(keys)/l.most*3/2+rangesAhead+2)
			require.Greater(t, int(l.atMost.Load()), 2)
		})
	}
}

// TestRangesOfWhatIsNear: a store that answers at once, or one that is asked for
// little, is asked for one page after the other.
func TestRangesOfWhatIsNear(t *testing.T) {
	var page []objstore.Entry
	for _, k := range manyKeys(1000) {
		page = append(page, objstore.Entry{Key: k})
	}
	s := newSplitting(objstore.Query{}, 0)
	for i, took := range []time.Duration{0, slowPage, slowPage - 1, slowPage, 0} {
		require.True(t, s.goesOn(page, took), "page %d", i)
	}
	require.True(t, s.goesOn(page, slowPage))
	require.False(t, s.goesOn(page, slowPage), "two slow pages in a row")
	require.True(t, newSplitting(objstore.Query{}, badSplits).never)

	keys := manyKeys(3000)
	l := &lister{keys: keys, most: 100, takes: slowPage}
	b := against(t, Config{}, l.ServeHTTP)
	require.Equal(t, keys[:900], list(t, b, objstore.Query{Limit: 900}))
	require.LessOrEqual(t, int(l.atMost.Load()), 2)
}

// TestRangesAheadAreBounded: what nobody consumes is not listed.
func TestRangesAheadAreBounded(t *testing.T) {
	l := &lister{keys: manyKeys(20_000), most: 100, takes: slowPage}
	b := against(t, Config{}, l.ServeHTTP)
	taken := 0
	for _, err := range b.List(t.Context(), objstore.Query{}) {
		require.NoError(t, err)
		if taken++; taken == 1000 {
			time.Sleep(30 * slowPage)
			break
		}
	}
	require.LessOrEqual(t, int(l.told.Load()), taken+objstore.ListAhead*l.most/listPage)
	require.Zero(t, l.atOnce.Load(), "requests are under way when the listing has ended")
}

// TestRangesThatFail: the error of a range ahead is that of the listing only when
// it is met again where the listing has come to.
func TestRangesThatFail(t *testing.T) {
	keys := manyKeys(3000)
	var once atomic.Bool
	l := &lister{keys: keys, most: 100, takes: slowPage, refuses: func(after string) bool {
		return after >= keys[1000] && !once.Swap(true) || after >= keys[2500]
	}}
	b := against(t, Config{}, l.ServeHTTP)
	n := 0
	for e, err := range b.List(t.Context(), objstore.Query{}) {
		if err != nil {
			require.ErrorIs(t, err, objstore.Permission)
			break
		}
		require.Equal(t, l.keys[n], e.Key)
		n++
	}
	require.GreaterOrEqual(t, n, 2400)
	require.LessOrEqual(t, n, 2600)
}

func TestGuess(t *testing.T) {
	numbers := func(format string, from, to int) (keys []string) {
		for i := from; i < to; i++ {
			keys = append(keys, fmt.Sprintf(format, i))
		}
		return keys
	}
	for name, c := range map[string]struct {
		prefix, delimiter string
		sample            []string
		want              []string
	}{
		"numbers":                 {"d/", "/", numbers("d/img-%07d.jpg", 1000, 3000), []string{"d/img-0005999", "d/img-0008999", "d/img-0011999"}},
		"an ending":               {"", "", numbers("f%05d.jpg", 5990, 6090), []string{"f09089"}},
		"a carry":                 {"", "", numbers("f%05d", 6000, 8000), []string{"f10999", "f13999"}},
		"the last number":         {"", "", numbers("f%04d", 6000, 8000), []string{""}},
		"hexadecimal":             {"x/", "", numbers("x/%08x/data", 0x1000, 0x17d0), []string{"x/00002387", "x/00002f3f"}},
		"one key":                 {"", "", []string{"a"}, nil},
		"the same":                {"", "", []string{"a", "a"}, nil},
		"no place for a number":   {"ab", "", []string{"ab", "ab"}, nil},
		"a place with one letter": {"", "", []string{"a-", "a-a"}, nil},
	} {
		g := newGuess(c.prefix, c.delimiter, c.sample, 3000)
		if g == nil || c.want == nil {
			if g != nil || c.want != nil {
				t.Errorf("%s: %+v, want %q", name, g, c.want)
			}
			continue
		}
		last := c.sample[len(c.sample)-1]
		for _, want := range c.want {
			got := g.next(last)
			if got != want && !(want != "" && strings.HasPrefix(got, want)) {
				t.Errorf("%s: behind %q comes %q, want %q", name, last, got, want)
			}
			last = got
		}
	}
}

// FuzzGuess: guesses ascend, lie behind the sample and end.
func FuzzGuess(f *testing.F) {
	f.Add("d/a1", "d/a2", "d/b", "/", 30)
	f.Add("日本", "日本0", "日本9", "", 3000)
	f.Fuzz(func(t *testing.T, a, b, c, delimiter string, apart int) {
		if len(delimiter) > 1 || apart < 1 {
			return
		}
		sample := []string{a, b, c}
		slices.Sort(sample)
		g := newGuess("", delimiter, sample, apart)
		if g == nil {
			return
		}
		last := c
		if last = sample[2]; delimiter != "" && strings.Contains(last, delimiter) {
			return // groups are listed as their names
		}
		for range 1000 {
			next := g.next(last)
			if next == "" {
				return
			}
			if next <= last || delimiter != "" && strings.Contains(next, delimiter) {
				t.Fatalf("%q follows %q", next, last)
			}
			last = next
		}
	})
}

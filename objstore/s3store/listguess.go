package s3store

import (
	"maps"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

// guess extrapolates keys. They are taken for numbers of some digits, each place of
// which has an alphabet of its own, and for as far apart as those of a sample were.
//
//	prefix/img-0001500.jpg     the sample's first key
//	prefix/img-0003499.jpg     its last
//	       ^^^^                only these letters are seen here: never counted up
//	           ^^^^^^^         digits
//	              ^            the first place that differs in the sample
//
// Some places behind the first that differs are enough.
type guess struct {
	head      string   // what stands before the number
	alphabets []string // of each place, sorted
	at, step  uint64
	delimiter string
}

// guessPlaces is how many places are looked at behind the first that differs.
const guessPlaces = 4

// newGuess returns a guess of keys that are so many apart, from a sample of
// neighbours, and nil where it says nothing.
func newGuess(prefix, delimiter string, sample []string, apart int) *guess {
	if len(sample) < 2 {
		return nil
	}
	first, last := sample[0], sample[len(sample)-1]
	differ := len(prefix)
	for differ < len(first) && differ < len(last) && first[differ] == last[differ] {
		differ++
	}
	end := min(differ+guessPlaces, len(last))
	seen := make([]map[byte]bool, end) // from len(prefix) on
	varying := map[byte]bool{}         // of places with more than one letter
	for i := len(prefix); i < end; i++ {
		seen[i] = map[byte]bool{}
		for _, k := range sample {
			if i < len(k) {
				seen[i][k[i]] = true
			}
		}
		if len(seen[i]) > 1 {
			maps.Copy(varying, seen[i])
		}
	}
	letters := alphabetOf(varying)
	g := &guess{delimiter: delimiter}
	begin, size := end, uint64(1)
	for begin > len(prefix) {
		a := placeAlphabet(seen[begin-1], letters)
		over, room := bits.Mul64(size, uint64(len(a)))
		if over > 0 || room >= 1<<62 {
			break
		}
		size = room
		begin--
		g.alphabets = append(g.alphabets, a)
	}
	slices.Reverse(g.alphabets)
	g.head = last[:begin]
	if begin > differ || !strings.HasPrefix(first, g.head) {
		return nil
	}
	from, to := g.number(first[begin:]), g.number(last[begin:])
	if from >= to {
		return nil
	}
	over, product := bits.Mul64(to-from, uint64(apart))
	if over > 0 {
		return nil
	}
	g.at, g.step = to, product/uint64(len(sample)-1)
	if g.step == 0 {
		return nil
	}
	return g
}

// alphabetOf returns the letters of which those that were seen are probably some.
func alphabetOf(seen map[byte]bool) string {
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, a := range []string{digits, digits + "abcdef", digits + "ABCDEF", lower, upper, digits + lower, digits + upper, digits + upper + lower} {
		all := true
		for c := range seen {
			all = all && (strings.IndexByte(a, c) >= 0 || !isAlphanumeric(c))
		}
		if all {
			return a
		}
	}
	return ""
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// placeAlphabet returns the alphabet of a place where so much was seen.
func placeAlphabet(seen map[byte]bool, letters string) string {
	var other []byte
	for c := range seen {
		if strings.IndexByte(letters, c) < 0 {
			other = append(other, c)
		}
	}
	if len(other) < len(seen) {
		other = append(other, letters...)
	}
	slices.Sort(other)
	return string(other)
}

// number returns the number that text is, or the next below that can be told.
func (g *guess) number(text string) uint64 {
	n := uint64(0)
	for i, a := range g.alphabets {
		n *= uint64(len(a))
		if i < len(text) {
			at := strings.IndexFunc(a, func(c rune) bool { return byte(c) >= text[i] })
			if at < 0 {
				at = len(a) - 1
			}
			n += uint64(at)
		}
	}
	return n
}

// next returns the guess that follows and lies behind last, "" if there is none.
func (g *guess) next(last string) string {
	for range 64 {
		at := g.at + g.step
		text := make([]byte, len(g.alphabets))
		n := at
		for i := len(g.alphabets) - 1; i >= 0; i-- {
			size := uint64(len(g.alphabets[i]))
			text[i] = g.alphabets[i][n%size]
			n /= size
		}
		if n > 0 || at < g.at {
			return ""
		}
		g.at = at
		key := g.head + string(text)
		if d := g.delimiter; d != "" {
			// A range ends before all keys of a group or behind them.
			if i := strings.Index(string(text), d); i >= 0 {
				key = g.head + string(text[:i])
			}
		}
		if !utf8.ValidString(key) {
			return ""
		}
		if key > last {
			return key
		}
	}
	return "" // of one group after the other
}

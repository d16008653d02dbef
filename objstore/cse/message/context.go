package message

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxContext is the longest serialized encryption context, in bytes.
const MaxContext = 1<<16 - 1

const (
	reservedPrefix = "aws-crypto-"
	publicKeyName  = "aws-crypto-public-key"
)

// Context is an encryption context: pairs of names and values that are
// authenticated and not encrypted. It is immutable; the zero value is empty.
type Context struct {
	pairs []pair // ascending by the bytes of their keys, without duplicates
}

type pair struct{ key, value string }

// NewContext returns the pairs of m as a context. Keys and values are UTF-8,
// and names that begin with "aws-crypto-" are reserved by the format.
func NewContext(m map[string]string) (Context, error) {
	var c Context
	for k, v := range m {
		if strings.HasPrefix(k, reservedPrefix) {
			return Context{}, fail(Malformed, "encryption context", "the name %q is reserved", k)
		}
		c.pairs = append(c.pairs, pair{k, v})
	}
	return c.checked()
}

// checked sorts the pairs and holds them to the limits of the format.
func (c Context) checked() (Context, error) {
	slices.SortFunc(c.pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	for i, p := range c.pairs {
		if !utf8.ValidString(p.key) || !utf8.ValidString(p.value) {
			return Context{}, fail(Malformed, "encryption context", "entry %q is not UTF-8", p.key)
		}
		if i > 0 && p.key == c.pairs[i-1].key {
			return Context{}, fail(Malformed, "encryption context", "the name %q occurs twice", p.key)
		}
	}
	if c.bytes() > MaxContext {
		return Context{}, fail(TooLarge, "encryption context", "%d bytes, at most %d are possible", c.bytes(), MaxContext)
	}
	return c, nil
}

// Join returns the pairs of both. A name that both have is an error.
func (c Context) Join(d Context) (Context, error) {
	return Context{pairs: slices.Concat(c.pairs, d.pairs)}.checked()
}

// Len is the number of pairs.
func (c Context) Len() int { return len(c.pairs) }

// Get returns the value of a name.
func (c Context) Get(key string) (value string, ok bool) {
	i, ok := slices.BinarySearchFunc(c.pairs, key, func(p pair, key string) int { return strings.Compare(p.key, key) })
	if !ok {
		return "", false
	}
	return c.pairs[i].value, true
}

// All yields the pairs in ascending order of their keys.
func (c Context) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, p := range c.pairs {
			if !yield(p.key, p.value) {
				return
			}
		}
	}
}

// bytes is the length of what Append appends.
func (c Context) bytes() int {
	if len(c.pairs) == 0 {
		return 0
	}
	n := 2
	for _, p := range c.pairs {
		n += 4 + len(p.key) + len(p.value)
	}
	return n
}

// Append appends the serialized form, without its length: what headers hold,
// and what keyrings authenticate beside a wrapped key. An empty context is no
// bytes at all.
func (c Context) Append(dst []byte) []byte {
	if len(c.pairs) == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(c.pairs)))
	for _, p := range c.pairs {
		dst = appendField(dst, p.key)
		dst = appendField(dst, p.value)
	}
	return dst
}

// appendField appends s after its length, which fits.
func appendField[T string | []byte](dst []byte, s T) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// parseContext reads the serialized form: count pairs that fill r to its end.
func parseContext(r *reader) (Context, error) {
	at := r.off
	count, err := r.u16("number of entries")
	if err != nil {
		return Context{}, err
	}
	if count == 0 {
		return Context{}, r.malformed(at, "an empty encryption context has no bytes at all")
	}
	var c Context
	for i := range count {
		at := r.off
		r.item = int(i)
		key, err := r.field("name of entry")
		if err != nil {
			return Context{}, err
		}
		value, err := r.field("value of entry")
		if err != nil {
			return Context{}, err
		}
		if !utf8.Valid(key) || !utf8.Valid(value) {
			return Context{}, r.malformed(at, "entry %d of the encryption context is not UTF-8", i)
		}
		if i > 0 {
			switch last := c.pairs[len(c.pairs)-1].key; strings.Compare(last, string(key)) {
			case 0:
				return Context{}, r.malformed(at, "entry %d of the encryption context has the name of the one before", i)
			case 1:
				return Context{}, r.malformed(at, "entry %d of the encryption context is out of order", i)
			}
		}
		c.pairs = append(c.pairs, pair{string(key), string(value)})
	}
	if r.off != r.end {
		return Context{}, r.malformed(r.off, "%d bytes after the last entry of the encryption context", r.end-r.off)
	}
	return c, nil
}

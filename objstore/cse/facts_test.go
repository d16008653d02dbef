package cse

import (
	"bytes"
	"testing"
)

// FuzzFacts: what is no fact is found out, and what is one says one thing only.
func FuzzFacts(f *testing.F) {
	f.Add([]byte{0, 0, 4, 0x78, 0, 0, 4, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 1, 5, 0x78, 0, 0, 2, 0xd2, 0, 0, 0x10, 0, 0, 0, 0, 105})
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		was, ok := formOfFact(p)
		if !ok {
			return
		}
		if again, ok := was.fact(); !ok || !bytes.Equal(again, p) {
			t.Errorf("%x tells %+v, of which the fact is %x", p, was, again)
		}
	})
}

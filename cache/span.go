package cache

import (
	"context"
	"sync/atomic"
)

// Span is the answer to a read: slices of pinned blocks. The bytes may be read
// until Release and never changed.
type Span struct {
	blocks   []*Block
	slices   [][]byte
	n        int
	released atomic.Bool

	// A read of a kernel touches at most two blocks: one allocation in all.
	blocks2 [2]*Block
	slices2 [2][]byte
}

// newSpan returns a span that has room for the blocks of n bytes at off.
func newSpan(off int64, n int, blockBytes int64) *Span {
	s := &Span{n: n}
	count := int((off+int64(n)-1)/blockBytes - off/blockBytes + 1)
	if count <= len(s.blocks2) {
		s.blocks, s.slices = s.blocks2[:count], s.slices2[:count]
	} else {
		s.blocks, s.slices = make([]*Block, count), make([][]byte, count)
	}
	return s
}

// Slices returns the bytes in order. The slices belong to the span.
func (s *Span) Slices() [][]byte { return s.slices }

// Len returns the number of bytes.
func (s *Span) Len() int { return s.n }

// CopyTo copies the bytes to p and returns how many fitted.
func (s *Span) CopyTo(p []byte) int {
	n := 0
	for _, b := range s.slices {
		n += copy(p[n:], b)
	}
	return n
}

// Release unpins the blocks. It may be called more than once and by any
// goroutine.
func (s *Span) Release() {
	if s.released.Swap(true) {
		return
	}
	for _, b := range s.blocks {
		if b != nil {
			b.release()
		}
	}
}

// ready reports whether wait returns at once.
func (s *Span) ready(off int64) bool {
	for _, b := range s.blocks {
		if b.filled.Load() < b.needed(off+int64(s.n)) {
			return false
		}
	}
	return true
}

// needed is how many bytes of the block a read up to end waits for: those that it is
// for, and all of a part, which the tally counts as a whole.
func (b *Block) needed(end int64) int64 {
	if b.partial() {
		return int64(len(b.data))
	}
	return min(end-b.offset(), int64(len(b.data)))
}

// wait returns when the bytes of the read at off are there, and cuts the
// slices.
func (s *Span) wait(ctx context.Context, off int64) error {
	end := off + int64(s.n)
	for i, b := range s.blocks {
		start := b.offset()
		from, to := max(off-start, 0), min(end-start, int64(len(b.data)))
		if err := b.wait(ctx, b.needed(end)); err != nil {
			return err
		}
		if b.ahead {
			b.used.Store(true)
		}
		s.slices[i] = b.data[from:to:to]
	}
	return nil
}

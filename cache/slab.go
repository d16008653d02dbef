package cache

import (
	"fmt"
	"math/bits"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// minSlot is the smallest piece of a slab: a page, so that the memory of
	// a free slot can be given back to the kernel by itself.
	minSlot = 4 << 10
	// maxFreeSlabs bounds the list of free slabs. Reusing one saves the page
	// faults of a fresh mapping, about a fifth of the cost of filling it;
	// 64 of them carry a window of 32 MiB twice.
	maxFreeSlabs = 64
)

// slabs hands out page-aligned memory outside of the Go heap, which the
// garbage collector neither scans nor counts and core dumps leave out. Pieces
// smaller than a slab are slots of one that is cut into equal powers of two:
// a mapping of its own for every small file would meet the kernel's limit of
// 65,530 mappings. Safe for concurrent use.
type slabs struct {
	slabBytes int

	mu      sync.Mutex
	free    [][]byte   // guarded by mu; whole slabs
	partial [][]*chunk // guarded by mu; by class, chunks with a free slot
	mapped  int64      // guarded by mu; bytes of all mappings
}

// chunk is a slab that is cut into slots of one size.
type chunk struct {
	mem   []byte
	class int
	free  []int32 // guarded by slabs.mu; free slots, last one first
	at    int     // guarded by slabs.mu; index in partial, -1 when full
}

// memory is a piece of a slab. Its owner returns it exactly once.
type memory struct {
	buf   []byte // the piece; len is its whole size
	chunk *chunk // nil for a whole slab
	slot  int32
}

func newSlabs(slabBytes int) *slabs {
	return &slabs{
		slabBytes: slabBytes,
		partial:   make([][]*chunk, bits.Len(uint(slabBytes/minSlot))),
	}
}

// sizeFor returns the size of the piece that get(n) returns.
func (s *slabs) sizeFor(n int) int {
	if n <= minSlot {
		return minSlot
	}
	return 1 << bits.Len(uint(n-1))
}

// get returns at least n bytes, at most a slab. The bytes are not zeroed.
func (s *slabs) get(n int) (memory, error) {
	if n > s.slabBytes {
		panic(fmt.Sprintf("cache: a piece of %d bytes from slabs of %d", n, s.slabBytes))
	}
	size := s.sizeFor(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if size == s.slabBytes {
		buf, err := s.slab()
		return memory{buf: buf}, err
	}
	class := bits.TrailingZeros(uint(size / minSlot))
	if len(s.partial[class]) == 0 {
		buf, err := s.slab()
		if err != nil {
			return memory{}, err
		}
		c := &chunk{mem: buf, class: class}
		for i := s.slabBytes/size - 1; i >= 0; i-- {
			c.free = append(c.free, int32(i))
		}
		s.partial[class] = append(s.partial[class], c)
	}
	list := s.partial[class]
	c := list[len(list)-1]
	slot := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	if len(c.free) == 0 {
		s.partial[class] = list[:len(list)-1]
		c.at = -1
	}
	off := int(slot) * size
	return memory{buf: c.mem[off : off+size : off+size], chunk: c, slot: slot}, nil
}

// put takes a piece back. Nothing may refer to its bytes any more.
func (s *slabs) put(m memory) {
	if m.chunk != nil {
		// The other slots may stay in use for long: only what is in use shall
		// occupy memory. An error leaves the pages where they are.
		_ = unix.Madvise(m.buf, unix.MADV_DONTNEED)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := m.chunk
	if c == nil {
		s.putSlab(m.buf)
		return
	}
	c.free = append(c.free, m.slot)
	list := s.partial[c.class]
	if c.at < 0 { // it was full
		c.at = len(list)
		list = append(list, c)
	}
	if len(c.free) == s.slabBytes/len(m.buf) { // all of it is free
		last := len(list) - 1
		list[c.at] = list[last]
		list[c.at].at = c.at
		list[last] = nil
		list = list[:last]
		s.putSlab(c.mem)
	}
	s.partial[c.class] = list
}

// slab returns a free or fresh slab. Called under mu.
func (s *slabs) slab() ([]byte, error) {
	if n := len(s.free); n > 0 {
		buf := s.free[n-1]
		s.free = s.free[:n-1]
		return buf, nil
	}
	buf, err := unix.Mmap(-1, 0, s.slabBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("cache: map %d bytes of memory: %w", s.slabBytes, err)
	}
	if err := unix.Madvise(buf, unix.MADV_DONTDUMP); err != nil {
		_ = unix.Munmap(buf)
		return nil, fmt.Errorf("cache: keep memory out of core dumps: %w", err)
	}
	s.mapped += int64(s.slabBytes)
	return buf, nil
}

// putSlab keeps a slab for the next one or unmaps it. Called under mu.
func (s *slabs) putSlab(buf []byte) {
	if len(s.free) < maxFreeSlabs {
		s.free = append(s.free, buf)
		return
	}
	s.unmap(buf)
}

func (s *slabs) unmap(buf []byte) {
	if err := unix.Munmap(buf); err != nil {
		panic(fmt.Sprintf("cache: unmap a slab: %v", err)) // not a mapping of ours: memory is corrupt
	}
	s.mapped -= int64(s.slabBytes)
}

// close unmaps what is free and returns the bytes that are still in use; those
// stay mapped, because somebody may read them.
func (s *slabs) close() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, buf := range s.free {
		s.unmap(buf)
	}
	s.free = nil
	return s.mapped
}

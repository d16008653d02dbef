package cache

import (
	"hash/crc32"
	"slices"
	"sync"

	"github.com/minio/crc64nvme"

	"coffer/objstore"
)

// maxRuns bounds the memory of a tally, 24 bytes a run: a handle that reads
// here and there will not read everything.
const maxRuns = 1024

// tally compares an object with its stored checksum while a handle reads it
// piece by piece. S3 has no checksum for a range; but the CRCs of pieces make
// that of the whole. Whoever reads all of a file, in whatever order, has the
// last read fail when a bit has changed on the way.
//
// The zero value compares nothing. Safe for concurrent use.
type tally struct {
	path string // names the object in errors
	crc  objstore.CRC
	want uint64
	size int64
	sum  func(p []byte) uint64 // nil: there is nothing to compare with

	mu   sync.Mutex
	runs []run // guarded by mu; ascending, with gaps between; nil when given up
	bad  error // guarded by mu
}

// run is a stretch [from, to) of the object and the sum of its bytes.
type run struct {
	from, to int64
	sum      uint64
}

// newTally returns a tally for o, whose blocks have block bytes. An object
// of one block comes by one Get, which is checked in the store.
func newTally(path string, o objstore.Object, block int64) *tally {
	crc, want, ok := o.CRC()
	if !ok || o.Size <= block {
		return &tally{}
	}
	return &tally{path: path, crc: crc, want: want, size: o.Size, sum: sumFunc(crc), runs: make([]run, 0, 4)}
}

func sumFunc(c objstore.CRC) func([]byte) uint64 {
	if c.Bits == 64 {
		return crc64nvme.Checksum
	}
	table := crc32.MakeTable(uint32(c.Poly))
	return func(p []byte) uint64 { return uint64(crc32.Checksum(p, table)) }
}

// damaged returns what add found.
func (t *tally) damaged() error {
	if t.sum == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad
}

// add counts the bytes at off, all of a block. It returns an error when they
// are the last ones and the sum is not the stored one.
func (t *tally) add(off int64, p []byte) error {
	if t.sum == nil {
		return nil
	}
	t.mu.Lock()
	_, known := t.find(off)
	skip := known || t.runs == nil
	t.mu.Unlock()
	if skip {
		return nil
	}
	sum := t.sum(p) // outside of the lock: some 40 µs for a MiB
	t.mu.Lock()
	defer t.mu.Unlock()
	i, known := t.find(off)
	if known || t.runs == nil {
		return nil
	}
	t.runs = slices.Insert(t.runs, i, run{off, off + int64(len(p)), sum})
	t.join(i)
	if i > 0 {
		t.join(i - 1)
	}
	if len(t.runs) > maxRuns {
		t.runs = nil
		return nil
	}
	if r := t.runs[0]; r.from == 0 && r.to == t.size && r.sum != t.want {
		t.bad = integrity(t.path, "the %s of its %d bytes is %s, the stored one %s", t.crc.Name, t.size, t.crc.Text(r.sum), t.crc.Text(t.want))
	}
	return t.bad
}

// find returns where in runs a stretch at off belongs, and whether it is
// counted already. Called under mu.
func (t *tally) find(off int64) (i int, known bool) {
	i, exact := slices.BinarySearchFunc(t.runs, off, func(r run, off int64) int { return int(min(max(r.from-off, -1), 1)) })
	return i, exact || i > 0 && off < t.runs[i-1].to
}

// join makes one of runs i and i+1 when nothing lies between. Called under mu.
func (t *tally) join(i int) {
	if i+1 >= len(t.runs) || t.runs[i].to != t.runs[i+1].from {
		return
	}
	a, b := t.runs[i], t.runs[i+1]
	t.runs[i] = run{a.from, b.to, t.crc.Join(a.sum, b.sum, b.to-b.from)}
	t.runs = slices.Delete(t.runs, i+1, i+2)
}

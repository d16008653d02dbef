package cache

import (
	"cmp"
	"hash/crc32"
	"slices"
	"sync"

	"github.com/minio/crc64nvme"

	"coffer/objstore"
)

// maxRuns bounds the memory of a tally, 24 bytes a run: a handle that reads
// here and there in a large object will not read everything.
const maxRuns = 8192

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
	// size is that of the object, block that of its blocks.
	size, block int64
	sum         func(p []byte) uint64 // nil: there is nothing to compare with

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
	return &tally{path: path, crc: crc, want: want, size: o.Size, block: block, sum: sumFunc(crc), runs: make([]run, 0, 4)}
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

// add counts the bytes at off, all of a block or of a part of one. What was
// counted before is not counted again; where it lies within p it must be the
// same. add returns an error when it is not, and when the bytes are the last
// ones and the sum is not the stored one. known returns the sum of p, if somebody
// may have it already.
func (t *tally) add(off int64, p []byte, known func() uint64) error {
	if t.sum == nil {
		return nil
	}
	end := off + int64(len(p))
	for _, r := range t.within(off, end) {
		if t.sum(p[r.from-off:r.to-off]) != r.sum {
			return t.condemn("its %d bytes at %d came in two versions", r.to-r.from, r.from)
		}
	}
	for {
		from, to := t.gap(off, end)
		if from == to {
			return nil
		}
		var sum uint64 // outside of the lock: it takes some 40 µs for a MiB
		if known != nil && from == off && to == end {
			sum = known()
		} else {
			sum = t.sum(p[from-off : to-off])
		}
		if err := t.insert(run{from, to, sum}); err != nil {
			return err
		}
	}
}

// counted reports whether all of [off, end) is counted, or nothing counts.
func (t *tally) counted(off, end int64) bool {
	if t.sum == nil {
		return true
	}
	from, to := t.gap(off, end)
	return from == to
}

// within returns the runs that lie in [off, end), without one that is all of it.
func (t *tally) within(off, end int64) []run {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(off)
	j := i
	for j < len(t.runs) && t.runs[j].to <= end {
		j++
	}
	if j == i+1 && t.runs[i].from == off && t.runs[i].to == end {
		return nil
	}
	return slices.Clone(t.runs[i:j])
}

// gap returns the first stretch of [off, end) that is not counted, an empty
// one when all is or the tally has given up.
func (t *tally) gap(off, end int64) (from, to int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runs == nil {
		return off, off
	}
	i := t.find(off)
	if i > 0 {
		off = max(off, t.runs[i-1].to)
	}
	for ; i < len(t.runs) && t.runs[i].from <= off; i++ {
		off = t.runs[i].to
	}
	if i < len(t.runs) {
		end = min(end, t.runs[i].from)
	}
	return min(off, end), end
}

// insert adds a run, unless some of it was counted meanwhile.
func (t *tally) insert(r run) error {
	t.mu.Lock()
	i := t.find(r.from)
	if t.runs == nil || i > 0 && t.runs[i-1].to > r.from || i < len(t.runs) && t.runs[i].from < r.to {
		t.mu.Unlock()
		return nil
	}
	t.runs = slices.Insert(t.runs, i, r)
	t.join(i)
	if len(t.runs) > maxRuns {
		t.runs = nil
		t.mu.Unlock()
		return nil
	}
	all := t.runs[0]
	t.mu.Unlock()
	if all.from == 0 && all.to == t.size && all.sum != t.want {
		return t.condemn("the %s of its %d bytes is %s, the stored one %s", t.crc.Name, t.size, t.crc.Text(all.sum), t.crc.Text(t.want))
	}
	return nil
}

// condemn keeps and returns the error that says what is wrong.
func (t *tally) condemn(format string, args ...any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bad = integrity(t.path, format, args...)
	return t.bad
}

// find returns the first run that begins at off or later. Called under mu.
func (t *tally) find(off int64) int {
	i, _ := slices.BinarySearchFunc(t.runs, off, func(r run, off int64) int { return cmp.Compare(r.from, off) })
	return i
}

// join makes one of the runs beside i and run i where nothing lies between.
// What there is of a block stays by itself until it is all of it: it is to be
// compared with the block when that comes as a whole. Called under mu.
func (t *tally) join(i int) {
	for {
		switch {
		case i > 0 && t.joinable(t.runs[i-1], t.runs[i]):
			i--
		case i+1 < len(t.runs) && t.joinable(t.runs[i], t.runs[i+1]):
		default:
			return
		}
		a, b := t.runs[i], t.runs[i+1]
		t.runs[i] = run{a.from, b.to, t.crc.Join(a.sum, b.sum, b.to-b.from)}
		t.runs = slices.Delete(t.runs, i+1, i+2)
	}
}

func (t *tally) joinable(a, b run) bool {
	return a.to == b.from && (a.to%t.block != 0 || a.from%t.block == 0 && (b.to%t.block == 0 || b.to == t.size))
}

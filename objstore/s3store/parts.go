package s3store

// Limits of S3, in bytes and parts.
const (
	minPartSize   = 5 << 20 // of every part but the last
	maxPartSize   = 5 << 30 // also of a single PUT and of one CopyObject
	maxParts      = 10000
	maxObjectSize = 5 << 40
	// maxPlannedPart is the largest part that is buffered here.
	maxPlannedPart = 1 << 30
)

// partPlan tells how long each part of an upload is. Small parts come first,
// so that a small file starts to move early and needs little memory, and they
// grow so that any file fits:
//
//	parts 1 to 1,000       base   (8 MiB:   to   7.8 GiB)
//	      1,001 to 2,500   4x     (32 MiB:  to  54.7 GiB)
//	      2,501 to 5,000   16x    (128 MiB: to 367.2 GiB)
//	      5,001 to 10,000  1 GiB  (to 5.2 TiB, more than the 5 TiB of S3)
//
// A base above 64 MiB is cut at 1 GiB in the steps that multiply it.
type partPlan struct {
	base  int64
	least int64 // of every part, by the hint
}

// newPartPlan plans for parts of base bytes and, when hint is not 0, for an
// object of that length: then the parts are long from the beginning.
func newPartPlan(base, hint int64) partPlan {
	p := partPlan{base: base}
	if hint <= 0 || hint > maxObjectSize {
		return p
	}
	// Half of the parts are kept free, for hints that are too low.
	need := (hint + maxParts/2 - 1) / (maxParts / 2)
	need = (need + (1 << 20) - 1) >> 20 << 20
	if need > base {
		p.least = need
	}
	return p
}

// size returns the length in bytes of part number n, from 1.
func (p partPlan) size(n int) int64 {
	if n > 5000 {
		return maxPlannedPart // whatever was planned, the rest must fit
	}
	step := p.base
	switch {
	case n > 2500:
		step = 16 * p.base
	case n > 1000:
		step = 4 * p.base
	}
	return min(max(step, p.least), maxPlannedPart)
}

// slots returns how many parts may be in flight while another one of size
// bytes is filled: all together take no more than budget bytes or two parts.
func slots(size, budget int64, concurrency int) int {
	return int(max(1, min(int64(concurrency), budget/size-1)))
}

const (
	// copiesPerPart is how many times as many parts the store copies at a time
	// as are sent to it: 16 with the default of 4. A copy is about as fast as
	// one stream from disk to disk and costs this machine one request, so it is
	// their number that makes a large file fast; a rename of a directory has
	// twice as many copies in flight. Where one small machine is the store, its
	// work is the same whatever the number (measured with versitygw: CPU
	// seconds for 1 GiB in 2 to 64 pieces, 2 to 16 at a time, within a tenth).
	copiesPerPart = 4
	// pieceBytes is how many bytes one UploadPartCopy takes: 1 GiB fills the 16
	// places, and a request more for 64 MiB counts neither in time nor in money.
	// Shorter ones only use up part numbers, longer ones leave places empty.
	pieceBytes = 64 << 20
)

// pieces cuts n bytes of an object of about whole bytes into ranges for
// UploadPartCopy: few enough to leave part numbers for the rest, and none below
// the least length of a part. n is at least minPartSize, or 0.
func pieces(n, whole int64) []int64 {
	size := min(max(int64(pieceBytes), (max(n, whole)+maxParts/4-1)/(maxParts/4)), maxPartSize)
	count := (n + size - 1) / size
	out := make([]int64, count)
	for i := range out {
		out[i] = n / count
		if int64(i) < n%count {
			out[i]++
		}
	}
	return out
}

package cache

const (
	// minDepth is how far ahead a reader looks when it has just proved to be
	// sequential: two blocks of the usual size, so that one is on its way
	// while the other is read.
	minDepth = 2 << 20
	// maxDepth and maxRange: four ranges of 8 MiB in flight. On the machine
	// of the design's table GETs of 8 MiB gave 2.1-2.2 GiB/s one at a time
	// and 2.4-2.6 with two to four; ranges of 1 MiB cost twice the CPU.
	maxDepth = 32 << 20
	maxRange = 8 << 20
	// minForgive is how far a read may be off the expected place and still
	// belong to the stream: two requests of the kernel's default read-ahead
	// (128 KiB), which may overtake one another.
	minForgive = 256 << 10
	// maxForgive limits that for a reader with a deep window: the largest
	// kernel read-ahead that administrators set.
	maxForgive = 4 << 20
)

// window decides what to fetch before it is asked for. It is a pure state
// machine over the reads of one handle; it knows bytes and no blocks' state.
//
//	            depth (doubles, 2 MiB ... 32 MiB)
//	        |<------------------------------------->|
//	--------+-------+-------+-------+-------+-------+------> offset
//	  read  ^ hi    .  asked for    .       ^ ahead
//	                |<unit=depth/4 >|
//
// hi is the end of the furthest read of the stream, ahead the end of what has
// been asked for. When the distance falls to depth-unit, the next unit is
// asked for: about four ranges are under way at any time.
//
// A stream starts with no more than the block that it needs: many programs
// look at the head of a file and leave. The second read in a row opens the
// window. A read elsewhere closes it, and until the next two reads in a row
// only the blocks that are needed are fetched.
type window struct {
	block, size int64 // bytes of a block, of the file

	started bool
	depth   int64 // 0: closed
	hi      int64
	ahead   int64 // a multiple of block, or size
	mark    int64 // hi when depth was last changed
}

// plan is a stretch to ask for, cut into ranges of unit bytes. from and to are
// multiples of the block size, or the end of the file; equal when there is
// nothing to ask for.
type plan struct{ from, to, unit int64 }

// read takes note of a read of n > 0 bytes at off, within the file, and
// returns what to ask for beyond the blocks of that read.
func (w *window) read(off, n int64) plan {
	end := off + n
	// Large requests are overtaken by more bytes than small ones.
	forgive := max(minForgive, 4*n, min(w.depth, maxForgive))
	switch {
	case !w.started:
		w.started = true
		if off > forgive {
			w.jump(end)
			return plan{}
		}
		// The head of the file, or what overtook the read of its head.
		w.jump(end)
		w.depth = w.minDepth()
		return plan{}
	case off > max(w.hi, w.ahead)+forgive || end < w.hi-forgive:
		w.jump(end)
		return plan{}
	case w.depth == 0 && off > w.hi+forgive:
		w.jump(end) // a closed window has nothing ahead to excuse this
		return plan{}
	case end <= w.hi:
		return plan{} // overtaken by a later piece of the stream
	}
	w.hi = end
	switch {
	case w.depth == 0:
		w.depth, w.mark = w.minDepth(), end
	case end-w.mark >= w.unit():
		w.depth, w.mark = min(2*w.depth, maxDepth), end
	}
	w.ahead = max(w.ahead, w.roundUp(end))
	return w.next()
}

// next returns the stretch that fills the window, if a unit of it is open.
func (w *window) next() plan {
	unit := w.unit()
	room := w.hi + w.depth - w.ahead
	if room < unit || w.ahead >= w.size {
		return plan{}
	}
	p := plan{from: w.ahead, to: min(w.ahead+room/unit*unit, w.size), unit: unit}
	w.ahead = p.to
	return p
}

// jump closes the window at a read that ends at end.
func (w *window) jump(end int64) {
	w.depth, w.hi, w.mark = 0, end, end
	w.ahead = w.roundUp(end)
}

// refused takes note that there was no memory for what was asked for from
// offset at on: it will be asked for again, by a smaller window.
func (w *window) refused(at int64) {
	w.depth = max(w.depth/2, w.minDepth())
	w.mark = w.hi
	w.ahead = max(min(w.ahead, at), w.roundUp(w.hi))
}

func (w *window) minDepth() int64 { return max(minDepth, 2*w.block) }

// unit is the length of one range: a quarter of the window, whole blocks.
func (w *window) unit() int64 {
	u := min(w.depth/4, maxRange)
	return max(u-u%w.block, w.block)
}

// covers reports whether the block at off is one that the window waits for.
// Blocks a little behind hi count: the kernel's requests overtake each other.
func (w *window) covers(off int64) bool {
	return w.depth > 0 && off < w.ahead && off+w.block > w.hi-maxForgive
}

func (w *window) roundUp(off int64) int64 {
	return min((off+w.block-1)/w.block*w.block, w.size)
}

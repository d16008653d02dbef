package cache

import "time"

const (
	// minDepth is how far ahead a reader looks when it has just proved to be
	// sequential: two blocks of the usual size, so that one is on its way
	// while the other is read.
	minDepth = 2 << 20
	// calmDepth and maxRange: four ranges of 16 MiB in flight. On two cores that
	// server, daemon and reader share, they took a fifth of the server's processor
	// less than ranges of 8 MiB and two fifths less than those of 4 MiB, and two to
	// four at a time were as fast as any number.
	calmDepth = 4 * maxRange
	maxRange  = 16 << 20
	// maxDepth carries a link of 2 GB/s of which a connection gets 90 MB/s
	// after 30 ms: a range of deepRange takes 123 ms, so that 30 of them must be
	// under way. Longer ones would take more memory.
	maxDepth  = 30 * deepRange
	deepRange = 8 << 20
	// slowRange is how long one of maxRange takes where a connection is slow.
	slowRange = 50 * time.Millisecond
	// minForgive is how far a read may be off the expected place and still
	// belong to an open stream: two requests of the kernel's default
	// read-ahead (128 KiB), which may overtake one another.
	minForgive = 256 << 10
	// maxForgive limits that for a reader with a deep window: the largest
	// kernel read-ahead that administrators set.
	maxForgive = 4 << 20
	// maxStreams is how many places of one handle are read in order at a
	// time: the parallel readers of one descriptor.
	maxStreams = 8
	// maxStrides is how many reads of a strided pattern are under way.
	maxStrides = 16
	// denseReads reads in one of the last windowSeen blocks that were read
	// sparsely make it worth all of its bytes.
	denseReads = 3
	windowSeen = 16
)

// window decides what to fetch before it is asked for. It is a pure state
// machine over the reads of one handle; it knows bytes and no blocks' state.
//
//	            depth (doubles, 2 MiB ... 240 MiB)
//	        |<------------------------------------->|
//	--------+-------+-------+-------+-------+-------+------> offset
//	  read  ^ hi    .  asked for    .       ^ ahead
//	                |<unit=depth/4 >|
//
// hi is the end of the furthest read of a stream, ahead the end of what has
// been asked for. When the distance falls to depth-unit, the next unit is
// asked for. A stream that runs backwards is the same in the mirror.
//
// A stream starts with no more than the block that it needs: many programs
// look at the head of a file and leave. Elsewhere the first read of a block is
// sparse and the second one gets all of it, and the window opens when more than
// a block has been read in order, the kernel's own read-ahead not counted. The
// depth doubles when the reader has had to wait; beyond calmDepth only while that
// does not slow the ranges down by a quarter, for then it is not latency that the
// reader waits for.
//
// Reads that belong to no stream are sparse: nothing but their pages is
// fetched, unless they come back to the same block. Those at equal distances
// are fetched ahead, just as sparsely.
type window struct {
	block, size int64 // bytes of a block, of the file

	streams []stream // the latest first
	seen    [windowSeen]struct{ index, bytes, reads int64 }
	next    int // of seen, to be overwritten
	stride  stride
	stalls  int64
	link    link
}

// stream is a place that is read in order.
type stream struct {
	down   bool  // it runs backwards
	depth  int64 // 0: closed
	start  int64 // of its first read
	lo, hi int64 // of what was read; in a stream down only lo moves, else hi
	ahead  int64 // what has been asked for ends here; a multiple of block, or size
	mark   int64 // lo or hi when depth was last changed
	n      int64 // bytes of the last read
	backs  int   // reads in a row that ended where the one before began
	stalls int64 // window.stalls when depth was last changed
	// A depth beyond calmDepth is a trial: link.mean was before and
	// link.samples trial when it began. limit is what proved useless.
	before float64
	trial  int64
	limit  int64 // 0: none
}

// stride notes reads at equal distances.
type stride struct {
	off, n, delta int64
	repeats       int64
	asked         int64 // how many reads beyond off are asked for already
}

// link is how fast ranges come: their time in nanoseconds a byte.
type link struct {
	best, mean float64
	samples    int64
}

// plan is a stretch to ask for, cut into ranges of unit bytes. from and to are
// multiples of the block size, or the end of the file; equal when there is
// nothing to ask for. When the read is sparse, only its own pages are to be
// fetched for it, and not all of the blocks that it touches; then there may be
// sparse reads to come: count of unit bytes each, from from on, step apart.
type plan struct {
	from, to, unit int64
	sparse         bool
	step, count    int64
}

// read takes note of a read of n > 0 bytes at off, within the file, and
// returns what to ask for beyond that read.
func (w *window) read(off, n int64) plan {
	end := off + n
	i := w.match(off, n)
	if i < 0 {
		head := len(w.streams) == 0 && off <= max(minForgive, 4*n)
		s := w.begin(off, n)
		switch {
		case head: // the head of the file, or what overtook the read of it
			w.open(s, s.hi)
			return plan{}
		case w.size <= w.block:
			return plan{}
		}
		return w.elsewhere(s, off, n)
	}
	w.toFront(i)
	s := &w.streams[0]
	s.n = n
	if s.down {
		return w.backward(s, off)
	}
	switch {
	case s.depth == 0 && off < s.lo && end <= s.lo:
		s.backs++
		s.lo = off
		if s.backs > 1 {
			s.down = true
			s.ahead = off / w.block * w.block
			w.open(s, off)
			return w.backward(s, off)
		}
		return plan{}
	case end <= s.hi:
		return plan{} // overtaken by a later piece of the stream
	}
	fresh := (end-1)/w.block > (s.hi-1)/w.block
	s.hi, s.backs = end, 0
	s.ahead = max(s.ahead, w.roundUp(end))
	if s.depth == 0 {
		if s.hi-s.start <= w.block+minForgive {
			return plan{sparse: fresh} // it may end here
		}
		w.open(s, s.hi)
	} else {
		w.grow(s, s.hi-s.mark, s.hi)
	}
	unit := w.unit(s)
	room := s.hi + s.depth - s.ahead
	if room < unit || s.ahead >= w.size {
		return plan{}
	}
	p := plan{from: s.ahead, to: min(s.ahead+room/unit*unit, w.size), unit: unit}
	s.ahead = p.to
	return p
}

// backward is read for a stream that runs backwards.
func (w *window) backward(s *stream, off int64) plan {
	s.lo = min(s.lo, off)
	s.ahead = min(s.ahead, s.lo/w.block*w.block)
	w.grow(s, s.mark-s.lo, s.lo)
	unit := w.unit(s)
	room := s.ahead - (s.lo - s.depth)
	if room < unit || s.ahead <= 0 {
		return plan{}
	}
	p := plan{from: max(s.ahead-room/unit*unit, 0), to: s.ahead, unit: unit}
	s.ahead = p.from
	return p
}

// elsewhere is read for a read that belongs to no stream before s.
func (w *window) elsewhere(s *stream, off, n int64) plan {
	d := &w.stride
	delta := off - d.off
	if n == d.n && delta == d.delta {
		d.repeats++
		d.asked = max(d.asked-1, 0)
	} else {
		d.repeats, d.asked = 0, 0
	}
	d.off, d.n, d.delta = off, n, delta
	regular := d.repeats > 1
	if regular && delta > 0 && delta < w.block {
		// So many of its bytes are read that it is a stream with gaps.
		w.open(s, s.hi)
		return plan{}
	}
	if regular && max(delta, -delta) >= w.block {
		p := plan{sparse: true, from: off + (d.asked+1)*delta, unit: n, step: delta}
		p.count = min(2*d.repeats, maxStrides) - d.asked
		for p.count > 0 && !(p.from+(p.count-1)*delta >= 0 && p.from+(p.count-1)*delta+n <= w.size) {
			p.count--
		}
		p.count = max(p.count, 0)
		d.asked += p.count
		return p
	}
	index := off / w.block
	for i := range w.seen {
		b := &w.seen[i]
		if b.index == index && b.reads > 0 {
			b.reads++
			b.bytes += n
			return plan{sparse: b.reads < denseReads && b.bytes < w.block/2}
		}
	}
	b := &w.seen[w.next]
	w.next = (w.next + 1) % windowSeen
	b.index, b.bytes, b.reads = index, n, 1
	return plan{sparse: true}
}

// match returns the stream that a read belongs to, the nearest one, or -1.
func (w *window) match(off, n int64) int {
	found, least := -1, int64(0)
	for i := range w.streams {
		s := &w.streams[i]
		// Large requests are overtaken by more bytes than small ones.
		forgive := 4 * max(n, s.n)
		if s.depth > 0 {
			forgive = max(forgive, minForgive, min(s.depth, maxForgive))
		}
		distance := off - s.hi
		if s.down {
			distance = s.lo - (off + n)
		} else if s.depth == 0 && off+n <= s.lo {
			distance = s.lo - (off + n) // it may run backwards
		}
		if distance < 0 {
			distance = max(-distance-n, 0)
		}
		if distance <= forgive && (found < 0 || distance < least) {
			found, least = i, distance
		}
	}
	return found
}

// begin makes a closed stream of a read, in the place of the oldest closed one
// or, when all are open, of the oldest one.
func (w *window) begin(off, n int64) *stream {
	if len(w.streams) < maxStreams {
		w.streams = append(w.streams, stream{})
	}
	i := len(w.streams) - 1
	for k := i; k > 0; k-- {
		if w.streams[k].depth == 0 {
			i = k
			break
		}
	}
	end := off + n
	w.streams[i] = stream{start: off, lo: off, hi: end, ahead: w.roundUp(end), n: n}
	w.toFront(i)
	return &w.streams[0]
}

func (w *window) toFront(i int) {
	s := w.streams[i]
	copy(w.streams[1:i+1], w.streams[:i])
	w.streams[0] = s
}

// open opens a stream's window at at.
func (w *window) open(s *stream, at int64) { w.setDepth(s, w.minDepth(), at) }

func (w *window) setDepth(s *stream, depth, at int64) {
	s.depth, s.mark, s.stalls = depth, at, w.stalls
	s.before, s.trial = w.link.mean, w.link.samples
}

// grow doubles a stream's depth when its reader has waited, after it has read
// so much with the present one. Ranges that take twice as long when there are
// twice as many have filled the link, or the processor.
func (w *window) grow(s *stream, read, at int64) {
	if s.depth >= calmDepth {
		if w.link.samples < s.trial+s.depth/w.unit(s) {
			return // not known yet
		}
		if s.depth > calmDepth && w.link.mean > 1.25*s.before {
			s.limit = max(s.depth/2, calmDepth)
			w.setDepth(s, s.limit, at)
			return
		}
		if w.link.mean > 2*w.link.best || s.depth == s.limit {
			return
		}
	}
	if read >= w.unit(s) && w.stalls > s.stalls && s.depth < maxDepth {
		w.setDepth(s, min(2*s.depth, maxDepth), at)
	}
}

// stalled takes note that a read has to wait for bytes.
func (w *window) stalled() { w.stalls++ }

// fetched takes note of how long a range took that was fetched ahead.
func (w *window) fetched(bytes int64, took time.Duration) {
	if bytes < minDepth/2 {
		return
	}
	t := float64(took) / float64(bytes)
	if w.link.best == 0 || t < w.link.best {
		w.link.best = t
	}
	if bytes < deepRange/2 {
		return // latency weighs more in it than in a long one
	}
	if w.link.samples == 0 {
		w.link.mean = t
	}
	w.link.samples++
	w.link.mean += (t - w.link.mean) / 4
}

// refused takes note that there was no memory for what was asked for from
// offset at on: it will be asked for again, by a smaller window, no larger
// than share, which is the stream's when all have the same.
func (w *window) refused(at, share int64) {
	for i := range w.streams {
		s := &w.streams[i]
		switch {
		case s.depth == 0:
		case !s.down && s.hi <= at && at < s.ahead:
			w.setDepth(s, w.lessThan(s.depth, share), s.hi)
			s.ahead = max(at, w.roundUp(s.hi))
			return
		case s.down && s.ahead <= at && at < s.lo:
			w.setDepth(s, w.lessThan(s.depth, share), s.lo)
			s.ahead = s.lo / w.block * w.block
			return
		}
	}
}

// lessThan returns three quarters of a depth or share, whole blocks.
func (w *window) lessThan(depth, share int64) int64 {
	return max(min(depth*3/4, share)/w.block*w.block, w.minDepth())
}

// streaming reports whether the last read belongs to an open stream.
func (w *window) streaming() bool { return len(w.streams) > 0 && w.streams[0].depth > 0 }

func (w *window) minDepth() int64 { return max(minDepth, 2*w.block) }

// unit is the length of one range, whole blocks: a quarter of the window, unless it
// is deep, or connections are slow, and more of them faster.
func (w *window) unit(s *stream) int64 {
	u := min(s.depth/4, maxRange)
	if s.depth > calmDepth || w.link.mean*maxRange > float64(slowRange) {
		u = min(u, deepRange)
	}
	return max(u-u%w.block, w.block)
}

// awaits reports whether the block at off is one that a stream is yet to read.
func (w *window) awaits(off int64) bool {
	for i := range w.streams {
		s := &w.streams[i]
		switch {
		case s.depth == 0:
		case s.down && off+w.block > s.ahead && off < s.lo, !s.down && off < s.ahead && off+w.block > s.hi:
			return true
		}
	}
	return false
}

// covers reports whether the block at off is one that a stream waits for.
// Blocks a little behind count: the kernel's requests overtake each other.
func (w *window) covers(off int64) bool {
	for i := range w.streams {
		s := &w.streams[i]
		if s.depth == 0 {
			continue
		}
		behind := min(s.depth/4, maxForgive)
		if s.down {
			if off+w.block > s.ahead && off < s.lo+behind {
				return true
			}
		} else if off < s.ahead && off+w.block > s.hi-behind {
			return true
		}
	}
	return false
}

func (w *window) roundUp(off int64) int64 {
	return min((off+w.block-1)/w.block*w.block, w.size)
}

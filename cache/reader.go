package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"coffer/objstore"
)

// recentBlocks is how many blocks a handle keeps although it has read from
// them: the kernel asks for a block in up to eight pieces, out of order, and
// the memory tier may not want the block at all.
const recentBlocks = 4

// recentParts is how many parts of blocks a handle keeps: those that are
// fetched ahead, and a few that were read.
const recentParts = 8 + maxStrides

// Reader reads one version of one object for one handle. Safe for concurrent
// use: the kernel sends the reads of one handle in parallel.
type Reader struct {
	c    *Cache
	src  Getter
	ref  objstore.Ref
	size int64
	key  Key    // of the object's blocks; Index is to be set
	name []byte // key's name up to the index

	ctx    context.Context // ends with Close; no caller's context lives in it
	cancel context.CancelFunc
	wg     sync.WaitGroup // fetches
	tally  *tally

	mu      sync.Mutex
	closed  bool                // guarded by mu
	streams bool                // guarded by mu; counted in Cache.streaming
	win     window              // guarded by mu
	held    map[int64]*Block    // guarded by mu; by index, retained
	recent  [recentBlocks]int64 // guarded by mu; indexes, the latest first; -1 is none
	parts   []*Block            // guarded by mu; parts of blocks, the latest last, retained
}

// request is what a read needs of the object, [off, end): the blocks that it
// touches or, when it is sparse, its own pages only.
type request struct {
	off, end int64
	sparse   bool
}

// OpenReader returns a reader of ref, of which o tells size and checksum.
// ref.ETag names the version: every Get asks for it, and blocks are shared
// between readers of the same version. Without an ETag nothing is shared, and only the length
// protects from mixing versions. The caller closes the reader.
func (c *Cache) OpenReader(src Getter, ref objstore.Ref, o objstore.Object) *Reader {
	key := Key{Store: c.cfg.StoreID, Bucket: ref.Bucket, Key: ref.Key, ETag: ref.ETag}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Reader{
		c: c, src: src, ref: ref, size: max(o.Size, 0), ctx: ctx, cancel: cancel,
		win:  window{block: c.cfg.BlockBytes, size: max(o.Size, 0)},
		held: map[int64]*Block{},
	}
	r.tally = newTally(r.path(), o, c.cfg.BlockBytes)
	for i := range r.recent {
		r.recent[i] = -1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ref.ETag == "" {
		c.views++
		key.View = fmt.Sprintf("handle %d", c.views)
	} else if view := c.damaged[key]; view > 0 {
		key.View = fmt.Sprintf("again %d", view)
	}
	r.key = key
	r.name = key.appendName(nil)
	r.name = r.name[:len(r.name)-keyTail]
	c.readers[r] = struct{}{}
	return r
}

// Size returns the length of the object in bytes.
func (r *Reader) Size() int64 { return r.size }

// Ref returns the version that is read.
func (r *Reader) Ref() objstore.Ref { return r.ref }

// ReadAt returns n bytes at off, fewer only at the end of the object; at or
// beyond the end the span is empty and pins nothing. The caller releases the
// span. ctx ends the wait of this call and nothing else: a fetch that others
// share goes on.
//
// Errors: kind Stale when the store has another version by now or none, Integrity when
// its answer contradicts the version's length or ETag, and from the read on
// that completes the object when its checksum is another; TooLarge when n exceeds
// [Cache.MaxRead], Canceled after Close or with ctx, and what the Getter says.
// No other error is remembered: the next read asks again.
func (r *Reader) ReadAt(ctx context.Context, off int64, n int) (*Span, error) {
	if off < 0 || n < 0 {
		return nil, &objstore.Error{Op: "read", Key: r.path(), Kind: objstore.InvalidRange, Err: fmt.Errorf("%d bytes at %d", n, off)}
	}
	if off >= r.size || n == 0 {
		return &Span{}, nil
	}
	n = int(min(int64(n), r.size-off))
	if n > r.c.MaxRead() {
		return nil, &objstore.Error{Op: "read", Key: r.path(), Kind: objstore.TooLarge, Err: fmt.Errorf("%d bytes at once, the memory budget allows %d", n, r.c.MaxRead())}
	}
	if err := r.tally.damaged(); err != nil {
		return nil, err
	}
	g := grant{budget: r.c.pool.budget}
	defer g.close()
	r.mu.Lock()
	p := r.win.read(off, int64(n))
	if !r.streams && !r.closed && r.win.streaming() {
		r.streams = true
		r.c.streaming.Add(1)
	}
	r.mu.Unlock()
	q := request{off: off, end: off + int64(n), sparse: p.sparse && !r.onDisk(off, n)}
	for {
		s, err := r.begin(ctx, q, &g)
		if err != nil {
			return nil, err
		}
		r.prefetch(p)
		p = plan{} // it is asked for
		if !s.ready(off) {
			r.mu.Lock()
			r.win.stalled()
			r.mu.Unlock()
		}
		err = s.wait(ctx, off)
		if err == nil {
			err = r.count(s, q.end)
		}
		if err == nil {
			r.keep(s)
			r.c.stats.read.Add(int64(n))
			return s, nil
		}
		s.Release()
		if !errors.Is(err, errAbandoned) {
			return nil, err
		}
	}
}

// begin pins the blocks of a read; those that nobody has are being fetched
// when it returns.
func (r *Reader) begin(ctx context.Context, q request, g *grant) (*Span, error) {
	for {
		s := newSpan(q.off, int(q.end-q.off), r.c.cfg.BlockBytes)
		missing, err := r.lookup(s, q)
		if err != nil {
			s.Release()
			return nil, err
		}
		if missing == 0 || g.take(missing) {
			if missing > 0 {
				err = r.fetchMissing(s, q, g)
			}
			if err != nil {
				s.Release()
				return nil, err
			}
			return s, nil
		}
		// Wait with nothing pinned and for all that the read can need, or
		// readers could wait in a ring for what the others hold.
		s.Release()
		need := int64(0)
		for i := range s.blocks {
			need += r.cost(r.keyOf(q, i))
		}
		if err := g.wait(ctx, need); err != nil {
			return nil, named("read", r.path(), err)
		}
	}
}

// grant is a piece of the budget on its way from Acquire to the blocks.
type grant struct {
	budget *Budget
	n      int64
}

// take makes the grant at least n bytes large if that needs no wait.
func (g *grant) take(n int64) bool {
	if g.n < n {
		if !g.budget.tryDemand(n - g.n) {
			return false
		}
		g.n = n
	}
	return true
}

// wait gives back what there is and waits for n bytes.
func (g *grant) wait(ctx context.Context, n int64) error {
	g.close()
	err := g.budget.Acquire(ctx, n)
	if err == nil {
		g.n = n
	}
	return err
}

func (g *grant) close() {
	g.budget.Release(g.n)
	g.n = 0
}

// lookup pins what is held, under way or cached of the span's blocks, and
// returns the cost of those that are missing.
func (r *Reader) lookup(s *Span, q request) (missing int64, err error) {
	first := q.off / r.c.cfg.BlockBytes
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return 0, closedError("read", r.path())
	}
	var drop []*Block
	hits := 0
	for i := range s.blocks {
		index := first + int64(i)
		b := r.held[index]
		if b == nil {
			b = r.heldPart(r.keyOf(q, i))
		} else if b.failed() {
			delete(r.held, index)
			drop = append(drop, b)
			b = nil
		}
		if b == nil {
			continue
		}
		b.retain()
		s.blocks[i] = b
		hits++
	}
	r.mu.Unlock()
	releaseAll(drop)

	r.c.stats.hits.Add(int64(hits))
	if hits == len(s.blocks) {
		return 0, nil
	}
	for i := range s.blocks {
		if s.blocks[i] != nil {
			continue
		}
		key := r.keyOf(q, i)
		if s.blocks[i] = r.find(key); s.blocks[i] == nil {
			missing += r.cost(key)
		}
	}
	return missing, nil
}

// heldPart returns a part of a block that is held and covers that of key, or
// nil. Called under mu.
func (r *Reader) heldPart(key Key) *Block {
	for _, b := range r.parts {
		if p := b.key.Part; b.key.Index == key.Index && key.Part != (Part{}) && p.From <= key.Part.From && key.Part.To <= p.To && !b.failed() {
			return b
		}
	}
	return nil
}

// find returns the block if it is under way or cached, retained, or nil.
func (r *Reader) find(key Key) *Block {
	b, cached := r.search(key)
	switch {
	case cached:
		r.c.stats.hits.Add(1)
	case b != nil:
		r.c.stats.joins.Add(1)
	}
	return b
}

// search is find without statistics. All of a block is as good as the part that is
// asked for.
func (r *Reader) search(key Key) (b *Block, cached bool) {
	if key.Part != (Part{}) {
		all := key
		all.Part = Part{}
		if b, cached = r.search(all); b != nil {
			return b, cached
		}
	}
	if b = r.c.fly.join(key); b != nil {
		return b, false
	}
	b = r.c.tier.get(key, key.nameIn(r.name))
	return b, b != nil
}

// prefetch starts what the window asks for, as far as there is memory to spare.
func (r *Reader) prefetch(p plan) {
	for i := range p.count {
		at := p.from + i*p.step
		if !r.fetchAhead(request{off: at, end: at + p.unit, sparse: true}) {
			r.c.stats.refused.Add(1)
			return
		}
	}
	for at := p.from; at < p.to; at += p.unit {
		if !r.fetchAhead(request{off: at, end: min(at+p.unit, p.to)}) {
			r.c.stats.refused.Add(1)
			r.mu.Lock()
			r.win.refused(at, r.c.share())
			r.mu.Unlock()
			return
		}
	}
}

// count tells the tally of the blocks that a read up to end has come to the
// end of, or to what was counted before, and of parts of blocks at once. When
// the object turns out to be damaged, the next reader asks for all of it anew.
func (r *Reader) count(s *Span, end int64) error {
	for _, b := range s.blocks {
		from := b.offset()
		if to := from + int64(len(b.data)); end < to && !b.partial() && !r.tally.counted(end, to) {
			continue
		}
		var known func() uint64
		if b.crc == r.tally.crc {
			known = b.checksum
		}
		if err := r.tally.add(from, b.data, known); err != nil {
			key := r.key
			key.View = ""
			r.c.mu.Lock()
			r.c.views++
			r.c.damaged[key] = r.c.views
			r.c.mu.Unlock()
			if r.c.disk != nil {
				r.c.disk.forget(key, (r.size+r.c.cfg.BlockBytes-1)/r.c.cfg.BlockBytes)
			}
			r.relieve(true)
			return err
		}
	}
	return nil
}

// keep notes that the blocks of a span were read, and lets go of held blocks
// that neither the window nor the recent reads need.
func (r *Reader) keep(s *Span) {
	var drop []*Block
	r.mu.Lock()
	changed := false
	for _, b := range s.blocks {
		if b.partial() {
			changed = changed || !slices.Contains(r.parts, b)
			continue
		}
		changed = r.touch(b.key.Index) || r.held[b.key.Index] == nil || changed
	}
	if changed && !r.closed {
		// When somebody queues for memory, only what is read in pieces is kept
		// until the last of them: else it would be fetched again for each.
		contended := r.c.pool.budget.Contended()
		for _, b := range s.blocks {
			switch {
			case contended && (b.partial() || !r.win.awaits(b.offset())):
			case b.partial():
				drop = r.keepPart(b, drop)
			case r.held[b.key.Index] == nil:
				b.retain()
				r.held[b.key.Index] = b
			}
		}
		drop = append(drop, r.sweep()...)
	}
	r.mu.Unlock()
	releaseAll(drop)
}

// keepPart holds a part of a block instead of the oldest one, which it appends
// to drop. Called under mu.
func (r *Reader) keepPart(b *Block, drop []*Block) []*Block {
	if slices.Contains(r.parts, b) {
		return drop
	}
	b.retain()
	r.parts = append(r.parts, b)
	if len(r.parts) > recentParts {
		drop = append(drop, r.parts[0])
		r.parts = slices.Delete(r.parts, 0, 1)
	}
	return drop
}

// touch moves an index to the front of the recent ones and reports whether it
// was not among them. Called under mu.
func (r *Reader) touch(index int64) bool {
	prev := index
	for i, x := range r.recent {
		r.recent[i] = prev
		if x == index {
			return false
		}
		prev = x
	}
	return true
}

// sweep removes the held blocks that are not needed any more. Called under mu;
// the caller releases them after unlocking.
func (r *Reader) sweep() (drop []*Block) {
outer:
	for index, b := range r.held {
		if r.win.covers(index * r.c.cfg.BlockBytes) {
			continue
		}
		for _, x := range r.recent {
			if x == index {
				continue outer
			}
		}
		delete(r.held, index)
		drop = append(drop, b)
	}
	return drop
}

// relieve lets go of everything that is held, or of what no stream waits for.
func (r *Reader) relieve(all bool) {
	r.mu.Lock()
	var drop []*Block
	if all {
		drop = r.dropHeld()
	} else {
		for index, b := range r.held {
			if !r.win.awaits(index * r.c.cfg.BlockBytes) {
				delete(r.held, index)
				drop = append(drop, b)
			}
		}
	}
	r.mu.Unlock()
	releaseAll(drop)
}

// dropHeld empties held; the caller releases the result after unlocking.
// Called under mu.
func (r *Reader) dropHeld() []*Block {
	drop := r.parts
	r.parts = nil
	for _, b := range r.held {
		drop = append(drop, b)
	}
	clear(r.held)
	for i := range r.recent {
		r.recent[i] = -1 // what is not held shall count as new
	}
	return drop
}

// Close ends the reader's fetches, waits for them and lets go of its blocks.
// Spans stay valid until they are released. Reads that wait return an error.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.wg.Wait()
		return nil
	}
	r.closed = true
	if r.streams {
		r.c.streaming.Add(-1)
	}
	drop := r.dropHeld()
	r.mu.Unlock()
	r.cancel()
	releaseAll(drop)
	r.wg.Wait()
	r.c.mu.Lock()
	delete(r.c.readers, r)
	r.c.mu.Unlock()
	return nil
}

// path names the object in errors.
func (r *Reader) path() string { return r.ref.Bucket + "/" + r.ref.Key }

// pieces returns how many blocks a request touches.
func (r *Reader) pieces(q request) int {
	return int((q.end-1)/r.c.cfg.BlockBytes - q.off/r.c.cfg.BlockBytes + 1)
}

// keyOf returns the key of the i-th block of a request, or of the part of it
// that is needed.
func (r *Reader) keyOf(q request, i int) Key {
	key := r.key
	key.Index = q.off/r.c.cfg.BlockBytes + int64(i)
	if !q.sparse {
		return key
	}
	start, length := key.Index*r.c.cfg.BlockBytes, int64(r.length(key))
	from := max(q.off-start, 0) / minSlot * minSlot
	to := min((q.end-start+minSlot-1)/minSlot*minSlot, length)
	if to-from < length {
		key.Part = Part{From: int32(from), To: int32(to)}
	}
	return key
}

// length returns the bytes of the block with this key.
func (r *Reader) length(key Key) int {
	if key.Part != (Part{}) {
		return int(key.Part.To - key.Part.From)
	}
	return int(min(r.c.cfg.BlockBytes, r.size-key.Index*r.c.cfg.BlockBytes))
}

// cost returns what that block takes from the budget.
func (r *Reader) cost(key Key) int64 { return r.c.pool.cost(r.length(key)) }

func releaseAll(blocks []*Block) {
	for _, b := range blocks {
		b.release()
	}
}

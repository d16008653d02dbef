package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"coffer/objstore"
)

// fetchMissing fills the gaps of a span with blocks that are being fetched.
// The grant covers their cost.
func (r *Reader) fetchMissing(s *Span, q request, g *grant) error {
	for i := 0; i < len(s.blocks); {
		if s.blocks[i] != nil {
			i++
			continue
		}
		j := i + 1
		for j < len(s.blocks) && s.blocks[j] == nil {
			j++
		}
		if err := r.launch(q, i, s.blocks[i:j], &g.n, false); err != nil {
			return err
		}
		i = j
	}
	return nil
}

// fetchAhead fetches what nobody has of q and keeps it for the reads to come.
// It returns false when there is no memory for it.
func (r *Reader) fetchAhead(q request) bool {
	blocks := make([]*Block, r.pieces(q))
	defer func() { r.hold(blocks) }()
	for i := 0; i < len(blocks); {
		if blocks[i] == nil {
			blocks[i] = r.present(r.keyOf(q, i))
		}
		if blocks[i] != nil {
			i++
			continue
		}
		j, cost := i+1, r.cost(r.keyOf(q, i))
		for ; j < len(blocks); j++ {
			if blocks[j] == nil { // else found when a longer run was tried
				blocks[j] = r.present(r.keyOf(q, j))
			}
			if blocks[j] != nil {
				break
			}
			cost += r.cost(r.keyOf(q, j))
		}
		// Half a range is better than none.
		for !r.takeAhead(cost) {
			if j-i <= 1 {
				return false
			}
			j = i + (j-i)/2
			cost = 0
			for k := i; k < j; k++ {
				cost += r.cost(r.keyOf(q, k))
			}
		}
		r.c.stats.prefetch.Add(cost)
		err := r.launch(q, i, blocks[i:j], &cost, true)
		r.c.pool.budget.Release(cost)
		if err != nil {
			return false
		}
		i = j
	}
	return true
}

// takeAhead takes memory for what is fetched ahead: free memory or, so that a
// deep window is possible in a small budget, that of the oldest cached blocks.
func (r *Reader) takeAhead(n int64) bool {
	b := r.c.pool.budget
	return b.TryAcquire(n) || !b.Contended() && r.c.tier.give(n) && b.TryAcquire(n)
}

// present is find for blocks that nobody waits for: what is held counts as well, and
// statistics do not.
func (r *Reader) present(key Key) *Block {
	r.mu.Lock()
	b := r.held[key.Index]
	if b == nil || b.failed() {
		b = r.heldPart(key)
	}
	if b != nil {
		b.retain()
	}
	r.mu.Unlock()
	if b == nil {
		b, _ = r.search(key)
	}
	return b
}

// hold takes over the references to blocks that were fetched ahead. They are
// let go at once when somebody queues for memory; then only the tier may keep
// them.
func (r *Reader) hold(blocks []*Block) {
	var drop []*Block
	r.mu.Lock()
	keep := !r.closed && !r.c.pool.budget.Contended()
	for _, b := range blocks {
		switch {
		case b == nil:
		case keep && b.partial():
			drop = append(r.keepPart(b, drop), b) // it has a reference of its own
		case keep && r.held[b.key.Index] == nil:
			r.held[b.key.Index] = b
		default:
			drop = append(drop, b)
		}
	}
	r.mu.Unlock()
	releaseAll(drop)
}

// passing reports whether what is fetched for q is not worth the memory tier. Of a
// stream through more than that holds, every block would be gone before it is read
// again, and the memory that it takes is cold when it is used again: a third of the
// processor of a cold read of 1 GiB.
func (r *Reader) passing(q request) bool { return !q.sparse && r.size > r.c.tier.limit }

// launch fills out with retained blocks for q, from its block i on, and starts
// a fetch for every run of them that nobody else is fetching. What the new
// blocks cost is taken off granted.
func (r *Reader) launch(q request, i int, out []*Block, granted *int64, ahead bool) error {
	own := make([]*Block, 0, len(out))
	var spare []*Block
	var failure error
	for k := range out {
		key := r.keyOf(q, i+k)
		b, err := r.c.pool.newBlock(key, r.length(key), ahead)
		if err != nil {
			failure = &objstore.Error{Op: "read", Key: r.path(), Kind: objstore.Unknown, Err: err}
			break
		}
		b.passing, b.crc = r.passing(q), r.tally.crc
		*granted -= int64(len(b.mem.buf)) // the block gives it back
		if other := r.c.fly.claim(b); other != nil {
			out[k] = other
			spare = append(spare, b)
			continue
		}
		b.retain() // one for the fetch, one for out
		out[k] = b
		own = append(own, b)
	}
	releaseAll(spare)
	r.c.stats.misses.Add(int64(len(own)))
	for i := 0; i < len(own); {
		j := i + 1
		for j < len(own) && own[j].offset() == own[j-1].offset()+int64(len(own[j-1].data)) {
			j++
		}
		r.start(own[i:j:j])
		i = j
	}
	return failure
}

// start runs the fetch of a run of claimed blocks in a goroutine that belongs
// to the reader.
func (r *Reader) start(blocks []*Block) {
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.wg.Add(1)
	}
	r.mu.Unlock()
	if closed {
		r.land(blocks, errAbandoned)
		return
	}
	go func() {
		defer r.wg.Done()
		ctx, cancel := context.WithTimeout(r.ctx, r.c.cfg.FetchTimeout)
		defer cancel()
		begun := time.Now()
		asked, err := r.obtain(ctx, blocks)
		if err == nil && asked && blocks[0].ahead {
			last := blocks[len(blocks)-1]
			r.mu.Lock()
			r.win.fetched(last.offset()+int64(len(last.data))-blocks[0].offset(), time.Since(begun))
			r.mu.Unlock()
		}
		if err != nil && r.ctx.Err() != nil {
			err = errAbandoned
		}
		if err != nil && !errors.Is(err, errAbandoned) {
			r.c.stats.fetchErrors.Add(1)
			err = named("read", r.path(), err)
			// Nobody may be waiting for it; who is gets the error as well.
			r.c.cfg.Logger.Debug("fetch failed", "object", r.path(), "offset", blocks[0].offset(), "blocks", len(blocks), "error", err)
		}
		r.land(blocks, err)
	}()
}

// land ends the flight of blocks: complete ones go to the memory tier, others
// fail. After an answer that contradicts itself none of its bytes is trusted.
func (r *Reader) land(blocks []*Block, err error) {
	discard := errors.Is(err, objstore.Integrity) || errors.Is(err, objstore.Stale)
	if !discard {
		r.c.offer(blocks)
	}
	r.c.fly.land(blocks)
	// Only now: a waiter that tries again must not meet the failed block.
	for _, b := range blocks {
		if err != nil && (discard || !b.complete()) {
			b.fail(err, discard)
		}
	}
	releaseAll(blocks)
}

// offer offers those blocks that are complete to the tiers. What passes waits for
// nothing: while it does its memory is not free, and a stream that is read on at
// once would be refused what it fetches ahead.
func (c *Cache) offer(blocks []*Block) {
	added := false
	for _, b := range blocks {
		if !b.complete() {
			continue
		}
		if !b.passing {
			c.tier.add(b)
			added = true
		}
		if c.disk != nil {
			c.disk.offer(b)
		}
	}
	if added {
		c.tier.settle()
	}
}

// fill transfers a run of blocks by one Get.
func (r *Reader) fill(ctx context.Context, blocks []*Block) (err error) {
	from := blocks[0].offset()
	length := int64(0)
	for _, b := range blocks {
		length += int64(len(b.data))
	}
	// An object that fits one Get is asked for without a range: only then
	// does a store send the checksum of what it sends.
	rng := objstore.Range{Offset: from, Length: length}
	if length == r.size {
		rng = objstore.Range{}
	}
	body, obj, err := r.src.Get(ctx, r.ref, objstore.GetOptions{Range: rng})
	if objstore.KindOf(err) == objstore.NotExist {
		// The version was there when the reader was opened.
		return &objstore.Error{Op: "read", Key: r.path(), Kind: objstore.Stale, Err: err}
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := body.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	if err := r.check(obj); err != nil {
		return err
	}
	got := int64(0)
	for i, b := range blocks {
		last := i == len(blocks)-1
		for at := 0; at < len(b.data); {
			n, err := body.Read(b.data[at:])
			at += n
			got += int64(n)
			r.c.stats.fetched.Add(int64(n))
			if last && at == len(b.data) {
				// The last bytes are published when the end has proved right.
				if err := ended(body, err); err != nil {
					return r.wrongEnd(err, from, got, length)
				}
				b.advance(n)
				return nil
			}
			if n > 0 {
				b.advance(n)
			}
			if err != nil && at < len(b.data) || err != nil && !last {
				return r.wrongEnd(err, from, got, length)
			}
		}
	}
	return nil
}

// check compares what the store says of the object with the version that was
// asked for: servers exist that ignore If-Match.
func (r *Reader) check(obj objstore.Object) error {
	if r.ref.ETag != "" && obj.ETag != "" && obj.ETag != r.ref.ETag {
		return &objstore.Error{Op: "read", Key: r.path(), Kind: objstore.Stale, Err: fmt.Errorf("the store answered with version %q, not %q", obj.ETag, r.ref.ETag)}
	}
	if obj.SizeKnown && obj.Size != r.size {
		return integrity(r.path(), "the object has %d bytes, not %d", obj.Size, r.size)
	}
	return nil
}

var errTooLong = errors.New("the body goes on")

// ended returns nil when a body whose bytes are all there ends here; err is
// what came with the last of them.
func ended(body io.Reader, err error) error {
	var one [1]byte
	for tries := 0; err == nil; tries++ {
		var n int
		if n, err = body.Read(one[:]); n > 0 {
			return errTooLong
		}
		if tries > 100 {
			return io.ErrNoProgress
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// wrongEnd classifies what ended a body at the wrong place.
func (r *Reader) wrongEnd(err error, from, got, want int64) error {
	switch {
	case err == errTooLong:
		return integrity(r.path(), "the body of %d bytes at %d goes on after them", want, from)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && objstore.KindOf(err) == objstore.Unknown:
		return integrity(r.path(), "the body ended after %d of %d bytes at %d", got, want, from)
	}
	return err
}

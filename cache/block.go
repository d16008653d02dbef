package cache

import (
	"container/list"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"coffer/objstore"
)

// Key is the identity of a block. Two blocks with equal keys hold equal bytes.
type Key struct {
	// Store is endpoint and region.
	Store, Bucket, Key string
	// ETag is the version of the object.
	ETag objstore.ETag
	// View tells how the bytes were made from the stored ones: "" as they
	// are, else what was needed to see them (a customer key, a message).
	View string
	// Index is the block's offset in blocks.
	Index int64
	// Part is what there is of the block; the zero value is all of it.
	Part Part
}

// Part is a stretch [From, To) of a block, in bytes. A read that belongs to
// no stream fetches its pages only, as a small Block with a key of its own.
type Part struct{ From, To int32 }

// keyTail is the length of what appendTail appends.
const keyTail = 16

// appendTail appends what distinguishes the blocks of one object.
func (k Key) appendTail(p []byte) []byte {
	p = binary.BigEndian.AppendUint64(p, uint64(k.Index))
	p = binary.BigEndian.AppendUint32(p, uint32(k.Part.From))
	return binary.BigEndian.AppendUint32(p, uint32(k.Part.To))
}

// appendName appends the key as one string of bytes. Every text is preceded by
// its length, so that no two keys have one name.
func (k Key) appendName(p []byte) []byte {
	for _, s := range [...]string{k.Store, k.Bucket, k.Key, string(k.ETag), k.View} {
		p = binary.AppendUvarint(p, uint64(len(s)))
		p = append(p, s...)
	}
	return k.appendTail(p)
}

// nameIn returns the name of k, given what appendName makes of it without
// its tail: an object's blocks differ in that only.
func (k Key) nameIn(object []byte) string {
	p := make([]byte, 0, 256)
	p = append(p, object...)
	return string(k.appendTail(p))
}

// Block is a piece of one object version. It is filled once, from front to
// back, and what is filled never changes. Everybody who keeps a Block holds a
// reference; its memory goes back when the last one is released.
type Block struct {
	key  Key
	data []byte // the bytes; len is the block's length, from mem
	mem  memory
	pool *pool
	// ahead tells that it was fetched before anybody asked for it, passing that
	// it is of a stream through more than the memory tier holds.
	ahead, passing bool
	// crc is the object's checksum, zero where it has none, sum that of data once
	// summed: see checksum.
	crc    objstore.CRC
	sum    atomic.Uint64
	summed atomic.Bool
	used   atomic.Bool   // somebody read from it
	aged   *list.Element // guarded by tier.mu; nil outside of the tier

	refs   atomic.Int64
	filled atomic.Int64 // data[:filled] is valid

	mu      sync.Mutex
	err     error         // guarded by mu; why it will not be filled further
	waiters []blockWaiter // guarded by mu
}

type blockWaiter struct {
	need int64
	wake chan struct{}
}

// pool is where blocks get their memory: counted first, then mapped.
type pool struct {
	budget *Budget
	slabs  *slabs
	stats  *counters
}

// cost returns what a block of n bytes takes from the budget.
func (p *pool) cost(n int) int64 { return int64(p.slabs.sizeFor(n)) }

// newBlock returns an empty block of n bytes with one reference. The caller
// has acquired its cost; the block gives it back.
func (p *pool) newBlock(key Key, n int, ahead bool) (*Block, error) {
	mem, err := p.slabs.get(n)
	if err != nil {
		return nil, err
	}
	b := &Block{key: key, data: mem.buf[:n:n], mem: mem, pool: p, ahead: ahead}
	b.refs.Store(1)
	return b, nil
}

// retain adds a reference to a block of which the caller holds one.
func (b *Block) retain() {
	if b.refs.Add(1) <= 1 {
		panic("cache: a block was retained after its last release")
	}
}

// tryRetain adds a reference unless the last one is gone already.
func (b *Block) tryRetain() bool {
	for {
		n := b.refs.Load()
		if n <= 0 {
			return false
		}
		if b.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release gives a reference back, and the memory with the last one.
func (b *Block) release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("cache: a block was released more often than retained")
	}
	if b.ahead && !b.used.Load() {
		b.pool.stats.wasted.Add(b.filled.Load())
	}
	cost := int64(len(b.mem.buf))
	b.pool.slabs.put(b.mem)
	b.pool.budget.Release(cost)
}

// offset returns where in the object the block begins.
func (b *Block) offset() int64 {
	return b.key.Index*int64(b.pool.slabs.slabBytes) + int64(b.key.Part.From)
}

// partial reports whether b is a part of a block.
func (b *Block) partial() bool { return b.key.Part != Part{} }

// complete reports whether all bytes are there.
func (b *Block) complete() bool { return b.filled.Load() == int64(len(b.data)) }

// checksum returns the crc of a complete block. It is summed once, while the bytes
// are as they came; on disk it stays with them.
func (b *Block) checksum() uint64 {
	if !b.summed.Load() {
		b.setChecksum(sumFunc(b.crc)(b.data))
	}
	return b.sum.Load()
}

func (b *Block) setChecksum(sum uint64) {
	b.sum.Store(sum)
	b.summed.Store(true)
}

// advance publishes n more bytes. Called by the one goroutine that fills.
func (b *Block) advance(n int) {
	filled := b.filled.Add(int64(n))
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.waiters[:0]
	for _, w := range b.waiters {
		if w.need <= filled {
			close(w.wake)
		} else {
			kept = append(kept, w)
		}
	}
	clear(b.waiters[len(kept):])
	b.waiters = kept
}

// fail ends the filling: who waits gets err, and so does whoever comes later
// for bytes that are not there. With discard the bytes that are there are
// taken back as well.
func (b *Block) fail(err error, discard bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	if discard {
		b.filled.Store(0)
	}
	for _, w := range b.waiters {
		close(w.wake)
	}
	b.waiters = nil
}

// failed reports whether the block will never be complete.
func (b *Block) failed() bool {
	if b.complete() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err != nil
}

// wait returns nil as soon as data[:need] is valid.
func (b *Block) wait(ctx context.Context, need int64) error {
	for b.filled.Load() < need {
		b.mu.Lock()
		if b.filled.Load() >= need {
			b.mu.Unlock()
			return nil
		}
		if b.err != nil {
			b.mu.Unlock()
			return b.err
		}
		w := blockWaiter{need: need, wake: make(chan struct{})}
		b.waiters = append(b.waiters, w)
		b.mu.Unlock()
		select {
		case <-w.wake:
		case <-ctx.Done():
			b.forget(w)
			return canceled("read", b.key.Bucket+"/"+b.key.Key, ctx)
		}
	}
	return nil
}

// forget removes a waiter that gave up.
func (b *Block) forget(w blockWaiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiters {
		if b.waiters[i].wake == w.wake {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			return
		}
	}
}

// String names the block for a log.
func (b *Block) String() string {
	return fmt.Sprintf("%s/%s@%s[%d]%v", b.key.Bucket, b.key.Key, b.key.ETag, b.key.Index, b.key.Part)
}

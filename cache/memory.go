package cache

import (
	"container/list"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// tierItemOverhead is what a cached block costs beside its bytes: the Block,
// its key's strings and the entries in ristretto's maps, roughly.
const tierItemOverhead = 512

// maxGive bounds how many blocks are dropped at a time.
const maxGive = 64

// tier keeps complete blocks in memory, as many as its share allows.
// ristretto decides which ones are worth it.
//
// Its Set is asynchronous and may drop the value; whoever needs a block gets
// it from the flight, never from here. The tier owns one reference to every
// block that it was given and releases it when the block leaves for whatever
// reason: evicted, refused, dropped or cleared.
type tier struct {
	cache *ristretto.Cache[string, *Block]
	limit int64        // bytes
	floor int64        // give leaves as many
	bytes atomic.Int64 // cost of what is inside, the queue included

	mu  sync.Mutex
	age *list.List // guarded by mu; of *Block, the oldest first
}

// newTier returns a tier for about limit bytes. The caller closes it after all
// its users have stopped: Close races with Set inside of ristretto.
func newTier(limit, blockBytes int64) (*tier, error) {
	t := &tier{limit: limit, floor: limit / 5, age: list.New()}
	// Ten counters an item are ristretto's advice. Files may be much smaller
	// than a block; 100,000 counters take about 300 KiB.
	counters := max(10*limit/blockBytes, 100_000)
	c, err := ristretto.NewCache(&ristretto.Config[string, *Block]{
		NumCounters:        counters,
		MaxCost:            limit,
		BufferItems:        64,
		IgnoreInternalCost: true, // tierItemOverhead stands for it
		// A second block with the same name has the same bytes: keep the old
		// one, and let OnExit release the new one.
		ShouldUpdate: func(cur, prev *Block) bool { return false },
		OnExit: func(b *Block) {
			if b == nil { // an eviction that lost a race inside of ristretto
				return
			}
			t.left(b)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: memory tier: %w", err)
	}
	t.cache = c
	return t, nil
}

// get returns the block with this key, retained, or nil. name is key's name.
func (t *tier) get(key Key, name string) *Block {
	b, ok := t.cache.Get(name)
	if !ok || b == nil || b.key != key || !b.tryRetain() {
		return nil
	}
	return b
}

// add offers a complete block; the caller keeps its own reference.
func (t *tier) add(b *Block) {
	b.retain()
	cost := int64(len(b.mem.buf))
	t.bytes.Add(cost)
	t.mu.Lock()
	if b.aged == nil { // else it was added twice
		b.aged = t.age.PushBack(b)
	}
	t.mu.Unlock()
	if !t.cache.Set(string(b.key.appendName(nil)), b, cost+tierItemOverhead) {
		t.left(b) // OnExit is not called for a value that was dropped
	}
}

// left takes note that a block is not in the tier any more.
func (t *tier) left(b *Block) {
	t.mu.Lock()
	if b.aged != nil {
		t.age.Remove(b.aged)
		b.aged = nil
	}
	t.mu.Unlock()
	t.bytes.Add(-int64(len(b.mem.buf)))
	b.release()
}

// give drops the oldest blocks that nobody else uses, n bytes of them or more,
// and reports whether it did: a stream needs them more. What is yet to be read
// stays, and so does the floor.
func (t *tier) give(n int64) bool {
	if t.bytes.Load()-n < t.floor {
		return false
	}
	var names []string
	t.mu.Lock()
	for e := t.age.Front(); e != nil && n > 0 && len(names) < maxGive; e = e.Next() {
		if b := e.Value.(*Block); b.refs.Load() == 1 && (!b.ahead || b.used.Load()) {
			names = append(names, string(b.key.appendName(nil)))
			n -= int64(len(b.mem.buf))
		}
	}
	t.mu.Unlock()
	for _, name := range names {
		t.cache.Del(name) // ends in OnExit
	}
	return n <= 0
}

// settle waits until everything that was added is either visible or released.
func (t *tier) settle() { t.cache.Wait() }

// close releases every block.
func (t *tier) close() { t.cache.Close() }

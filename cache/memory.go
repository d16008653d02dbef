package cache

import (
	"fmt"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// tierItemOverhead is what a cached block costs beside its bytes: the Block,
// its key's strings and the entries in ristretto's maps, roughly.
const tierItemOverhead = 512

// tier keeps complete blocks in memory, as many as its share allows.
// ristretto decides which ones are worth it.
//
// Its Set is asynchronous and may drop the value; whoever needs a block gets
// it from the flight, never from here. The tier owns one reference to every
// block that it was given and releases it when the block leaves for whatever
// reason: evicted, refused, dropped or cleared.
type tier struct {
	cache *ristretto.Cache[string, *Block]
	bytes atomic.Int64 // cost of what is inside, the queue included
}

// newTier returns a tier for about limit bytes. The caller closes it after all
// its users have stopped: Close races with Set inside of ristretto.
func newTier(limit, blockBytes int64) (*tier, error) {
	t := &tier{}
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
			t.bytes.Add(-int64(len(b.mem.buf)))
			b.release()
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
	if !t.cache.Set(string(b.key.appendName(nil)), b, cost+tierItemOverhead) {
		t.bytes.Add(-cost)
		b.release() // OnExit is not called for a value that was dropped
	}
}

// settle waits until everything that was added is either visible or released.
func (t *tier) settle() { t.cache.Wait() }

// close releases every block.
func (t *tier) close() { t.cache.Close() }

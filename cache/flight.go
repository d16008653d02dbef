package cache

import "sync"

// flights is the table of blocks that are being fetched, so that readers of
// one block share one fetch. Safe for concurrent use.
//
// A block is in the table from before its Get until after it is in the memory
// tier, or until just before its waiters are told of the failure. Who looks
// into the table first and into the tier second therefore misses a block only
// when nobody fetched it, when the tier did not want it, or in the moment
// between the two looks; the worst that happens is a second fetch.
type flights struct {
	mu sync.Mutex
	m  map[Key]*Block // guarded by mu; the fetch holds a reference to each
}

// join returns the block that is being fetched, retained, or nil.
func (f *flights) join(key Key) *Block {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.m[key]
	if b != nil {
		b.retain()
	}
	return b
}

// claim enters b, unless its key is being fetched already: then the other
// block is returned, retained.
func (f *flights) claim(b *Block) *Block {
	f.mu.Lock()
	defer f.mu.Unlock()
	if other := f.m[b.key]; other != nil {
		other.retain()
		return other
	}
	f.m[b.key] = b
	return nil
}

// land removes blocks that claim entered.
func (f *flights) land(blocks []*Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range blocks {
		delete(f.m, b.key)
	}
}

package cache

import (
	"io"

	"coffer/objstore"
)

// maxFresh is how many small objects wait for their first reader.
const maxFresh = 64

// Fill keeps an object of at most one block whose bytes came with the answer to
// another question, for the reader that is likely to be opened next: until then, or
// until maxFresh others came, and after that as long as the memory tier wants it. ref
// and o are as for [Cache.OpenReader]; body has all of the object. Without an ETag, or
// memory to spare, or after Close, nothing is kept; Close waits for the body. The
// error is that of the body.
func (c *Cache) Fill(ref objstore.Ref, o objstore.Object, body io.Reader) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.fills.Add(1)
	c.mu.Unlock()
	defer c.fills.Done()
	key := Key{Store: c.cfg.StoreID, Bucket: ref.Bucket, Key: ref.Key, ETag: ref.ETag}
	cost := c.pool.cost(int(o.Size))
	if ref.ETag == "" || o.Size <= 0 || o.Size > c.cfg.BlockBytes || !c.pool.budget.TryAcquire(cost) {
		return nil
	}
	b, err := c.pool.newBlock(key, int(o.Size), true)
	if err != nil {
		c.pool.budget.Release(cost)
		return nil
	}
	defer b.release()
	if other := c.fly.claim(b); other != nil {
		other.release()
		return nil
	}
	b.retain() // for the flight
	n, err := io.ReadFull(body, b.data)
	if err == nil {
		err = ended(body, nil)
	}
	if err != nil {
		c.fly.land([]*Block{b})
		b.fail(errAbandoned, true)
		b.release()
		return err
	}
	b.advance(n)
	c.stats.fetched.Add(int64(n))
	c.offer([]*Block{b})
	c.mu.Lock()
	c.fresh = append(c.fresh, b)
	var old []*Block
	if len(c.fresh) > maxFresh {
		old, c.fresh = []*Block{c.fresh[0]}, c.fresh[1:]
	}
	c.mu.Unlock()
	c.fly.land(old)
	releaseAll(old)
	return nil
}

// dropFresh lets go of what waits for its first reader.
func (c *Cache) dropFresh() {
	c.mu.Lock()
	fresh := c.fresh
	c.fresh = nil
	c.mu.Unlock()
	c.fly.land(fresh)
	releaseAll(fresh)
}

package cache

import "context"

// obtain fills a run of blocks: from disk what is there, from the store the
// runs between. asked tells that all of it came from the store.
func (r *Reader) obtain(ctx context.Context, blocks []*Block) (asked bool, err error) {
	d := r.c.disk
	if d == nil || !d.takes(blocks[0].key) {
		r.c.stats.fetches.Add(1)
		return true, r.fill(ctx, blocks)
	}
	for i := 0; i < len(blocks); i++ {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		from := i
		for i < len(blocks) && !d.read(blocks[i]) {
			i++
		}
		if from == i {
			continue
		}
		r.c.stats.fetches.Add(1)
		if err := r.fill(ctx, blocks[from:i]); err != nil {
			return false, err
		}
		asked = from == 0 && i == len(blocks)
	}
	return asked, nil
}

// onDisk reports whether the disk tier has the blocks of a read: then all of them
// are worth having, whatever the store would be asked for.
func (r *Reader) onDisk(off int64, n int) bool {
	if r.c.disk == nil {
		return false
	}
	key := r.key
	for key.Index = off / r.c.cfg.BlockBytes; key.Index*r.c.cfg.BlockBytes < off+int64(n); key.Index++ {
		if !r.c.disk.has(key) {
			return false
		}
	}
	return true
}

// isDamaged reports whether the object of a key is known to be damaged.
func (c *Cache) isDamaged(key Key) bool {
	key.Index, key.Part, key.View = 0, Part{}, ""
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.damaged[key] > 0
}

package cache

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"coffer/objstore"
)

// Getter is the part of [objstore.Bucket] that a reader needs.
type Getter interface {
	Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error)
}

// Cache holds blocks and stages within one budget. Safe for concurrent use.
type Cache struct {
	cfg   Config // complete: defaults filled in
	pool  pool
	tier  *tier
	disk  *disk // nil: none is configured
	fly   flights
	stats counters

	streaming atomic.Int64   // readers that have read ahead
	fills     sync.WaitGroup // see Fill; none is added once closed

	mu      sync.Mutex
	readers map[*Reader]struct{} // guarded by mu; open ones
	stages  map[*Stage]struct{}  // guarded by mu; open ones
	views   int64                // guarded by mu; counts what distinguishes views
	// damaged objects, Index and View left out, and the view that is read
	// since: the blocks from before may still be on their way.
	damaged map[Key]int64 // guarded by mu
	fresh   []*Block      // guarded by mu; see Fill
	closed  bool          // guarded by mu
}

// New returns a cache. The caller closes it.
func New(cfg Config) (*Cache, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.BlockBytes == 0 {
		cfg.BlockBytes = DefaultBlockBytes
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = max(DefaultMemory(), minBlocks*cfg.BlockBytes)
	}
	if cfg.ScratchDir == "" {
		cfg.ScratchDir = os.TempDir()
	}
	if cfg.FetchTimeout == 0 {
		cfg.FetchTimeout = DefaultFetchTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if fi, err := os.Stat(cfg.ScratchDir); err != nil {
		return nil, fmt.Errorf("cache: scratch directory: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("cache: scratch directory %s: not a directory", cfg.ScratchDir)
	}
	c := &Cache{
		cfg:     cfg,
		fly:     flights{m: map[Key]*Block{}},
		readers: map[*Reader]struct{}{},
		stages:  map[*Stage]struct{}{},
		damaged: map[Key]int64{},
	}
	// The shares are explained in doc.go.
	c.pool = pool{
		budget: NewBudget(cfg.MemoryBytes, cfg.MemoryBytes/8, cfg.MemoryBytes/4, c.relieve),
		slabs:  newSlabs(int(cfg.BlockBytes)),
		stats:  &c.stats,
	}
	var err error
	if c.tier, err = newTier(cfg.MemoryBytes/8*5, cfg.BlockBytes); err != nil {
		return nil, err
	}
	if cfg.DiskDir != "" {
		if c.disk, err = newDisk(c); err != nil {
			c.tier.close()
			return nil, err
		}
	}
	return c, nil
}

// Budget returns the budget that everything in the cache is counted in, for
// other memory that belongs to the same mount. See its rules.
func (c *Cache) Budget() *Budget { return c.pool.budget }

// MaxRead returns the longest read in bytes: with everything else at its worst
// this much is still free for it, at any offset.
func (c *Cache) MaxRead() int { return int(c.cfg.MemoryBytes/8 - c.cfg.BlockBytes) }

// share returns the bytes that each of the streams can have ahead: what the
// tier's floor and the reserve leave.
func (c *Cache) share() int64 {
	return c.cfg.MemoryBytes / 4 * 3 / max(c.streaming.Load(), 1)
}

// Close frees the memory. Readers and stages must have been closed; it is an
// error when they were not, and then nothing is done.
func (c *Cache) Close() error {
	c.mu.Lock()
	if len(c.readers)+len(c.stages) > 0 {
		defer c.mu.Unlock()
		return fmt.Errorf("cache: close: %d readers and %d stages are open", len(c.readers), len(c.stages))
	}
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.fills.Wait()
	c.dropFresh()
	if c.disk != nil {
		c.disk.close()
	}
	c.tier.close()
	if n := c.pool.slabs.close(); n > 0 {
		return fmt.Errorf("cache: close: %d bytes are still in use by spans that were not released", n)
	}
	return nil
}

// relieve makes holders give memory back; somebody queues for it. What was
// fetched ahead and is yet to be read is given up only when all is.
func (c *Cache) relieve(all bool) {
	c.mu.Lock()
	readers := make([]*Reader, 0, len(c.readers))
	for r := range c.readers {
		readers = append(readers, r)
	}
	stages := make([]*Stage, 0, len(c.stages))
	for s := range c.stages {
		stages = append(stages, s)
	}
	c.mu.Unlock()
	c.dropFresh()
	for _, r := range readers {
		r.relieve(all)
	}
	for _, s := range stages {
		s.relieve()
	}
	if c.disk != nil {
		c.disk.relieve()
	}
}

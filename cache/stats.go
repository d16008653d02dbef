package cache

import "sync/atomic"

// Stats is what a [Cache] has done since it was made. Bytes are bytes.
type Stats struct {
	// Hits, Joins and Misses count blocks that reads needed: held or cached;
	// under way already; to be fetched.
	Hits   int64 `json:"hits"`
	Joins  int64 `json:"joins"`
	Misses int64 `json:"misses"`
	// Fetches and FetchErrors count ranged Gets.
	Fetches     int64 `json:"fetches"`
	FetchErrors int64 `json:"fetch_errors"`
	// ReadBytes were asked for, FetchedBytes came from the store.
	ReadBytes    int64 `json:"read_bytes"`
	FetchedBytes int64 `json:"fetched_bytes"`
	// PrefetchBytes were asked for before anybody needed them; WastedBytes of
	// them left memory unread.
	PrefetchBytes int64 `json:"prefetch_bytes"`
	WastedBytes   int64 `json:"wasted_bytes"`
	// PrefetchRefused counts ranges for which there was no memory.
	PrefetchRefused int64 `json:"prefetch_refused"`
	// BudgetBytes of BudgetLimit are in use, CachedBytes of them in the tier.
	BudgetBytes int64 `json:"budget_bytes"`
	BudgetLimit int64 `json:"budget_limit"`
	CachedBytes int64 `json:"cached_bytes"`
	// DiskHits and DiskMisses count blocks that the disk tier was asked for;
	// DiskDropped were not written because the disk was slow. DiskErrors count
	// files that did not verify, and what the disk refused.
	DiskHits      int64 `json:"disk_hits"`
	DiskMisses    int64 `json:"disk_misses"`
	DiskDropped   int64 `json:"disk_dropped"`
	DiskErrors    int64 `json:"disk_errors"`
	DiskEvictions int64 `json:"disk_evictions"`
	// DiskBytes of DiskLimit are on disk.
	DiskBytes        int64 `json:"disk_bytes"`
	DiskLimit        int64 `json:"disk_limit"`
	DiskReadBytes    int64 `json:"disk_read_bytes"`
	DiskWrittenBytes int64 `json:"disk_written_bytes"`
	// Readers and Stages are open; SealedBytes were written to scratch.
	Readers     int64 `json:"readers"`
	Stages      int64 `json:"stages"`
	SealedBytes int64 `json:"sealed_bytes"`
}

// counters are the lock-free sources of Stats.
type counters struct {
	hits, joins, misses     atomic.Int64
	fetches, fetchErrors    atomic.Int64
	read, fetched, prefetch atomic.Int64
	wasted, refused, sealed atomic.Int64

	diskHits, diskMisses, diskDropped atomic.Int64
	diskErrors, diskEvictions         atomic.Int64
	diskRead, diskWritten             atomic.Int64
}

// Stats returns a snapshot. The figures are read one after the other, so that
// sums over them may be off by what happens meanwhile.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	readers, stages := len(c.readers), len(c.stages)
	c.mu.Unlock()
	n := &c.stats
	st := Stats{
		Hits: n.hits.Load(), Joins: n.joins.Load(), Misses: n.misses.Load(),
		Fetches: n.fetches.Load(), FetchErrors: n.fetchErrors.Load(),
		ReadBytes: n.read.Load(), FetchedBytes: n.fetched.Load(),
		PrefetchBytes: n.prefetch.Load(), WastedBytes: n.wasted.Load(), PrefetchRefused: n.refused.Load(),
		BudgetBytes: c.pool.budget.Used(), BudgetLimit: c.pool.budget.Capacity(), CachedBytes: c.tier.bytes.Load(),
		Readers: int64(readers), Stages: int64(stages), SealedBytes: n.sealed.Load(),
		DiskHits: n.diskHits.Load(), DiskMisses: n.diskMisses.Load(), DiskDropped: n.diskDropped.Load(),
		DiskErrors: n.diskErrors.Load(), DiskEvictions: n.diskEvictions.Load(),
		DiskReadBytes: n.diskRead.Load(), DiskWrittenBytes: n.diskWritten.Load(),
	}
	if c.disk != nil {
		st.DiskBytes, st.DiskLimit = c.disk.bytes(), c.disk.limit
	}
	return st
}

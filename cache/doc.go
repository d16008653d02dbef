// Package cache holds bytes near: blocks of objects in memory, and the local
// changes of files that are open for writing, sealed on scratch space.
//
// It decides nothing about files. A [Reader] belongs to one read handle of
// one immutable object version and answers with pinned slices of blocks; a
// [Stage] is one changed file as extents over such a version. Both draw their
// memory from the one [Budget] of a [Cache].
//
// # A read
//
//	Reader.ReadAt -> blocks that the handle holds -> flights -> memory tier
//	   missing: budget -> claim in the flight table -> ranged Get -> fill
//	   window: the next ranges, fetched while the reply is on its way
//
// Blocks are filled from front to back, and a reader waits for its own bytes,
// never for a block or a range. Every Get carries the ETag of the version, so
// that bytes of two versions cannot meet in one file. A tally joins the CRCs
// of what a handle reads and compares them with that of the object.
//
// # Memory
//
// Every block and every frame buffer is counted in the Budget from allocation
// until its last reference goes. Three shares keep it moving:
//
//	|<------------- tier, 5/8 ------------->|<-- ahead, 1/4 -->|<- 1/8 ->|
//	 cached blocks, evicted by ristretto      prefetch, frames   demand only
//
// Prefetch takes what is free short of the last eighth or does without
// (TryAcquire), write-back buffers likewise and no more than a quarter in all
// (TryHold). A demand read waits in a queue (Acquire), and it holds no block
// while it waits; whatever idles in handles and stages is given back as soon
// as somebody queues. So, when all goes badly, the tier has 5/8 and buffers
// that cannot be written 1/4; the rest is in transfer or on its way to the
// kernel and comes back by itself, and no read needs more than the last 1/8
// ([Cache.MaxRead]). Therefore every demand read makes progress.
//
// Decrypted bytes live in mappings outside of the Go heap that core dumps
// leave out (MADV_DONTDUMP).
//
// # Locks
//
// Every mutex of the package is a leaf: none is held while another one is
// taken, with one exception, Stage.mu, which is held over its scratch file,
// the budget and the allocator. No lock is held across network I/O.
//
// # Goroutines
//
// A fetch belongs to the Reader that began it, and Reader.Close ends it and
// waits. Readers of other handles that were waiting for its blocks notice and
// fetch for themselves. The memory tier's goroutines end in Cache.Close.
package cache

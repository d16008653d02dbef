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
//	Reader.ReadAt -> window: in a stream, or by itself?
//	   -> blocks that the handle holds -> flights -> memory tier
//	   missing: budget -> claim in the flight table -> ranged Get -> fill
//	   ahead: the next ranges, fetched while the reply is on its way
//
// A read in a stream needs its blocks; one by itself needs its pages only, as
// parts of blocks, which are Blocks with keys of their own. All of a block
// serves for its parts, never the other way round.
//
// Blocks are filled from front to back, and a reader waits for its own bytes,
// never for a block or a range. Every Get carries the ETag of the version, so
// that bytes of two versions cannot meet in one file. A tally joins the CRCs
// of what a handle reads and compares them with that of the object; a part of
// a block counts like the block, and what comes twice must be the same.
//
// # Memory
//
// Every block and every frame buffer is counted in the Budget from allocation
// until its last reference goes. Three shares keep it moving:
//
//	|<- 1/8 ->|<------------- 1/2 ------------>|<----- 1/4 ----->|<- 1/8 ->|
//	|<---------------- tier ------------------>|prefetch, frames |demand
//	   floor  |<------------ prefetch of deep windows ---------->|only
//
// ristretto evicts from the tier. A stream through more than the tier holds passes
// it by. Prefetch takes what is free short of the last
// eighth, then that of the oldest cached blocks that were read and that nobody
// uses, down to the tier's floor: a link of 2 GB/s and 30 ms has 240 MiB under
// way. Else it does without (TryAcquire), and a stream that is refused falls
// back to the share that all streams can have. Write-back buffers take what is
// free short of the last eighth as well, and no more than a quarter in all
// (TryHold). A demand read waits in a queue (Acquire), and it holds no block
// while it waits; whatever idles in handles and stages is given back as soon
// as somebody queues, except for what streams have fetched ahead or are
// reading: that comes back when they go on. Streams that gave it up for each
// other would fetch it twice, and queue for that. It is given up when somebody
// has waited for a while, so when all goes badly, the tier has 5/8 and buffers
// that cannot be written 1/4; the rest is in transfer or on its way to the
// kernel and comes back by itself, and no read needs more than the last 1/8
// ([Cache.MaxRead]). Therefore every demand read makes progress.
//
// Decrypted bytes live in mappings outside of the Go heap that core dumps
// leave out (MADV_DONTDUMP).
//
// # Notes
//
// [Notes] are what takes requests to find out of an object version: a few bytes
// each, all in memory, and in sealed logs beside the blocks of the disk tier where
// those outlive the mount. They stand beside the Cache and know nothing of it.
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
// fetch for themselves. The memory tier's goroutines end in Cache.Close, that
// of Notes in Notes.Close.
package cache

package cache

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// ErrDisk is part of every error of [New] that the disk tier's directory, size
// or key caused.
var ErrDisk = errors.New("disk cache")

const (
	// diskFloor is the part of the file system that stays free, 5 %: the
	// directory is often a job's scratch space, and the job comes first.
	diskFloor = 20
	// diskShare of what is free beyond that is the default size.
	diskShare = 10
	// diskQueue is how many blocks wait to be written at most.
	diskQueue = 32
	// diskPause is how long the tier leaves a disk alone that failed.
	diskPause = 30 * time.Second
	// diskSpaceEvery is how often the free space is looked at, diskScanEvery
	// how often a shared directory is.
	diskSpaceEvery = 5 * time.Second
	diskScanEvery  = time.Minute
	// diskTempAge is when a temporary file was left by a crash for sure.
	diskTempAge = time.Hour
)

// disk is the disk tier: complete blocks that came from the store, one sealed
// file each. It is a cache only: whatever goes wrong is a miss.
//
// Reads happen in the goroutine that fetches the block; writes in one of the
// tier, from a queue that drops what the disk is too slow for. A file may be
// evicted, by this mount or another one, while it is read: an unlinked file
// stays readable as long as it is open.
type disk struct {
	path    string // as configured
	key     *diskKey
	shared  bool
	block   int64
	limit   int64
	stats   *counters
	budget  *Budget
	damaged func(Key) bool
	log     *slog.Logger

	scratch sync.Pool // of *[diskScratchBytes]byte; ciphertext only
	queue   chan *Block
	wake    chan struct{} // forgets is not empty
	quit    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	dir     *diskDir        // guarded by mu; replaced when it vanished
	index   diskIndex       // guarded by mu
	forgets []damagedObject // guarded by mu
	space   int64           // guarded by mu; what may still be written before the next look
	paused  time.Time       // guarded by mu; no write before
	logged  bool            // guarded by mu
}

// damagedObject is one of which no file may stay.
type damagedObject struct {
	key    Key // Index and View left out
	blocks int64
}

// newDisk opens the tier of a complete configuration. The caller closes it.
func newDisk(c *Cache) (*disk, error) {
	cfg := c.cfg
	raw := bytes.Clone(cfg.DiskKey)
	if raw == nil {
		raw = make([]byte, 32)
		rand.Read(raw) // never fails: see crypto/rand
	}
	defer clear(raw)
	key, err := newDiskKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	d := &disk{
		path: cfg.DiskDir, key: key, shared: cfg.DiskKey != nil, block: cfg.BlockBytes, limit: cfg.DiskBytes,
		stats: &c.stats, budget: c.pool.budget, damaged: c.isDamaged, log: cfg.Logger,
		queue: make(chan *Block, diskQueue), wake: make(chan struct{}, 1), quit: make(chan struct{}),
		index: newDiskIndex(),
	}
	d.scratch.New = func() any { return new([diskScratchBytes]byte) }
	var dead []deadDir
	if d.dir, dead, err = d.open(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if d.space, err = d.dir.space(); err != nil {
		d.dir.bury(dead)
		d.dir.close()
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	if d.limit == 0 {
		d.limit = max(d.space/diskShare, d.block)
	}
	d.wg.Add(2)
	go d.writer()
	go d.janitor(d.dir, dead)
	return d, nil
}

func (d *disk) open() (*diskDir, []deadDir, error) {
	if d.shared {
		return openDiskDir(d.path, d.key.id)
	}
	return openDiskDir(d.path, "")
}

// identity is what a block's file is bound to. The size of blocks is part of
// it, since a key counts in blocks.
func (d *disk) identity(key Key) []byte {
	return binary.BigEndian.AppendUint64(key.appendName(nil), uint64(d.block))
}

// takes reports whether blocks with this key may be on disk: only whole ones, of a
// version that is named, and seen as every mount sees it.
func (d *disk) takes(key Key) bool {
	return key.ETag != "" && key.View == "" && key.Part == (Part{}) && !d.damaged(key)
}

// has reports whether a block is there, as far as it is known.
func (d *disk) has(key Key) bool {
	if !d.takes(key) {
		return false
	}
	name := d.key.nameOf(d.identity(key))
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index.has(name)
}

// read fills an empty block from disk and publishes it. False is a miss.
func (d *disk) read(b *Block) bool {
	identity := d.identity(b.key)
	name := d.key.nameOf(identity)
	d.mu.Lock()
	dir, known := d.dir, d.index.has(name)
	d.mu.Unlock()
	// Another mount may have written it since the last scan.
	if !known && !d.shared {
		d.stats.diskMisses.Add(1)
		return false
	}
	sum, err := d.readFile(dir, name, identity, b.data)
	if err != nil {
		d.stats.diskMisses.Add(1)
		if !errors.Is(err, fs.ErrNotExist) {
			d.stats.diskErrors.Add(1)
			d.log.Debug("a block of the disk cache is no good", "err", err)
			_ = dir.root.Remove(name.path())
		}
		d.mu.Lock()
		d.index.remove(name)
		d.mu.Unlock()
		return false
	}
	now := uint32(time.Now().Unix())
	d.mu.Lock()
	if !d.index.has(name) {
		d.index.add(name, diskFileBytes(len(b.data)), now)
	}
	tell := d.index.use(name, now)
	d.mu.Unlock()
	if tell && d.shared {
		at := time.Now()
		_ = dir.root.Chtimes(name.path(), at, at)
	}
	if sum.crc == b.crc {
		b.setChecksum(sum.sum)
	}
	d.stats.diskHits.Add(1)
	d.stats.diskRead.Add(int64(len(b.data)))
	b.advance(len(b.data))
	return true
}

func (d *disk) readFile(dir *diskDir, name diskName, identity, data []byte) (blockSum, error) {
	f, err := dir.root.Open(name.path())
	if err != nil {
		return blockSum{}, err
	}
	defer f.Close()
	scratch := d.scratch.Get().(*[diskScratchBytes]byte)
	defer d.scratch.Put(scratch)
	return d.key.openBlock(data, identity, f, scratch[:])
}

// offer queues a complete block for writing. It never waits.
func (d *disk) offer(b *Block) {
	if !d.takes(b.key) {
		return
	}
	name := d.key.nameOf(d.identity(b.key))
	d.mu.Lock()
	skip := d.index.has(name) || time.Now().Before(d.paused) || d.space <= 0
	d.mu.Unlock()
	if skip || d.budget.Contended() {
		return
	}
	b.retain()
	select {
	case d.queue <- b:
	default:
		b.release()
		d.stats.diskDropped.Add(1)
	}
}

// relieve gives up what is queued: somebody waits for the memory.
func (d *disk) relieve() {
	for {
		select {
		case b := <-d.queue:
			b.release()
			d.stats.diskDropped.Add(1)
		default:
			return
		}
	}
}

// forget removes the blocks of an object that has been entered as damaged. The
// writer does it, so that none of them is written after.
func (d *disk) forget(object Key, blocks int64) {
	d.mu.Lock()
	d.forgets = append(d.forgets, damagedObject{object, blocks})
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// writer writes what is queued.
func (d *disk) writer() {
	defer d.wg.Done()
	var image []byte // of the file; the one block's worth beside the budget
	for {
		select {
		case <-d.quit:
			return
		case <-d.wake:
			d.removeForgotten()
		case b := <-d.queue:
			image = d.store(b, image[:0])
		}
	}
}

// store seals a block, lets go of it, and writes the file: a disk that hangs
// holds no memory of the budget.
func (d *disk) store(b *Block, image []byte) []byte {
	identity := d.identity(b.key)
	if !d.takes(b.key) {
		b.release()
		return image
	}
	sum := blockSum{crc: b.crc}
	if b.crc.Bits > 0 {
		sum.sum = b.checksum()
	}
	sealed, err := d.key.sealBlock(image, identity, b.data, sum)
	b.release()
	if err != nil {
		d.failed(err)
		return image
	}
	name, size := d.key.nameOf(identity), int64(len(sealed))
	d.mu.Lock()
	ready := !d.index.has(name) && !time.Now().Before(d.paused) && d.space >= size && size <= d.limit
	dir := d.dir
	d.mu.Unlock()
	if !ready {
		return sealed
	}
	d.shrink(d.limit - size)
	err = dir.write(name, sealed)
	if errors.Is(err, fs.ErrNotExist) { // the directory vanished
		if dir, err = d.reopen(); err == nil {
			err = dir.write(name, sealed)
		}
	}
	if err != nil {
		d.failed(err)
		return sealed
	}
	d.mu.Lock()
	d.index.add(name, size, uint32(time.Now().Unix()))
	d.space -= size
	d.mu.Unlock()
	d.stats.diskWritten.Add(size)
	return sealed
}

// reopen makes a directory in place of one that vanished.
func (d *disk) reopen() (*diskDir, error) {
	dir, dead, err := d.open()
	if err != nil {
		return nil, err
	}
	dir.bury(dead)
	d.mu.Lock()
	old := d.dir
	d.dir, d.index = dir, newDiskIndex()
	d.mu.Unlock()
	old.close()
	return dir, nil
}

// failed leaves the disk alone for a while.
func (d *disk) failed(err error) {
	d.stats.diskErrors.Add(1)
	d.mu.Lock()
	d.paused = time.Now().Add(diskPause)
	first := !d.logged
	d.logged = true
	d.mu.Unlock()
	if first {
		d.log.Warn("the disk cache cannot be written; the mount goes on without it and tries again now and then", "err", err)
	}
}

// shrink evicts until no more than limit bytes are there.
func (d *disk) shrink(limit int64) {
	for {
		d.mu.Lock()
		if d.index.bytes <= limit {
			d.mu.Unlock()
			return
		}
		name, size, ok := d.index.evict()
		dir := d.dir
		d.mu.Unlock()
		if !ok {
			return
		}
		if err := dir.root.Remove(name.path()); err == nil {
			d.stats.diskEvictions.Add(1)
			d.mu.Lock()
			d.space += size
			d.mu.Unlock()
		}
	}
}

func (d *disk) removeForgotten() {
	d.mu.Lock()
	lists, dir := d.forgets, d.dir
	d.forgets = nil
	d.mu.Unlock()
	for _, x := range lists {
		for x.key.Index = range x.blocks {
			name := d.key.nameOf(d.identity(x.key))
			d.mu.Lock()
			known := d.index.has(name)
			d.index.remove(name)
			d.mu.Unlock()
			if known || d.shared {
				_ = dir.root.Remove(name.path())
			}
		}
	}
}

// janitor removes what killed mounts left, knows what is in a shared directory,
// and keeps the floor.
func (d *disk) janitor(dir *diskDir, dead []deadDir) {
	defer d.wg.Done()
	dir.bury(dead)
	if d.shared {
		d.scan()
	}
	space, scan := time.NewTicker(diskSpaceEvery), time.NewTicker(diskScanEvery)
	defer space.Stop()
	defer scan.Stop()
	for {
		select {
		case <-d.quit:
			return
		case <-space.C:
			d.keepFloor()
		case <-scan.C:
			if d.shared {
				d.scan()
			}
		}
	}
}

// keepFloor looks at the free space, and gives back what is below the floor.
func (d *disk) keepFloor() {
	d.mu.Lock()
	dir := d.dir
	d.mu.Unlock()
	free, err := dir.space()
	if err != nil {
		return // a write finds out what is wrong
	}
	d.mu.Lock()
	d.space = free
	have := d.index.bytes
	d.mu.Unlock()
	if free < 0 {
		d.shrink(max(0, have+free))
	}
}

// scan brings the index up to what is in the directory, and the directory
// down to its limit.
func (d *disk) scan() {
	d.mu.Lock()
	dir := d.dir
	d.index.beginRound()
	d.mu.Unlock()
	for fan := range 256 {
		select {
		case <-d.quit:
			return
		default:
		}
		dir.each(fan, func(name diskName, st os.FileInfo) {
			if st.Size() == 0 || st.Size() > diskFileBytes(maxBlockBytes) {
				_ = dir.root.Remove(name.path())
				return
			}
			d.mu.Lock()
			d.index.add(name, st.Size(), uint32(st.ModTime().Unix()))
			d.mu.Unlock()
		})
	}
	for _, name := range namesIn(dir.root, ".") {
		if st, err := dir.root.Lstat(name); err == nil && strings.HasPrefix(name, diskTempPrefix) && time.Since(st.ModTime()) > diskTempAge {
			_ = dir.root.Remove(name)
		}
	}
	d.mu.Lock()
	d.index.endRound()
	d.mu.Unlock()
	d.shrink(d.limit)
}

// close ends the goroutines, writes nothing more, and lets go of the queue.
func (d *disk) close() {
	close(d.quit)
	d.wg.Wait()
	d.relieve()
	d.removeForgotten()
	d.dir.close()
}

// bytes returns what is on disk, as far as it is known.
func (d *disk) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index.bytes
}

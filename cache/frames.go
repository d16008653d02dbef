package cache

import (
	"coffer/objstore"
)

// maxFrames is how many frames a stage keeps open in memory: 1 MiB, enough
// that a stream of small writes seals each frame once, and little enough that
// a hundred open files do not matter.
const maxFrames = 16

// frames is the write-back buffer of a stage: a few frames in memory over the
// sealed ones on scratch. The scratch file is made when the first frame has to
// leave memory.
//
// A frame's buffer is counted in the budget where that is possible at once.
// Where it is not, a stage works with one buffer that is not counted and is
// given back at the end of the operation. Not safe for concurrent use.
type frames struct {
	c       *Cache
	file    *scratch // nil until needed
	byIndex map[int64]*frame
	clock   int64 // counts uses
}

type frame struct {
	mem     memory
	counted bool  // in the budget
	dirty   bool  // not sealed in its present form
	used    int64 // clock at the last use
}

// get returns the frame with this index in memory. For writing it fails when
// scratch has no room for the frame that must leave; for reading it does not
// need any room.
func (x *frames) get(index int64, write bool) (*frame, error) {
	x.clock++
	if f := x.byIndex[index]; f != nil {
		f.used = x.clock
		return f, nil
	}
	f, err := x.buffer(write)
	if err != nil {
		return nil, err
	}
	if x.file != nil && x.file.has(index) {
		if err := x.file.open(index, f.mem.buf[:frameBytes]); err != nil {
			x.free(f)
			return nil, err
		}
	} else {
		clear(f.mem.buf[:frameBytes]) // bytes of others are not ours to seal
	}
	f.used = x.clock
	x.byIndex[index] = f
	return f, nil
}

// buffer returns a clean frame that is not in byIndex: a new one, or that of
// the frame that was used least recently.
func (x *frames) buffer(write bool) (*frame, error) {
	if len(x.byIndex) < maxFrames && x.c.pool.budget.TryHold(frameBytes) {
		f, err := x.allocate(true)
		if err != nil {
			x.c.pool.budget.ReleaseHeld(frameBytes)
		}
		return f, err
	}
	var oldest *frame
	index := int64(-1)
	for i, f := range x.byIndex {
		if oldest == nil || f.used < oldest.used {
			oldest, index = f, i
		}
	}
	if oldest == nil {
		return x.allocate(false)
	}
	if err := x.clean(index, oldest); err != nil {
		if write {
			return nil, err
		}
		return x.allocate(false) // reading goes on when scratch is full
	}
	delete(x.byIndex, index)
	return oldest, nil
}

func (x *frames) allocate(counted bool) (*frame, error) {
	mem, err := x.c.pool.slabs.get(frameBytes)
	if err != nil {
		return nil, &objstore.Error{Op: "stage", Kind: objstore.Unknown, Err: err}
	}
	return &frame{mem: mem, counted: counted}, nil
}

// clean seals a frame if it needs that.
func (x *frames) clean(index int64, f *frame) error {
	if !f.dirty {
		return nil
	}
	if x.file == nil {
		file, err := openScratch(x.c.cfg.ScratchDir)
		if err != nil {
			return err
		}
		x.file = file
	}
	if err := x.file.seal(index, f.mem.buf[:frameBytes]); err != nil {
		return err
	}
	x.c.stats.sealed.Add(slotBytes)
	f.dirty = false
	return nil
}

// free gives a buffer back.
func (x *frames) free(f *frame) {
	x.c.pool.slabs.put(f.mem)
	if f.counted {
		x.c.pool.budget.ReleaseHeld(frameBytes)
	}
}

// trim ends an operation: buffers that are not counted are given back. One
// that cannot be sealed stays, since nothing else has its bytes; then the next
// write finds no buffer and says why.
func (x *frames) trim() {
	for index, f := range x.byIndex {
		if !f.counted && x.clean(index, f) == nil {
			delete(x.byIndex, index)
			x.free(f)
		}
	}
}

// shrink gives back every buffer that can be sealed.
func (x *frames) shrink() {
	for index, f := range x.byIndex {
		if x.clean(index, f) == nil {
			delete(x.byIndex, index)
			x.free(f)
		}
	}
}

// truncate forgets the frames from the first one on.
func (x *frames) truncate(first int64) error {
	for index, f := range x.byIndex {
		if index >= first {
			delete(x.byIndex, index)
			x.free(f)
		}
	}
	if x.file == nil {
		return nil
	}
	return x.file.truncate(first)
}

// close frees everything.
func (x *frames) close() error {
	for _, f := range x.byIndex {
		x.free(f)
	}
	clear(x.byIndex)
	if x.file == nil {
		return nil
	}
	return x.file.close()
}

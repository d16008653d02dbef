package cache

import (
	"context"
	"fmt"
	"io"
	"sync"

	"coffer/objstore"
)

// Base is what a stage lies over: the version of the object that was there when
// it was made. A [*Reader] is one.
type Base interface {
	// ReadAt returns n bytes at off, fewer only at the end.
	ReadAt(ctx context.Context, off int64, n int) (*Span, error)
}

// maxStageBytes is where local bytes may end: above the size limit of every
// store (50 TiB at AWS) and below what overflows an offset in the scratch
// file, which is sparse like the staged one.
const maxStageBytes = 64 << 40

// remoteChunk is how much of the base is read at once.
const remoteChunk = 1 << 20

// Stage is one changed file: extents that are holes, local bytes, or bytes of
// its base. Local bytes rest on scratch, sealed; see scratch.go. Safe for
// concurrent use; reading the base happens outside of its lock.
//
// Extents are exact to the byte: overwriting a part of a frame whose other
// bytes are remote or missing needs none of those, only local bytes are ever
// looked at in a frame.
type Stage struct {
	c *Cache

	mu     sync.Mutex
	closed bool    // guarded by mu
	base   Base    // guarded by mu
	ext    extents // guarded by mu
	frames frames  // guarded by mu
}

// NewStage returns a file of size bytes that are those of base, which outlives
// the stage. With a nil base the file is a hole of that size. Nothing is put
// on scratch before bytes are written. The caller closes the stage.
func (c *Cache) NewStage(base Base, size int64) (*Stage, error) {
	if size < 0 {
		return nil, &objstore.Error{Op: "stage", Kind: objstore.InvalidRange, Err: fmt.Errorf("size %d", size)}
	}
	s := c.newStage(base)
	if size > 0 {
		kind := Remote
		if base == nil {
			kind = Hole
		}
		s.ext.put(Extent{Kind: kind, Len: size})
	}
	return s, nil
}

// newStage returns an empty stage that the cache knows.
func (c *Cache) newStage(base Base) *Stage {
	s := &Stage{c: c, base: base, frames: frames{c: c, byIndex: map[int64]*frame{}}}
	c.mu.Lock()
	c.stages[s] = struct{}{}
	c.mu.Unlock()
	return s
}

// Size returns the length of the file in bytes.
func (s *Stage) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ext.size()
}

// Extents returns the file as runs in order, from 0 to its size without gaps.
func (s *Stage) Extents() []Extent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Extent(nil), s.ext.runs...)
}

// WriteAt writes p at off, beyond the end too: the gap is a hole. It returns
// how many bytes are part of the file, fewer than len(p) only with an error,
// and keeps no reference to p. When scratch is full the error's kind is
// NoSpace, and everything that was written before is still there.
func (s *Stage) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &objstore.Error{Op: "write", Kind: objstore.InvalidRange, Err: fmt.Errorf("%d bytes at %d", len(p), off)}
	}
	if off > maxStageBytes-int64(len(p)) {
		return 0, &objstore.Error{Op: "write", Kind: objstore.TooLarge, Err: fmt.Errorf("%d bytes at %d", len(p), off)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, closedError("write", "")
	}
	defer s.frames.trim()
	done := 0
	for done < len(p) {
		at := off + int64(done)
		f, err := s.frames.get(at/frameBytes, true)
		if err != nil {
			return done, err
		}
		n := copy(f.mem.buf[at%frameBytes:frameBytes], p[done:])
		f.dirty = true
		s.ext.write(at, int64(n))
		done += n
	}
	return done, nil
}

// ReadAt reads into p from off and returns how many bytes: fewer than len(p)
// only at the end of the file or with an error. The end is not an error.
func (s *Stage) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, &objstore.Error{Op: "read", Kind: objstore.InvalidRange, Err: fmt.Errorf("offset %d", off)}
	}
	done := 0
	for done < len(p) {
		e, n, err := s.readLocal(p[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		if e.Len == 0 {
			return done, nil
		}
		if e.Kind == Remote {
			span, err := s.readRemote(ctx, e, len(p)-done)
			if err != nil {
				return done, err
			}
			n = span.CopyTo(p[done:])
			span.Release()
		}
		done += n
	}
	return done, nil
}

// readLocal returns the extent at off and, unless it is remote, reads from it;
// at most to the end of a frame, so that the lock is held shortly. At the end
// of the file the extent is empty.
func (s *Stage) readLocal(p []byte, off int64) (Extent, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return Extent{}, 0, closedError("read", "")
	}
	e, ok := s.ext.at(off)
	if !ok {
		return Extent{}, 0, nil
	}
	p = p[:min(int64(len(p)), e.Len)]
	switch e.Kind {
	case Hole:
		clear(p)
		return e, len(p), nil
	case Local:
		defer s.frames.trim()
		f, err := s.frames.get(off/frameBytes, false)
		if err != nil {
			return e, 0, err
		}
		return e, copy(p, f.mem.buf[off%frameBytes:frameBytes]), nil
	}
	return e, 0, nil
}

// readRemote reads up to n bytes from the front of a remote extent.
func (s *Stage) readRemote(ctx context.Context, e Extent, n int) (*Span, error) {
	n = int(min(int64(n), e.Len, remoteChunk, int64(s.c.MaxRead())))
	s.mu.Lock()
	base := s.base
	s.mu.Unlock()
	span, err := base.ReadAt(ctx, e.RemoteOff, n)
	if err != nil {
		return nil, err
	}
	if got := span.Len(); got != n {
		span.Release()
		return nil, &objstore.Error{Op: "read", Kind: objstore.Integrity, Err: fmt.Errorf("the file's base gave %d of %d bytes at %d", got, n, e.RemoteOff)}
	}
	return span, nil
}

// Copies tells which remote extents are worth to be copied by the store, when
// that is so from least bytes on and for most extents at most: those of at
// least length bytes, which hold bytes together, 0 for none.
func (s *Stage) Copies(least int64, most int) (length, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ext.long(least, most)
}

// NeedsBase reports whether some of the bytes are those of the base.
func (s *Stage) NeedsBase() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ext.remote()
}

// RangeCopy has n bytes of the base at off appended to what a writer was given
// so far, without their being moved through here.
type RangeCopy func(ctx context.Context, off, n int64) error

// WriteTo writes the whole file to w in order, in bounded memory, and returns
// how many bytes w took. The caller sees to it that the file does not change
// meanwhile. Remote extents of at least length bytes are left to copyRange,
// unless it is nil.
func (s *Stage) WriteTo(ctx context.Context, w io.Writer, copyRange RangeCopy, length int64) (int64, error) {
	mem, err := s.c.pool.slabs.get(frameBytes)
	if err != nil {
		return 0, &objstore.Error{Op: "read", Kind: objstore.Unknown, Err: err}
	}
	// One frame for every commit under way is not counted: waiting for it here
	// could be waiting for a commit to end.
	defer s.c.pool.slabs.put(mem)
	done := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return done, canceled("read", "", ctx)
		}
		e, n, err := s.readLocal(mem.buf[:frameBytes], done)
		if err != nil || e.Len == 0 {
			return done, err
		}
		if e.Kind != Remote {
			n, err = w.Write(mem.buf[:n])
			done += int64(n)
			if err != nil {
				return done, err
			}
			continue
		}
		if copyRange != nil && e.Len >= length {
			if err := copyRange(ctx, e.RemoteOff, e.Len); err != nil {
				return done, err
			}
			done += e.Len
			continue
		}
		span, err := s.readRemote(ctx, e, remoteChunk)
		if err != nil {
			return done, err
		}
		for _, b := range span.Slices() {
			n, err = w.Write(b)
			done += int64(n)
			if err != nil {
				break
			}
		}
		span.Release()
		if err != nil {
			return done, err
		}
	}
}

// Rebase has the stage lie over another object with the same bytes.
func (s *Stage) Rebase(base Base) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = base
}

// Truncate makes the file size bytes long: what is cut off is forgotten, what
// is added is a hole.
func (s *Stage) Truncate(size int64) error {
	if size < 0 {
		return &objstore.Error{Op: "truncate", Kind: objstore.InvalidRange, Err: fmt.Errorf("size %d", size)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return closedError("truncate", "")
	}
	s.ext.truncate(size)
	return s.frames.truncate((size + frameBytes - 1) / frameBytes)
}

// relieve seals and frees the stage's buffers, unless it is in use right now:
// then they are not idle.
func (s *Stage) relieve() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	s.frames.shrink()
}

// Close frees memory and scratch space; local bytes are gone. The base stays
// open. Closing twice does nothing.
func (s *Stage) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	err := s.frames.close()
	s.mu.Unlock()
	s.c.mu.Lock()
	delete(s.c.stages, s)
	s.c.mu.Unlock()
	return err
}

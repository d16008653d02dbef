package fs

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"coffer/cache"
)

// Lseek implements gofuse.FileLseeker for SEEK_DATA and SEEK_HOLE. Holes are
// known until the commit: an object has none.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	n := h.file
	if err := n.turn.take(ctx); err != nil {
		return 0, toErrno(err)
	}
	defer n.turn.release()
	size := n.currentSize()
	var runs []cache.Extent
	if n.content.state == staged {
		runs = n.content.stage.Extents()
	} else if size > 0 {
		runs = []cache.Extent{{Kind: cache.Local, Len: size}}
	}
	at, ok := seek(runs, size, int64(off), whence == unix.SEEK_HOLE)
	if !ok {
		return 0, syscall.ENXIO
	}
	return uint64(at), 0
}

// seek returns the first offset at or after off that is in a hole, or in data.
// The end of a file is a hole. ok is false where there is none, and beyond the
// end.
func seek(runs []cache.Extent, size, off int64, hole bool) (at int64, ok bool) {
	if off < 0 || off >= size {
		return 0, false
	}
	for _, r := range runs {
		if end := r.Off + r.Len; end > off && (r.Kind == cache.Hole) == hole {
			return max(off, r.Off), true
		}
	}
	return size, hole
}

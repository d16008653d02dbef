package fs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/cache"
	"coffer/objstore"
)

// handle is an open file.
type handle struct {
	file   *file
	writes bool
	opener uint32 // process, of a handle that writes
	// failures is what file.failures was at open.
	failures int
	// wrote tells that something was changed through this handle: a close
	// of one that only could have leaves the others' work alone.
	wrote atomic.Bool
	// closed tells that a close(2) of one of its descriptors was told.
	closed atomic.Bool

	mu     sync.Mutex
	reader *cache.Reader // nil before the first read
	// version is what file.version was when reader was opened.
	version uint64
}

func (n *file) newHandle(ctx context.Context, flags uint32) *handle {
	h := &handle{file: n, writes: flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if caller, ok := fuse.FromContext(ctx); ok && h.writes {
		h.opener = n.fsys.processOf(caller.Pid)
	}
	n.mu.Lock()
	n.handles++
	h.failures = n.failures
	if h.writes {
		n.writers++
	}
	n.mu.Unlock()
	n.fsys.setOpen(h, true)
	return h
}

// readerOf returns the reader for the file's object, o, as it is after as
// many own changes as version counts: a commit or a rename on this mount
// carries open handles along.
func (h *handle) readerOf(o objstore.Object, version uint64) *cache.Reader {
	h.mu.Lock()
	old := h.reader
	first := old == nil
	if first || h.version != version || old.Ref().ETag != o.ETag {
		ref := o.Ref(h.file.bucket.Name())
		ref.Key = h.file.key()
		h.version = version
		h.reader = h.file.fsys.cfg.Cache.OpenReader(h.file.bucket, ref, o)
	} else {
		old = nil
	}
	r := h.reader
	h.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if first && o.Size <= wholeMax {
		parent, _ := h.file.parent()
		parent.mu.Lock()
		parent.burst.didRead()
		parent.mu.Unlock()
	}
	return r
}

// Read implements gofuse.FileReader.
func (h *handle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := h.file
	for {
		n.mu.Lock()
		local, obj, stale, version := n.local, n.obj, n.stale, n.version
		n.mu.Unlock()
		if stale {
			return nil, syscall.ESTALE
		}
		if local {
			got, ok, err := n.readLocal(ctx, dest, off)
			if err != nil {
				return nil, n.fsys.errno("read", n.path(), err)
			}
			if !ok {
				continue // committed in the meantime
			}
			return fuse.ReadResultData(dest[:got]), 0
		}
		span, err := h.readerOf(obj, version).ReadAt(ctx, off, len(dest))
		if err != nil && ctx.Err() != nil {
			// A signal came; only one that kills ends a read.
			q, end := question(ctx)
			span, err = h.readerOf(obj, version).ReadAt(q, off, len(dest))
			end()
		}
		if err != nil && n.ownChanges() != version {
			continue // a commit or a rename of ours took the version away
		}
		if err != nil {
			if errors.Is(err, objstore.Integrity) {
				n.distrustPages()
			}
			return nil, n.fsys.errno("read", n.path(), err)
		}
		if span.Len() == 0 {
			// go-fuse never calls Done for an empty reply.
			span.Release()
			return fuse.ReadResultData(nil), 0
		}
		return reply{span}, 0
	}
}

// distrustPages drops what the kernel has of a file that turned out to be
// damaged on its way here: it may have been handed some of it before.
func (n *file) distrustPages() {
	n.mu.Lock()
	n.cached = ""
	n.mu.Unlock()
	n.fsys.notes.contentChanged(n.EmbeddedInode())
}

// reply hands pinned blocks to the kernel without a copy.
type reply struct{ *cache.Span }

// Size implements fuse.ReadResult.
func (r reply) Size() int { return r.Len() }

// Slices lets go-fuse write the blocks with one writev.
func (r reply) Slices() ([][]byte, fuse.Status) { return r.Span.Slices(), fuse.OK }

// Bytes implements fuse.ReadResult.
func (r reply) Bytes(buf []byte) ([]byte, fuse.Status) { return buf[:r.CopyTo(buf)], fuse.OK }

// Done implements fuse.ReadResult: the kernel has its copy.
func (r reply) Done() { r.Release() }

// sizeMax is the largest file in bytes: S3's 10,000 parts of 5 GiB. What a
// program asks for beyond, most likely by mistake, would be sent for days
// before the store refuses it.
const sizeMax = 10_000 * 5 << 30

// Write implements gofuse.FileWriter.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n := h.file
	if off > sizeMax-int64(len(data)) {
		return 0, syscall.EFBIG
	}
	if err := n.refuses(h.failures); err != nil {
		return 0, toErrno(err)
	}
	h.wrote.Store(true)
	dctx, leave, err := n.change(ctx)
	if err == nil {
		err = n.write(dctx, data, off, h.failures)
		leave()
	}
	if err != nil {
		return 0, n.fsys.errno("write", n.path(), err)
	}
	return uint32(len(data)), 0
}

// Flush implements gofuse.FileFlusher: onFlush tells what it does.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	n := h.file
	if h.closed.CompareAndSwap(false, true) {
		n.mu.Lock()
		n.closed++
		n.mu.Unlock()
	}
	return h.end(ctx, "close", onFlush(h.writes, h.wrote.Load(), h.isOpener(ctx)))
}

// isOpener reports whether the caller of ctx is the process that opened h.
func (h *handle) isOpener(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	return !ok || caller.Pid == h.opener || h.writes && inProcess(h.opener, caller.Pid)
}

// Fsync implements gofuse.FileFsyncer: after it, another machine sees the data.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	return h.end(ctx, "fsync", onFsync(h.writes))
}

// end does what is due for op, and answers it.
func (h *handle) end(ctx context.Context, op string, d due) syscall.Errno {
	n := h.file
	if d == dueNothing {
		return 0
	}
	if err := n.failedSince(h.failures); err != nil || d == dueFailure {
		return toErrno(err)
	}
	dctx, leave, err := n.change(ctx)
	if err == nil {
		err = n.commitNow(dctx)
		leave()
	}
	if err != nil {
		return n.fsys.errno(op, n.path(), err)
	}
	// What was written here may have gone with somebody else's failed commit.
	return toErrno(n.failedSince(h.failures))
}

// failedSince returns what the last failed commit was answered with, when
// there was one after the first so many.
func (n *file) failedSince(failures int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failures > failures {
		return n.failed
	}
	return nil
}

// refuses returns why nothing is changed by a handle that was opened after so
// many failures: there was another, or the file is somebody else's by now.
func (n *file) refuses(failures int) error {
	if err := n.failedSince(failures); err != nil {
		return err
	}
	if n.isStale() {
		return errStale
	}
	return nil
}

// Release implements gofuse.FileReleaser: the last close of all. Nobody hears
// its errors, so they are logged, and kept for unmount to report.
func (h *handle) Release(ctx context.Context) syscall.Errno {
	if !h.file.fsys.setOpen(h, false) {
		return 0
	}
	h.mu.Lock()
	reader := h.reader
	h.reader = nil
	h.mu.Unlock()
	if reader != nil {
		reader.Close()
	}
	h.file.released(ctx, h)
	return 0
}

// Allocate implements gofuse.FileAllocater: an object has no blocks to
// reserve, only a size.
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	if mode&^keepSize != 0 {
		return syscall.EOPNOTSUPP
	}
	if off > sizeMax || size > sizeMax-off {
		return syscall.EFBIG
	}
	if mode&keepSize != 0 {
		return 0
	}
	if err := h.file.refuses(h.failures); err != nil {
		return toErrno(err)
	}
	h.wrote.Store(true)
	dctx, leave, err := h.file.change(ctx)
	if err == nil {
		err = h.file.growTo(dctx, int64(off+size), h)
		leave()
	}
	if err != nil {
		return h.file.fsys.errno("fallocate", h.file.path(), err)
	}
	return 0
}

package fs

import (
	"context"
	"errors"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"

	"coffer/objstore"
)

// maxCopied is the most bytes that one copy_file_range can report.
const maxCopied = 1 << 30

// CopyFileRange implements gofuse.NodeCopyFileRanger, which cp uses: the bytes
// become part of the other file as they lie in the store, and are copied there,
// where it can, when that file is committed. What does not fit that is left to
// the kernel, which reads and writes.
func (n *file) CopyFileRange(ctx context.Context, _ gofuse.FileHandle, offIn uint64, out *gofuse.Inode, fhOut gofuse.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	to, ok := out.Operations().(*file)
	h, isHandle := fhOut.(*handle)
	if !ok || !isHandle || to == n || flags != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	n.mu.Lock()
	obj, usable := n.obj, n.inStore && !n.local && !n.stale && !n.gone
	n.mu.Unlock()
	if !usable {
		return 0, syscall.EOPNOTSUPP
	}
	count := min(int64(length), obj.Size-int64(offIn), maxCopied)
	if count <= 0 {
		return 0, 0
	}
	dctx, leave, err := to.change(ctx)
	if err == nil {
		err = to.link(dctx, n, obj, int64(offIn), int64(offOut), count, h.failures)
		leave()
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return 0, syscall.EOPNOTSUPP
	}
	if err != nil {
		return 0, to.fsys.errno("copy_file_range", to.path(), err)
	}
	h.wrote.Store(true)
	return uint32(count), 0
}

// link makes n's bytes from off on those of obj, src's object, at from. A file
// lies over one object: it is unsupported where that is another.
func (n *file) link(ctx context.Context, src *file, obj objstore.Object, from, off, count int64, failures int) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	if err := n.failedSince(failures); err != nil {
		return err
	}
	c := &n.content
	ref := obj.Ref(src.bucket.Name())
	ref.Key = src.key()
	switch {
	case c.state == clean && n.currentSize() == 0:
		if err := n.start(ctx); err != nil {
			return err
		}
	case c.state == buffered, c.state == staged && (c.under == nil || c.under.Ref() == ref):
	default:
		return errors.ErrUnsupported
	}
	if err := n.toStage(ctx); err != nil {
		return err
	}
	if c.under == nil {
		c.under = n.fsys.cfg.Cache.OpenReader(src.bucket, ref, obj)
	}
	err := c.stage.Link(c.under, off, from, count)
	n.become(staged, c.stage.Size(), true)
	return err
}

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

// CopyFileRange implements gofuse.NodeCopyFileRanger, which cp uses: what is
// long enough is copied by the store, now, into the upload of the other file,
// and has nothing to do with this one afterwards. What does not fit that is left
// to the kernel, which reads and writes.
func (n *file) CopyFileRange(ctx context.Context, _ gofuse.FileHandle, offIn uint64, out *gofuse.Inode, fhOut gofuse.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	to, ok := out.Operations().(*file)
	h, isHandle := fhOut.(*handle)
	if !ok || !isHandle || to == n || flags != 0 {
		return 0, syscall.EOPNOTSUPP
	}
	n.mu.Lock()
	obj, usable := n.obj, n.inStore && !n.local && !n.stale && !n.gone
	n.mu.Unlock()
	count := min(int64(length), obj.Size-int64(offIn), maxCopied)
	if !usable || count < leastCopy {
		return 0, syscall.EOPNOTSUPP
	}
	src := obj.Ref(n.bucket.Name())
	src.Key = n.key()
	dctx, leave, err := to.change(ctx)
	if err == nil {
		err = to.appendFrom(dctx, src, int64(offIn), int64(offOut), count, h.failures)
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

// appendFrom has the store append count bytes of src at from to the upload of n,
// which has come to off; it is unsupported anywhere else.
func (n *file) appendFrom(ctx context.Context, src objstore.Ref, from, off, count int64, failures int) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	t, err := n.prepare(ctx, event{kind: onCopy, failures: failures, off: off, n: count})
	if err != nil {
		return err
	}
	c := &n.content
	to, ok := c.out.(objstore.RangeCopier)
	if !ok {
		return errors.ErrUnsupported
	}
	err = to.CopyRange(ctx, src, from, count)
	if err == nil {
		err = to.Copied(ctx) // the caller may remove the source now
	}
	if err != nil {
		return n.fail(ctx, t, err)
	}
	c.streamed += count
	n.become(t.to, c.streamed, true)
	return nil
}

package fs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// createOptions describe the object that a commit makes of the file. The
// caller has the turn.
func (n *file) createOptions(size int64) objstore.CreateOptions {
	n.mu.Lock()
	defer n.mu.Unlock()
	opts := objstore.CreateOptions{Meta: objstore.CloneMeta(n.meta), SizeHint: size}
	base := n.content.base
	if base == nil {
		opts.Cond.IfAbsent = true
		return opts
	}
	// The version that was seen at open is what may be replaced; and what
	// the store keeps beside the bytes stays.
	opts.Cond.IfMatch = base.ETag
	opts.Headers = base.Headers
	opts.StorageClass = base.StorageClass
	return opts
}

// Parts of a file that are as they were are copied by the store when they are
// this long: for a shorter one it would take about as many bytes to complete
// the parts of 5 MiB, S3's least, on both sides. Each takes a few part numbers
// of the 10,000 that there are.
const (
	leastCopy  = 10 << 20
	mostCopies = 1000
)

// putObject stores a small object.
func putObject(ctx context.Context, b objstore.Bucket, key string, data []byte, opts objstore.CreateOptions) (objstore.Object, error) {
	w, err := b.Create(ctx, key, opts)
	if err != nil {
		return objstore.Object{}, err
	}
	if _, err = w.Write(data); err == nil {
		var o objstore.Object
		if o, err = w.Commit(ctx); err == nil {
			return o, nil
		}
	}
	return objstore.Object{}, errors.Join(err, w.Abort())
}

// claim makes n, which is new, an empty object, if there is none under its key.
func (n *file) claim(ctx context.Context, meta map[string]string) error {
	o, err := putObject(ctx, n.bucket, n.key(), nil, objstore.CreateOptions{Meta: meta, Cond: objstore.Condition{IfAbsent: true}})
	if err != nil {
		return err
	}
	n.stored(o, meta)
	n.mu.Lock()
	n.meta, n.metaDirty = meta, false
	n.mu.Unlock()
	return nil
}

// commitNow makes the store have all of the file. The caller is inside the
// gate, or keeps everybody else out.
func (n *file) commitNow(ctx context.Context) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	return n.commit(ctx)
}

// commit makes the store have all of the file; the caller has the turn. A
// file without a name has nothing to commit to.
func (n *file) commit(ctx context.Context) error {
	_, err := n.prepare(ctx, event{kind: onCommit, failures: byName})
	return err
}

// sendRest sends what is not sent of the file, which is size bytes long.
func (n *file) sendRest(ctx context.Context, size int64) error {
	c := &n.content
	sent := c.streamed
	if c.out == nil {
		var err error
		if sent, err = c.send(ctx, n.bucket, n.key(), n.createOptions(c.sizeHint())); err != nil {
			return err
		}
	}
	if sent != size {
		return &objstore.Error{Op: "commit", Key: n.path(), Kind: objstore.Integrity,
			Err: fmt.Errorf("%d bytes were sent of a file of %d", sent, size)}
	}
	return nil
}

// finish makes an object of what was sent, size bytes, and drops the bytes.
func (n *file) finish(ctx context.Context, size int64) error {
	c := &n.content
	done, err := c.out.Commit(ctx)
	if err != nil {
		return err
	}
	done.Size, done.SizeKnown = size, true
	c.out = nil
	sent := c.sentMeta
	freed := n.discard()
	n.stored(done, sent)
	if freed != nil {
		n.fsys.log.Warn("scratch not freed", "path", n.path(), "err", freed)
	}
	return nil
}

// sizeHint is the number of bytes that send will send.
func (c *content) sizeHint() int64 {
	if c.stage != nil {
		return c.stage.Size()
	}
	return int64(len(c.head))
}

// send begins the upload of what c holds, and sends all of it. It returns how
// many bytes those were. The writer is left in c.out, after an error too.
func (c *content) send(ctx context.Context, b objstore.Bucket, key string, opts objstore.CreateOptions) (int64, error) {
	var length int64
	if c.stage != nil {
		var unchanged int64
		length, unchanged = c.stage.Copies(leastCopy, mostCopies)
		opts.Ranges = unchanged > 0
	}
	out, err := b.Create(ctx, key, opts)
	if err != nil {
		return 0, err
	}
	c.out, c.sentMeta = out, opts.Meta
	if c.stage != nil {
		return c.stage.WriteTo(ctx, out, c.copyRange(out), length)
	}
	n, err := out.Write(c.head)
	return int64(n), err
}

// copyRange has a writer take bytes of what the stage lies over from the store
// itself; nil where it cannot.
func (c *content) copyRange(out objstore.Writer) cache.RangeCopy {
	to, ok := out.(objstore.RangeCopier)
	if !ok || c.under == nil {
		return nil
	}
	under := c.under.Ref()
	return func(ctx context.Context, off, length int64) error { return to.CopyRange(ctx, under, off, length) }
}

// stored takes over the version that a commit made.
func (n *file) stored(done objstore.Object, sent map[string]string) {
	parent, nm := n.parent()
	base := n.content.base
	parent.didChange(nm)
	n.mu.Lock()
	if done.Headers == (objstore.Headers{}) && base != nil {
		done.Headers, done.StorageClass = base.Headers, base.StorageClass
	}
	n.obj = done
	n.inStore, n.complete = true, true
	n.version++
	n.cached = done.ETag // the kernel's pages are what was written
	n.checked = time.Now()
	if done.LastModified.IsZero() {
		n.checked = time.Time{} // a PUT reply tells no time: ask when somebody wants it
	}
	n.metaDirty = !maps.Equal(sent, n.meta)
	n.mu.Unlock()
}

// changeMeta changes the metadata: with the commit when one is to come, else
// by a copy of the object onto itself.
func (n *file) changeMeta(ctx context.Context, change func(map[string]string) error) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	if err := n.needComplete(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	meta := objstore.CloneMeta(n.meta)
	nowhere, local := !n.inStore && !n.local && !n.gone, n.local
	if !local {
		meta, _ = n.keepingMtimeLocked().MetaOf(meta)
	}
	n.mu.Unlock()
	if nowhere {
		return objstore.NotExist // its only commit has failed
	}
	before := maps.Clone(meta)
	if err := change(meta); err != nil {
		return err
	}
	same := maps.Equal(meta, before)
	n.mu.Lock()
	if !same {
		n.meta = meta
		n.metaDirty, n.touched = true, time.Now()
	}
	n.mu.Unlock()
	if same || local {
		return nil
	}
	return n.storeMeta(ctx)
}

// keepingMtimeLocked is for copies of what the store has of the file.
func (n *file) keepingMtimeLocked() objstore.CopyOptions {
	t := n.obj.LastModified
	if t.IsZero() {
		t = n.wrote // it was committed here, and nobody has asked since
	}
	return n.fsys.keepingMtime(t)
}

// storeMeta copies the object onto itself with the metadata of the file, when
// they differ. The caller has the turn and the content is clean.
func (n *file) storeMeta(ctx context.Context) error {
	n.mu.Lock()
	meta, obj, dirty := objstore.CloneMeta(n.meta), n.obj, n.metaDirty && n.inStore && !n.gone
	n.mu.Unlock()
	if !dirty {
		return nil
	}
	key := n.key()
	done, err := n.bucket.Copy(ctx, key, objstore.Ref{Key: key, ETag: obj.ETag}, objstore.CopyOptions{Meta: meta})
	parent, nm := n.parent()
	parent.didChange(nm)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.metaDirty = false
	if err != nil {
		n.version++
		n.complete, n.meta, n.checked = false, nil, time.Time{}
		return err
	}
	n.carryLocked(done)
	return nil
}

// released is the end of a handle.
func (n *file) released(ctx context.Context, h *handle) {
	n.mu.Lock()
	n.handles--
	if h.writes {
		n.writers--
	}
	if h.closed.Load() {
		n.closed--
	}
	due := onRelease(h.writes, n.gone, n.handles, n.writers)
	n.mu.Unlock()
	switch due {
	case dueRemoval:
		n.removeUnlinked(ctx)
	case dueCommit:
		dctx, leave, err := n.change(ctx)
		if err == nil {
			err = n.commitLast(dctx)
			leave()
		}
		if err != nil {
			n.fsys.errno("release", n.path(), err)
			n.fsys.addLost(err)
		}
	}
}

// awaitReleases gives handles that are closed a moment to be released. The kernel sends
// RELEASE before close(2) returns, but waits for no answer, so what follows may
// overtake it and meet a file that looks open: an unlink would put the DELETE
// off, a rename copy an object for nobody. Where a descriptor that a child
// process inherited was closed and others are open, it waits in vain, 0.1 s.
func (n *file) awaitReleases() {
	for pause := 50 * time.Microsecond; pause < 100*time.Millisecond; pause *= 2 {
		n.mu.Lock()
		settled := n.closed == 0 || n.handles > n.closed
		n.mu.Unlock()
		if settled {
			return
		}
		time.Sleep(pause)
	}
}

// commitLast commits what the last writer left, unless the file has been
// opened for writing again by the time that its turn comes.
func (n *file) commitLast(ctx context.Context) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	n.mu.Lock()
	again := n.writers > 0
	n.mu.Unlock()
	if again {
		return nil
	}
	return n.commit(ctx)
}

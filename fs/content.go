package fs

import (
	"context"
	"errors"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// state is where the bytes of a file are that the store does not have.
//
//	          first write at 0              head full
//	clean ----------------------> buffered -----------> streaming
//	  |                              |                      |
//	  | any other write, truncate    | not sequential,      | not sequential,
//	  |                              | unlinked             | read back
//	  +----------> staged <----------+----------------------+
//
// A commit leads from every state to clean, or to clean with a sticky error.
type state int

const (
	// clean: there are none.
	clean state = iota
	// buffered: all of the file is in head.
	buffered
	// streaming: all of the file went into out, in order.
	streaming
	// staged: the file is stage, over what the store has.
	staged
)

// headMax is how much of a file is kept in memory before its upload begins.
// Programs that come back to the start of a file (archivers, linkers) mostly
// do so early; up to here that costs nothing.
const headMax = 4 << 20

// content is the part of a file that the store does not have. Every field is
// guarded by the file's turn.
type content struct {
	state state
	// base is the version that the commit replaces; nil: the key was absent.
	base *objstore.Object
	head []byte
	// out is the upload under way; sentMeta is what it was begun with.
	out      objstore.Writer
	sentMeta map[string]string
	streamed int64
	stage    *cache.Stage
	under    *cache.Reader // what stage lies over, nil if nothing
}

// beginNew makes n a file that was created here; no other goroutine knows it yet.
func (n *file) beginNew(meta map[string]string) {
	n.content.state = buffered
	n.meta, n.complete, n.local, n.wrote = meta, true, true, time.Now()
	n.fsys.setDirty(n, true)
}

// become moves to a state; size is the file's. The caller has the turn.
func (n *file) become(s state, size int64, wrote bool) {
	n.content.state = s
	n.mu.Lock()
	n.local = s != clean
	n.size = size
	if wrote {
		n.wrote = time.Now()
		// A time that was set before this write is no longer the file's.
		n.meta = withoutMtime(n.meta)
	}
	n.mu.Unlock()
	n.fsys.setDirty(n, s != clean)
}

// currentSize returns the size that a stat shows.
func (n *file) currentSize() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.local {
		return n.size
	}
	return n.obj.Size
}

// start leaves the clean state: what the store has becomes the base.
// The caller has the turn.
func (n *file) start(ctx context.Context) error {
	if err := n.needComplete(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.content.base = nil
	if n.inStore {
		base := n.obj
		n.content.base = &base
	}
	return nil
}

// write puts p at off, by a handle that was opened after so many failures.
func (n *file) write(ctx context.Context, p []byte, off int64, failures int) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	if err := n.refuses(failures); err != nil {
		return err
	}
	c := &n.content
	size := n.currentSize()
	end := max(size, off+int64(len(p)))
	if c.state == clean {
		if err := n.start(ctx); err != nil {
			return err
		}
		if size == 0 && off == 0 {
			n.become(buffered, 0, true)
		} else if err := n.toStage(ctx); err != nil {
			return err
		}
	}
	n.mu.Lock()
	gone := n.gone
	n.mu.Unlock()
	if c.state == buffered {
		switch {
		case off != int64(len(c.head)):
			if err := n.toStage(ctx); err != nil {
				return err
			}
		case end <= headMax && n.growHead(len(p)):
			c.head = append(c.head, p...)
			n.become(buffered, end, true)
			return nil
		case gone:
			// Nothing is uploaded for a file without a name.
			if err := n.toStage(ctx); err != nil {
				return err
			}
		default:
			if err := n.toStream(ctx, false); err != nil {
				return n.fail(err, notWhole)
			}
		}
	}
	if c.state == streaming {
		if off == c.streamed {
			if _, err := c.out.Write(p); err != nil {
				return n.fail(err, notWhole)
			}
			c.streamed += int64(len(p))
			n.become(streaming, end, true)
			return nil
		}
		if err := n.toStage(ctx); err != nil {
			return err
		}
	}
	_, err := c.stage.WriteAt(p, off)
	// After an error the size is that of what did fit.
	n.become(staged, c.stage.Size(), true)
	return err
}

// growHead makes room for m more bytes in head, within the byte budget that
// all files share; false when the budget is used up and the bytes have to go.
func (n *file) growHead(m int) bool {
	c := &n.content
	if cap(c.head)-len(c.head) >= m {
		return true
	}
	want := min(max(2*cap(c.head), len(c.head)+m, 4<<10), headMax)
	if !n.fsys.cfg.Cache.Budget().TryHold(int64(want - cap(c.head))) {
		return false
	}
	head := make([]byte, len(c.head), want)
	copy(head, c.head)
	c.head = head
	return true
}

// dropHead forgets the head and gives its bytes back to the budget.
func (n *file) dropHead() {
	if m := cap(n.content.head); m > 0 {
		n.fsys.cfg.Cache.Budget().ReleaseHeld(int64(m))
	}
	n.content.head = nil
}

// toStream begins the upload with what the head holds; ranges tells that bytes
// of other objects will follow.
func (n *file) toStream(ctx context.Context, ranges bool) error {
	c := &n.content
	opts := n.createOptions(0)
	opts.Ranges, opts.Keep = ranges, true
	out, err := n.bucket.Create(context.WithoutCancel(ctx), n.key(), opts)
	if err != nil {
		return err
	}
	c.out, c.sentMeta, c.streamed = out, opts.Meta, int64(len(c.head))
	c.state = streaming
	_, err = out.Write(c.head)
	n.dropHead()
	return err
}

// toStage moves to a staged file from any state. An upload under way is
// completed first: parts cannot be read back. That publishes what was written
// so far, which SEMANTICS.md says.
func (n *file) toStage(ctx context.Context) error {
	c := &n.content
	switch c.state {
	case staged:
		return nil
	case buffered:
		stage, err := n.fsys.cfg.Cache.NewStage(nil, 0)
		if err != nil {
			return err
		}
		if _, err := stage.WriteAt(c.head, 0); err != nil && len(c.head) > 0 {
			return errors.Join(err, stage.Close())
		}
		n.dropHead()
		c.stage = stage
		n.become(staged, stage.Size(), false)
		return nil
	case streaming:
		n.mu.Lock()
		gone := n.gone
		n.mu.Unlock()
		if gone {
			return &objstore.Error{Op: "stage", Key: n.path(), Kind: objstore.Unsupported,
				Err: errors.New("the file was unlinked while it was being uploaded; only writing on is possible")}
		}
		if err := n.commit(ctx); err != nil {
			return err
		}
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if c.base == nil || c.base.Size == 0 {
		stage, err := n.fsys.cfg.Cache.NewStage(nil, 0)
		if err != nil {
			return err
		}
		c.stage = stage
	} else {
		ref := c.base.Ref(n.bucket.Name())
		ref.Key = n.key()
		c.under = n.fsys.cfg.Cache.OpenReader(n.bucket, ref, *c.base)
		stage, err := n.fsys.cfg.Cache.NewStage(c.under, c.base.Size)
		if err != nil {
			c.under.Close()
			c.under = nil
			return err
		}
		c.stage = stage
	}
	n.become(staged, c.stage.Size(), false)
	return nil
}

// readLocal reads bytes that the store does not have; ok is false when it
// has them by now.
func (n *file) readLocal(ctx context.Context, dest []byte, off int64) (got int, ok bool, err error) {
	// Reading back an upload commits it, which is a change.
	parent, _ := n.parent()
	leave, err := n.fsys.gate.enter(ctx, parent)
	if err != nil {
		return 0, false, err
	}
	defer leave()
	if err := n.turn.take(ctx); err != nil {
		return 0, false, err
	}
	defer n.turn.release()
	c := &n.content
	switch c.state {
	case clean:
		return 0, false, nil
	case buffered:
		if off >= int64(len(c.head)) {
			return 0, true, nil
		}
		return copy(dest, c.head[off:]), true, nil
	case streaming:
		if err := n.toStage(context.WithoutCancel(ctx)); err != nil {
			return 0, false, err
		}
	}
	if off >= c.stage.Size() {
		return 0, true, nil
	}
	want := min(int64(len(dest)), c.stage.Size()-off)
	got, err = c.stage.ReadAt(ctx, dest[:want], off)
	if int64(got) == want {
		err = nil // an end of file beside a full read is no news
	}
	return got, true, err
}

// truncate sets the size, through h or by name with nil. By name it is
// committed at once, unless a writer has more to commit.
func (n *file) truncate(ctx context.Context, size int64, h *handle) error {
	if err := n.fsys.protected(ctx, n.bucket, n.key()); err != nil {
		return err
	}
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	if h != nil {
		if err := n.refuses(h.failures); err != nil {
			return err
		}
	}
	before := n.content.state
	if size == n.currentSize() && before == clean {
		return nil
	}
	if err := n.resize(ctx, size); err != nil {
		return err
	}
	n.mu.Lock()
	writers := n.writers
	n.mu.Unlock()
	// A writer may have closed already, of which the kernel tells late.
	if h != nil || writers > 0 && before != clean {
		return nil
	}
	return n.commit(ctx)
}

// truncateAtOpen empties the file as part of the next commit: a program that
// is killed between open and close leaves the old object.
func (n *file) truncateAtOpen(ctx context.Context, h *handle) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	n.mu.Lock()
	h.failures = n.failures // what failed before has nothing to do with what begins here
	n.mu.Unlock()
	return n.resize(ctx, 0)
}

// growTo makes the file at least size bytes long.
func (n *file) growTo(ctx context.Context, size int64, h *handle) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	if err := n.refuses(h.failures); err != nil {
		return err
	}
	if size <= n.currentSize() {
		return nil
	}
	return n.resize(ctx, size)
}

// resize sets the size; the caller has the turn.
func (n *file) resize(ctx context.Context, size int64) error {
	c := &n.content
	if c.state == clean {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if size == 0 {
		// Nothing of what was there is needed; the base stays what the
		// commit will replace.
		err := n.discard()
		n.become(buffered, 0, true)
		return err
	}
	if c.state == buffered && size <= headMax && n.growHead(max(0, int(size)-len(c.head))) {
		old := len(c.head)
		c.head = c.head[:size]
		if int(size) > old {
			clear(c.head[old:])
		}
		n.become(buffered, size, true)
		return nil
	}
	if c.state == streaming && size == c.streamed {
		return nil
	}
	if err := n.toStage(ctx); err != nil {
		return err
	}
	if err := c.stage.Truncate(size); err != nil {
		return err
	}
	n.become(staged, size, true)
	return nil
}

// discard frees all local bytes; the caller has the turn and sets the state.
func (n *file) discard() error {
	c := &n.content
	var errs []error
	n.dropHead()
	if c.out != nil {
		errs = append(errs, c.out.Abort())
	}
	if c.stage != nil {
		errs = append(errs, c.stage.Close())
	}
	if c.under != nil {
		errs = append(errs, c.under.Close())
	}
	c.out, c.stage, c.under, c.sentMeta, c.streamed = nil, nil, nil, nil, 0
	return errors.Join(errs...)
}

// notWhole is what fail says of a file that the program had not written to its end.
const notWhole = "no: the program had not ended"

// fail drops what cannot be committed, unless rescue has kept it, and makes err
// the answer to every write, fsync and close by the handles that are open now.
// kept tells the log where it is kept. The caller has the turn.
func (n *file) fail(err error, kept string) error {
	n.mu.Lock()
	lost := n.size
	n.failed = err
	n.failures++
	n.metaDirty = false
	n.checked = time.Time{}
	n.complete = false
	n.cached = "" // the kernel's pages are of what was not stored
	n.mu.Unlock()
	n.fsys.notes.contentChanged(n.EmbeddedInode())
	dropped := n.discard()
	n.become(clean, 0, false)
	n.fsys.log.Error("data not stored; the program was told", "path", n.path(), "bytes", lost, "kept", kept, "err", errors.Join(err, dropped))
	return err
}

// sizeHint is the number of bytes that a commit will send, 0 when unknown.
func (c *content) sizeHint() int64 {
	switch c.state {
	case buffered:
		return int64(len(c.head))
	case staged:
		return c.stage.Size()
	}
	return 0
}

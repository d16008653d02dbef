package fs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

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
	n.local = s.local()
	n.size = size
	if wrote {
		n.wrote = time.Now()
		// A time that was set before this write is no longer the file's.
		n.meta = withoutMtime(n.meta)
	}
	n.mu.Unlock()
	n.fsys.setDirty(n, s.local())
}

// present returns what the next step depends on. The caller has the turn.
func (n *file) present() present {
	c := &n.content
	n.mu.Lock()
	defer n.mu.Unlock()
	return present{
		state: c.state, size: n.sizeLocked(), room: int64(cap(c.head) - len(c.head)),
		gone: n.gone, stale: n.stale, failures: n.failures, rewrite: n.fsys.cfg.RewriteMax,
	}
}

// prepare takes the steps that ev needs until it can be applied to the bytes
// where they are then, or there is nothing to do. The caller has the turn.
func (n *file) prepare(ctx context.Context, ev event) (transition, error) {
	for full := false; ; {
		p := n.present()
		p.full = full
		t := next(p, ev)
		size, wrote := p.size, false
		var err error
		switch t.step {
		case doNothing, doApply:
			return t, nil
		case doTell:
			return t, n.refuses(ev.failures)
		case doRefuse:
			return t, &objstore.Error{Op: "stage", Key: n.path(), Kind: objstore.Unsupported,
				Err: errors.New("the file was unlinked while it was being uploaded; only writing on is possible")}
		case doExceed:
			return t, &objstore.Error{Op: "stage", Key: n.path(), Kind: objstore.TooLarge,
				Err: fmt.Errorf("all of it is encrypted and sent anew when some of it changes, and with %d bytes it is longer than the limit for that, %d bytes (cse-rewrite-max); it is as it was", p.size, p.rewrite)}
		case doDecline:
			return t, errors.ErrUnsupported
		case doBegin:
			size, wrote = 0, true
			err = n.start(ctx)
		case doDiscard:
			size, wrote = 0, true
			if err = n.discard(); err != nil {
				n.become(t.orElse, size, wrote)
			}
		case doEnlarge:
			full = !n.growHead(ev.off + ev.n)
		case doSpill:
			err = n.spill()
		case doOverlay:
			size, err = n.overlay(ctx)
		case doUpload:
			err = n.upload(ctx, ev.kind == onCopy)
		case doSend:
			err = n.sendRest(ctx, size)
		case doComplete:
			err = n.finish(ctx, size)
		}
		if err != nil {
			return t, n.fail(ctx, t, err)
		}
		n.become(t.to, size, wrote)
		if t.step == doComplete {
			// Attributes that came after the upload began cost a copy.
			if err := n.storeMeta(ctx); err != nil {
				return t, err
			}
		}
	}
}

// currentSize returns the size that a stat shows.
func (n *file) currentSize() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sizeLocked()
}

func (n *file) sizeLocked() int64 {
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
	t, err := n.prepare(ctx, event{kind: onWrite, failures: failures, off: off, n: int64(len(p))})
	if err != nil {
		return err
	}
	c := &n.content
	size := off + int64(len(p))
	switch t.to {
	case buffered:
		c.head = append(c.head, p...)
	case streaming:
		if _, err := c.out.Write(p); err != nil {
			return n.fail(ctx, t, err)
		}
		c.streamed = size
	case staged:
		_, err = c.stage.WriteAt(p, off)
		size = c.stage.Size() // after an error that of what did fit
	}
	n.become(t.to, size, true)
	return err
}

// growHead makes room for size bytes in head, within the byte budget that all
// files share; false when the budget is used up and the bytes have to go.
func (n *file) growHead(size int64) bool {
	c := &n.content
	want := min(max(2*cap(c.head), int(size), 4<<10), headMax)
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

// upload begins the upload with what the head holds; ranges tells that bytes
// of other objects will follow.
func (n *file) upload(ctx context.Context, ranges bool) error {
	c := &n.content
	opts := n.createOptions(0)
	opts.Ranges, opts.Keep = ranges, true
	out, err := n.bucket.Create(context.WithoutCancel(ctx), n.key(), opts)
	if err != nil {
		return err
	}
	c.out, c.sentMeta, c.streamed = out, opts.Meta, int64(len(c.head))
	_, err = out.Write(c.head)
	n.dropHead()
	return err
}

// spill moves the head to a stage.
func (n *file) spill() error {
	c := &n.content
	stage, err := n.fsys.cfg.Cache.NewStage(nil, 0)
	if err != nil {
		return err
	}
	if _, err := stage.WriteAt(c.head, 0); err != nil && len(c.head) > 0 {
		return errors.Join(err, stage.Close())
	}
	n.dropHead()
	c.stage = stage
	return nil
}

// overlay makes a stage over what the store has, and returns its size.
func (n *file) overlay(ctx context.Context) (int64, error) {
	if err := n.start(ctx); err != nil {
		return 0, err
	}
	c := &n.content
	var under cache.Base
	var size int64
	if c.base != nil && c.base.Size > 0 {
		ref := c.base.Ref(n.bucket.Name())
		ref.Key = n.key()
		c.under = n.fsys.cfg.Cache.OpenReader(n.bucket, ref, *c.base)
		under, size = c.under, c.base.Size
	}
	stage, err := n.fsys.cfg.Cache.NewStage(under, size)
	if err != nil && c.under != nil {
		c.under.Close()
		c.under = nil
	}
	c.stage = stage
	return size, err
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
	t, err := n.prepare(context.WithoutCancel(ctx), event{kind: onReadBack, failures: byName})
	if err != nil {
		return 0, false, err
	}
	if !t.to.local() {
		return 0, false, nil
	}
	if t.to == buffered {
		if off >= int64(len(c.head)) {
			return 0, true, nil
		}
		return copy(dest, c.head[off:]), true, nil
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

// truncate sets the size, through h or by name with nil.
func (n *file) truncate(ctx context.Context, size int64, h *handle) error {
	if err := n.fsys.protected(ctx, n.bucket, n.key()); err != nil {
		return err
	}
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	ev := event{kind: onTruncate, failures: byName, n: size}
	if h != nil {
		ev.failures = h.failures
	}
	before := n.content.state
	if err := n.resize(ctx, ev); err != nil {
		return err
	}
	n.mu.Lock()
	writers := n.writers
	n.mu.Unlock()
	if onResized(h == nil, writers, before) == dueCommit {
		return n.commit(ctx)
	}
	return nil
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
	return n.resize(ctx, event{kind: onOpenTruncate, failures: byName})
}

// growTo makes the file at least size bytes long.
func (n *file) growTo(ctx context.Context, size int64, h *handle) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	return n.resize(ctx, event{kind: onAllocate, failures: h.failures, n: size})
}

// resize sets the size to ev.n; the caller has the turn.
func (n *file) resize(ctx context.Context, ev event) error {
	t, err := n.prepare(ctx, ev)
	if err != nil || t.step == doNothing {
		return err
	}
	c := &n.content
	if t.to == buffered {
		old := len(c.head)
		c.head = c.head[:ev.n]
		clear(c.head[min(old, len(c.head)):])
	} else if err := c.stage.Truncate(ev.n); err != nil {
		return err
	}
	n.become(t.to, ev.n, true)
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

// fail returns err, which ended a step. When that is the end of the bytes, too,
// it keeps them for rescue or drops them, and makes err the answer to every
// write, fsync and close by the handles that are open now. The caller has the
// turn.
func (n *file) fail(ctx context.Context, t transition, err error) error {
	if t.orElse != failed {
		return err
	}
	kept := "no: the program had not ended"
	if t.step == doSend || t.step == doComplete {
		parent, nm := n.parent()
		parent.didChange(nm) // what is there by now is the store's to tell
		var why error
		if kept, why = n.rescue(ctx, err); why != nil {
			kept = "no: " + why.Error()
		}
	}
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
	n.become(t.orElse, 0, false)
	n.fsys.log.Error("data not stored; the program was told", "path", n.path(), "bytes", lost, "kept", kept, "err", errors.Join(err, dropped))
	return err
}

package fs

import (
	"context"
	"syscall"
	"time"

	"coffer/objstore"
)

// Unlink implements gofuse.NodeUnlinker. The name is gone at once. The bytes
// of a file that is still open stay readable on this mount: its object is
// deleted at the last close.
func (d *dir) Unlink(ctx context.Context, nm string) syscall.Errno {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	defer leave()
	key := d.prefix() + nm
	d.keepAlive(dctx)
	n := d.liveFile(nm)
	if n == nil {
		err := d.deleteKeys(dctx, key)
		d.didChange(nm)
		return d.fsys.errno("unlink", path(d.bucket, key), err)
	}
	if err := n.turn.take(dctx); err != nil {
		return toErrno(err)
	}
	defer n.turn.release()
	n.mu.Lock()
	open, inStore := n.handles > 0, n.inStore
	n.mu.Unlock()
	if !open && inStore {
		if err := d.deleteKeys(dctx, key); err != nil {
			return d.fsys.errno("unlink", path(d.bucket, key), err)
		}
	}
	d.fsys.keepIno(n.StableAttr().Ino)
	n.mu.Lock()
	n.gone = true
	n.deferred = open && inStore
	n.version++
	n.mu.Unlock()
	switch {
	case open && inStore:
		d.mu.Lock()
		if d.unlinked == nil {
			d.unlinked = map[string]int{}
		}
		d.unlinked[nm]++
		d.mu.Unlock()
	case !open:
		if err := n.discard(); err != nil {
			d.fsys.log.Warn("scratch not freed", "path", path(d.bucket, key), "err", err)
		}
		n.become(clean, 0, false)
	}
	d.didChange(nm)
	return 0
}

// deleteKeys removes objects; the first error is returned.
func (d *dir) deleteKeys(ctx context.Context, keys ...string) error {
	refs := make([]objstore.Ref, len(keys))
	for i, k := range keys {
		refs[i] = objstore.Ref{Key: k}
	}
	for _, err := range d.bucket.Delete(ctx, refs...) {
		if err != nil {
			return err
		}
	}
	return nil
}

// removeUnlinked ends a file without a name after its last close.
func (n *file) removeUnlinked(ctx context.Context) {
	dctx, leave, err := n.change(ctx)
	if err != nil {
		return
	}
	defer leave()
	if err := n.turn.take(dctx); err != nil {
		return
	}
	defer n.turn.release()
	if err := n.discard(); err != nil {
		n.fsys.log.Warn("scratch not freed", "path", n.path(), "err", err)
	}
	n.become(clean, 0, false)
	parent, nm := n.parent()
	n.mu.Lock()
	deferred := n.deferred
	n.deferred = false
	n.mu.Unlock()
	if !deferred || !parent.takeUnlinked(nm) {
		return // nothing is left in the store, or the name was given to another file
	}
	if err := parent.deleteKeys(dctx, n.key()); err != nil {
		n.fsys.errno("unlink", n.path(), err)
		n.fsys.addLost(err)
	}
	parent.didChange(nm)
}

// takeUnlinked ends the wait of one unlinked name; false when there is none.
func (d *dir) takeUnlinked(nm string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unlinked[nm] == 0 {
		return false
	}
	if d.unlinked[nm]--; d.unlinked[nm] == 0 {
		delete(d.unlinked, nm)
	}
	return true
}

// clearUnlinked deletes the object that still lies under a name, because the
// name is about to be used again.
func (d *dir) clearUnlinked(ctx context.Context, nm string) error {
	d.mu.Lock()
	waiting := d.unlinked[nm] > 0
	delete(d.unlinked, nm)
	d.mu.Unlock()
	if !waiting {
		return nil
	}
	defer d.didChange(nm)
	return d.deleteKeys(ctx, d.prefix()+nm)
}

// Rmdir implements gofuse.NodeRmdirer.
func (d *dir) Rmdir(ctx context.Context, nm string) syscall.Errno {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	defer leave()
	key := d.prefix() + nm + "/"
	if ch := d.live(nm); ch != nil {
		if sub, ok := ch.Operations().(*dir); ok {
			if sub.hasLocal() {
				return syscall.ENOTEMPTY
			}
			if err := sub.clearAllUnlinked(dctx); err != nil {
				return d.fsys.errno("rmdir", path(d.bucket, key), err)
			}
		}
	}
	if err := d.removeEmpty(dctx, key); err != nil {
		return d.fsys.errno("rmdir", path(d.bucket, key), err)
	}
	if ch := d.live(nm); ch != nil {
		d.fsys.keepIno(ch.StableAttr().Ino)
	}
	d.didChange(nm)
	return 0
}

// removeEmpty removes the marker key of a directory that holds nothing else.
func (d *dir) removeEmpty(ctx context.Context, key string) error {
	marker := false
	for e, err := range d.bucket.List(ctx, objstore.Query{Prefix: key, Limit: 2}) {
		if err != nil {
			return err
		}
		if e.Key != key {
			return objstore.NotEmpty
		}
		marker = true
	}
	d.keepAlive(ctx)
	if !marker {
		return nil
	}
	return d.deleteKeys(ctx, key)
}

// clearAllUnlinked deletes the objects of all names that are unlinked and
// still open: their directory goes.
func (d *dir) clearAllUnlinked(ctx context.Context) error {
	d.mu.Lock()
	var nms []string
	for nm := range d.unlinked {
		nms = append(nms, nm)
	}
	d.mu.Unlock()
	for _, nm := range nms {
		if err := d.clearUnlinked(ctx, nm); err != nil {
			return err
		}
	}
	return nil
}

// hasLocal reports whether a file below d is known to this mount only.
func (d *dir) hasLocal() bool {
	for _, ch := range d.Children() {
		switch n := ch.Operations().(type) {
		case *file:
			n.mu.Lock()
			local := n.local && !n.gone
			n.mu.Unlock()
			if local {
				return true
			}
		case *dir:
			if n.hasLocal() {
				return true
			}
		}
	}
	return false
}

// replaced makes n a file without a name, because a rename put another in its
// place. Its bytes are gone with the object; its attributes stay.
func (n *file) replaced(ctx context.Context) {
	if err := n.turn.take(ctx); err != nil {
		return
	}
	defer n.turn.release()
	n.fsys.keepIno(n.StableAttr().Ino)
	if err := n.discard(); err != nil {
		n.fsys.log.Warn("scratch not freed", "path", n.path(), "err", err)
	}
	n.become(clean, 0, false)
	n.mu.Lock()
	n.gone = true
	n.version++
	n.checked = time.Now()
	n.mu.Unlock()
}

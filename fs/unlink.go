package fs

import (
	"context"
	"strings"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"

	"coffer/objstore"
)

// unlinkedName is a name that was unlinked here and whose object is there yet.
// The name is hidden; the object is deleted after the last close of owner, or
// when the name is used again; without an owner, with its batch.
type unlinkedName struct {
	owner *file
	// left is the version that is there to delete, "" for any.
	left objstore.ETag
	// deleting is closed when the DELETE under way, or to come with a batch,
	// has ended; nil before.
	deleting chan struct{}
}

// isUnlinked reports whether name is hidden.
func (d *dir) isUnlinked(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unlinked[name] != nil
}

// Unlink implements gofuse.NodeUnlinker. The name is gone at once. The bytes
// of a file that is still open stay readable on this mount: its object is
// deleted at the last close.
func (d *dir) Unlink(ctx context.Context, nm string) syscall.Errno {
	if d.fsys.tmpNames.has(nm) {
		return 0
	}
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	key := d.prefix() + nm
	d.keepAlive(dctx)
	later := false
	if n := d.liveFile(nm); n != nil {
		n.awaitReleases()
		later, err = n.unlink(dctx, d, nm)
	} else if later = d.fsys.cfg.UnlinkBatched; later {
		d.hide(nm, unlinkedName{})
	} else {
		err = d.deleteKeys(dctx, key)
	}
	if later {
		d.deleteLater(nm, leave)
	} else {
		defer leave()
	}
	if err == nil {
		d.fsys.keepIno(d.GetChild(nm))
		d.namesChanged()
		d.didUnlink()
	}
	d.didChange(nm)
	return d.fsys.errno("unlink", path(d.bucket, key), err)
}

// unlink takes the name nm away from n. With later the name is hidden, and the
// caller has the object deleted.
func (n *file) unlink(ctx context.Context, d *dir, nm string) (later bool, err error) {
	if err := n.turn.take(ctx); err != nil {
		return false, err
	}
	defer n.turn.release()
	n.mu.Lock()
	left := n.obj.ETag
	n.mu.Unlock()
	// The name is hidden before it is known whether it has to be: a close that
	// runs at the same time must find one or the other.
	d.hide(nm, unlinkedName{owner: n, left: left})
	n.mu.Lock()
	open, inStore := n.handles > 0, n.inStore
	if open {
		n.gone = true
		n.deferred = inStore
		n.version++
	}
	n.mu.Unlock()
	if open && inStore {
		return false, nil
	}
	later = inStore && d.fsys.cfg.UnlinkBatched
	if later {
		d.hide(nm, unlinkedName{})
	} else {
		defer d.forgetUnlinked(nm)
	}
	if open {
		return false, nil // nothing is in the store, and nothing will be
	}
	if inStore && !later {
		if err := d.deleteKeys(ctx, d.prefix()+nm); err != nil {
			return false, err
		}
	}
	n.mu.Lock()
	n.gone = true
	n.version++
	n.mu.Unlock()
	n.drop()
	return later, nil
}

// hide makes nm a name whose object is still to be deleted, as u says.
func (d *dir) hide(nm string, u unlinkedName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unlinked == nil {
		d.unlinked = map[string]*unlinkedName{}
	}
	d.unlinked[nm] = &u
}

// drop frees the local bytes of a file that lost its name; the caller has the
// turn.
func (n *file) drop() {
	if err := n.discard(); err != nil {
		n.fsys.log.Warn("scratch not freed", "path", n.path(), "err", err)
	}
	n.become(clean, 0, false)
}

func (d *dir) forgetUnlinked(nm string) {
	d.mu.Lock()
	delete(d.unlinked, nm)
	d.mu.Unlock()
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

// moveAside keeps the bytes of an open file whose name is about to be another's:
// the store copies its object to a scratch name, under the same encryption,
// until the last close. The file has no name from then on; back undoes it,
// where the name stays. The caller has the turn.
func (n *file) moveAside(ctx context.Context) (back func(), err error) {
	nothing := func() {}
	n.mu.Lock()
	wanted := n.inStore && n.handles > 0
	n.mu.Unlock()
	if !wanted {
		return nothing, nil
	}
	if err := n.needComplete(ctx); err != nil {
		return nothing, err
	}
	n.mu.Lock()
	obj, gone, deferred := n.obj, n.gone, n.deferred
	n.mu.Unlock()
	old, key := n.key(), n.fsys.cfg.Prefix+objstore.ScratchPrefix+"gone-"+randomName(8)
	e := obj.Encryption
	done, err := n.bucket.Copy(ctx, key, objstore.Ref{Key: old, ETag: obj.ETag}, objstore.CopyOptions{
		Encryption: objstore.Encryption{Mode: e.Mode, KMSKeyID: e.KMSKeyID, CustomerKeyMD5: e.CustomerKeyMD5, BucketKey: e.BucketKey},
	})
	if err != nil {
		n.removeScratch(ctx, key) // it may be there all the same
		return nothing, err
	}
	done.Size = obj.Size
	n.lieUnder(key, old, done, true, true)
	return func() {
		n.lieUnder("", key, obj, gone, deferred)
		n.removeScratch(ctx, key)
	}, nil
}

// removeScratch deletes what lies under a scratch name. It works after ctx has
// ended too.
func (n *file) removeScratch(ctx context.Context, key string) {
	if err := n.bucket.Delete(context.WithoutCancel(ctx), objstore.Ref{Key: key})[0]; err != nil {
		n.fsys.log.Warn("a scratch object could not be removed", "path", path(n.bucket, key), "err", err)
	}
}

// lieUnder takes over that the object of n, which was under old, is obj under
// aside, or under its name with "".
func (n *file) lieUnder(aside, old string, obj objstore.Object, gone, deferred bool) {
	n.fsys.tree.Lock()
	n.aside = aside
	n.fsys.tree.Unlock()
	if c := &n.content; c.under != nil && c.under.Ref().Key == old {
		ref := obj.Ref(n.bucket.Name())
		ref.Key = n.key()
		was := c.under
		c.under = n.fsys.cfg.Cache.OpenReader(n.bucket, ref, obj)
		c.stage.Rebase(c.under)
		was.Close()
	}
	n.mu.Lock()
	n.carryLocked(obj)
	n.gone, n.deferred = gone, deferred
	n.mu.Unlock()
}

// takeAside returns the scratch name that n's object lies under, "" for none,
// for the caller to delete it: nobody else gets it.
func (n *file) takeAside() string {
	n.fsys.tree.Lock()
	defer n.fsys.tree.Unlock()
	key := n.aside
	n.aside = ""
	return key
}

// removeUnlinked ends a file without a name after its last close.
func (n *file) removeUnlinked(ctx context.Context) {
	dctx, leave, err := n.change(ctx)
	if err == nil {
		defer leave()
		err = n.turn.take(dctx)
	}
	if err != nil {
		n.fsys.addLost(err)
		return
	}
	defer n.turn.release()
	n.mu.Lock()
	gone, deferred := n.gone, n.deferred
	n.deferred = false
	n.mu.Unlock()
	if !gone {
		return // a rename over it has failed meanwhile, and it keeps its name
	}
	n.drop()
	if key := n.takeAside(); key != "" {
		n.removeScratch(dctx, key)
		return
	}
	if !deferred {
		return
	}
	parent, nm := n.parent()
	if err := parent.deleteUnlinked(dctx, nm, n); err != nil {
		n.fsys.errno("unlink", n.path(), err)
		n.fsys.addLost(err)
		parent.forgetUnlinked(nm) // it is there, and shows again
	}
	parent.didChange(nm)
}

// clearUnlinked deletes the object that still lies under a name, because the
// name is about to be used again, and keeps it for those who have it open.
func (d *dir) clearUnlinked(ctx context.Context, nm string) error {
	d.mu.Lock()
	u := d.unlinked[nm]
	d.mu.Unlock()
	if u == nil {
		return nil
	}
	if u.owner != nil {
		if err := u.owner.leaveName(ctx); err != nil {
			return err
		}
	}
	err := d.deleteUnlinked(ctx, nm, nil)
	d.didChange(nm)
	return err
}

// leaveName moves the object of an unlinked file that is open from its name.
func (n *file) leaveName(ctx context.Context) error {
	if err := n.turn.take(ctx); err != nil {
		return err
	}
	defer n.turn.release()
	n.mu.Lock()
	waits := n.gone && n.deferred
	n.mu.Unlock()
	if waits {
		if _, err := n.moveAside(ctx); err != nil {
			n.fsys.log.Warn("who has this unlinked file open can no longer read it", "path", n.path(), "err", err)
		}
	}
	return nil
}

// deleteUnlinked deletes the object under an unlinked name, if owner (or, with
// nil, anybody) is the one who left it there. The name stays hidden until the
// store has answered: a DELETE that is being repeated must not meet a
// successor.
func (d *dir) deleteUnlinked(ctx context.Context, nm string, owner *file) error {
	for {
		d.mu.Lock()
		u := d.unlinked[nm]
		if u == nil || owner != nil && u.owner != owner {
			d.mu.Unlock()
			return nil
		}
		under := u.deleting
		if under == nil {
			u.deleting = make(chan struct{})
		}
		d.mu.Unlock()
		if under != nil {
			d.fsys.hurryUnlinks(d.bucket)
			select {
			case <-under:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := d.deleteVersion(ctx, d.prefix()+nm, u.left)
		d.mu.Lock()
		close(u.deleting)
		u.deleting = nil
		if err == nil {
			delete(d.unlinked, nm)
		}
		d.mu.Unlock()
		return err
	}
}

// deleteVersion removes an object that was left for a while, unless somebody
// else has stored or removed it meanwhile. There is no condition for that which
// all stores honour.
func (d *dir) deleteVersion(ctx context.Context, key string, left objstore.ETag) error {
	_, err := d.bucket.Head(ctx, objstore.Ref{Key: key, ETag: left})
	switch {
	case err == nil:
		return d.deleteKeys(ctx, key)
	case objstore.KindOf(err) == objstore.Stale, objstore.KindOf(err) == objstore.NotExist:
		return nil
	}
	return err
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

// Rmdir implements gofuse.NodeRmdirer.
func (d *dir) Rmdir(ctx context.Context, nm string) syscall.Errno {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	defer leave()
	key := d.prefix() + nm + "/"
	marker, err := d.emptied(dctx, nm)
	if err == nil {
		d.keepAlive(dctx)
		if marker {
			err = d.deleteKeys(dctx, key)
		}
	}
	if err != nil {
		return d.fsys.errno("rmdir", path(d.bucket, key), err)
	}
	d.fsys.keepIno(d.GetChild(nm))
	d.didChange(nm)
	d.namesChanged()
	return 0
}

// emptied fails with NotEmpty unless the directory nm holds nothing but its
// marker, and names that are unlinked and still open, whose objects it then
// deletes. It reports whether there is a marker.
func (d *dir) emptied(ctx context.Context, nm string) (marker bool, err error) {
	var sub *dir
	if ch := d.live(nm); ch != nil {
		sub, _ = ch.Operations().(*dir)
	}
	if sub != nil && sub.hasLocal() {
		return false, objstore.NotEmpty
	}
	if sub != nil {
		if err := sub.settleUnlinks(ctx); err != nil {
			return false, err
		}
	}
	prefix := d.prefix() + nm + "/"
	for e, err := range d.bucket.List(ctx, objstore.Query{Prefix: prefix}) {
		if err != nil {
			return false, err
		}
		rest := strings.TrimPrefix(e.Key, prefix)
		switch {
		case rest == "":
			marker = true
		case sub == nil || !sub.isUnlinked(rest):
			return false, objstore.NotEmpty
		}
	}
	if sub != nil {
		if err := sub.clearAllUnlinked(ctx); err != nil {
			return false, err
		}
	}
	if !marker {
		unlisted, err := unlistedMarker(ctx, d.bucket, prefix)
		return unlisted != nil, err
	}
	return marker, nil
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

// lose makes the inode that a rename replaced one without a name. Its
// attributes stay, and what was written to it as long as it is open. The caller
// has the turn of a file.
func (f *filesystem) lose(ctx context.Context, target *gofuse.Inode) {
	if target == nil {
		return
	}
	f.keepIno(target)
	if n, ok := target.Operations().(*file); ok {
		n.mu.Lock()
		n.gone = true
		n.version++
		n.checked = time.Now()
		open := n.handles > 0
		n.mu.Unlock()
		if open {
			return
		}
		n.drop()
		if key := n.takeAside(); key != "" {
			n.removeScratch(ctx, key) // it was closed while it was moved
		}
	}
}

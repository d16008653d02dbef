package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sync/errgroup"

	"coffer/objstore"
)

const (
	renameNoReplace = 1 // RENAME_NOREPLACE of renameat2(2)
	// copiesInFlight bounds the copies of a directory's rename: they cost
	// the store work and this machine nothing.
	copiesInFlight = 32
	deleteBatch    = 1000
)

// Rename implements gofuse.NodeRenamer: copies inside the store, which keep
// metadata and encryption, then deletes.
func (d *dir) Rename(ctx context.Context, nm string, newParent gofuse.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*dir)
	if !ok || to.bucket.Name() != d.bucket.Name() {
		return syscall.EXDEV
	}
	if flags&^renameNoReplace != 0 {
		return syscall.EINVAL
	}
	dctx, cancel := detached(ctx)
	defer cancel()
	if err := d.rename(dctx, nm, to, newName, flags); err != nil {
		return d.fsys.errno("rename", path(d.bucket, d.prefix()+nm), err)
	}
	return 0
}

func (d *dir) rename(ctx context.Context, nm string, to *dir, newName string, flags uint32) error {
	if d == to && nm == newName {
		return nil
	}
	if err := checkKey(to.prefix() + newName); err != nil {
		return err
	}
	if err := to.fsys.protected(ctx, to.bucket, to.prefix()+newName); err != nil {
		return err
	}
	if flags&renameNoReplace != 0 {
		if n := to.liveFile(newName); n != nil && n.isLocal() {
			return objstore.Exist
		}
		if _, err := to.find(ctx, newName); err == nil {
			return objstore.Exist
		} else if objstore.KindOf(err) != objstore.NotExist {
			return err
		}
	}
	ch := d.live(nm)
	if ch == nil {
		return errStale // the kernel looked it up before, and does so again
	}
	switch n := ch.Operations().(type) {
	case *file:
		return n.renameTo(ctx, d, nm, to, newName)
	case *symlink:
		return n.renameTo(ctx, d, nm, to, newName)
	case *dir:
		return n.renameTo(ctx, d, nm, to, newName)
	}
	return syscall.EINVAL
}

// replacing prepares the target of a file's rename: a name that still lies
// there unlinked is cleared, and the file that it names loses it afterwards.
func (d *dir) replacing(ctx context.Context, nm string) (target *gofuse.Inode, err error) {
	if err := d.clearUnlinked(ctx, nm); err != nil {
		return nil, err
	}
	target = d.live(nm)
	if target != nil && target.IsDir() {
		return nil, syscall.EISDIR
	}
	return target, nil
}

// lose makes the inode that a rename replaced one without a name.
func (f *filesystem) lose(ctx context.Context, target *gofuse.Inode) {
	if target == nil {
		return
	}
	f.keepIno(target.StableAttr().Ino)
	if n, ok := target.Operations().(*file); ok {
		n.replaced(ctx)
	}
}

// renameTo moves a file. What the store does not have of it is committed
// first; handles stay good and follow to the new key.
func (n *file) renameTo(ctx context.Context, d *dir, nm string, to *dir, newName string) error {
	leave, err := n.fsys.gate.enter(ctx, d, to)
	if err != nil {
		return err
	}
	defer leave()
	target, err := to.replacing(ctx, newName)
	if err != nil {
		return err
	}
	d.keepAlive(ctx)
	done, err := n.copyTo(ctx, to.prefix()+newName, func(done objstore.Object) {
		n.fsys.tree.Lock()
		n.place = place{to, newName}
		n.fsys.tree.Unlock()
	})
	if err != nil {
		return err
	}
	_ = done
	n.fsys.keepIno(n.StableAttr().Ino)
	n.fsys.lose(ctx, target)
	err = d.deleteKeys(ctx, d.prefix()+nm)
	d.didChange(nm)
	to.didChange(newName)
	return err
}

// copyTo copies the committed file to another key; switched is called while
// no write can come between.
func (n *file) copyTo(ctx context.Context, key string, switched func(objstore.Object)) (objstore.Object, error) {
	if err := n.turn.take(ctx); err != nil {
		return objstore.Object{}, err
	}
	defer n.turn.release()
	if err := n.commit(ctx); err != nil {
		return objstore.Object{}, err
	}
	if err := n.storeMeta(ctx); err != nil {
		return objstore.Object{}, err
	}
	n.mu.Lock()
	obj := n.obj
	n.mu.Unlock()
	done, err := n.bucket.Copy(ctx, key, objstore.Ref{Key: n.key(), ETag: obj.ETag}, objstore.CopyOptions{})
	if err != nil {
		return objstore.Object{}, err
	}
	switched(done)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.version++
	n.carryLocked(done)
	return done, nil
}

// carryLocked takes over the version that a copy of the file made: the bytes
// and the metadata are the same.
func (n *file) carryLocked(done objstore.Object) {
	done.Size, done.SizeKnown = n.obj.Size, true
	if done.Headers == (objstore.Headers{}) {
		done.Headers = n.obj.Headers
	}
	if done.StorageClass == "" {
		done.StorageClass = n.obj.StorageClass
	}
	if n.cached == n.obj.ETag {
		n.cached = done.ETag
	}
	n.obj = done
	n.checked = time.Now()
	if done.LastModified.IsZero() || done.Encryption.Mode == objstore.ModeAuto {
		n.checked = time.Time{} // the reply of a copy tells little: ask when somebody wants it
	}
}

// renameTo moves a symbolic link.
func (l *symlink) renameTo(ctx context.Context, d *dir, nm string, to *dir, newName string) error {
	leave, err := l.fsys.gate.enter(ctx, d, to)
	if err != nil {
		return err
	}
	defer leave()
	target, err := to.replacing(ctx, newName)
	if err != nil {
		return err
	}
	d.keepAlive(ctx)
	done, err := d.bucket.Copy(ctx, to.prefix()+newName, objstore.Ref{Key: d.prefix() + nm}, objstore.CopyOptions{})
	if err != nil {
		return err
	}
	l.fsys.tree.Lock()
	l.place = place{to, newName}
	l.fsys.tree.Unlock()
	l.mu.Lock()
	l.obj.ETag = done.ETag
	l.mu.Unlock()
	l.fsys.keepIno(l.StableAttr().Ino)
	l.fsys.lose(ctx, target)
	err = d.deleteKeys(ctx, d.prefix()+nm)
	d.didChange(nm)
	to.didChange(newName)
	return err
}

// renameTo moves a directory: all objects are copied before the first is
// deleted, so that a failure in between loses nothing; the copies that were
// made are then removed again.
func (sub *dir) renameTo(ctx context.Context, d *dir, nm string, to *dir, newName string) error {
	if err := to.clearUnlinked(ctx, newName); err != nil {
		return err
	}
	target := to.live(newName)
	if target != nil && !target.IsDir() {
		return syscall.ENOTDIR
	}
	done, err := d.fsys.gate.move(ctx, sub, d, to)
	if err != nil {
		return err
	}
	defer done()
	if err := sub.clearAllUnlinked(ctx); err != nil {
		return err
	}
	if err := sub.commitAll(ctx); err != nil {
		return err
	}
	from, dest := d.prefix()+nm+"/", to.prefix()+newName+"/"
	for e, err := range to.bucket.List(ctx, objstore.Query{Prefix: dest, Limit: 2}) {
		if err != nil {
			return err
		}
		if e.Key != dest {
			return objstore.NotEmpty
		}
	}
	d.keepAlive(ctx)
	keys, copied, err := sub.copyAll(ctx, from, dest)
	if err != nil {
		return errors.Join(err, to.deleteMany(ctx, copied))
	}
	d.fsys.tree.Lock()
	sub.place = place{to, newName}
	d.fsys.tree.Unlock()
	sub.moved()
	d.fsys.lose(ctx, target)
	err = d.deleteMany(ctx, keys)
	d.didChange(nm)
	to.didChange(newName)
	return err
}

// commitAll commits every file below d.
func (d *dir) commitAll(ctx context.Context) error {
	for _, ch := range d.Children() {
		var err error
		switch n := ch.Operations().(type) {
		case *file:
			err = n.commitNow(ctx)
		case *dir:
			err = n.commitAll(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyAll copies the objects below from to below dest. It returns the keys
// that it met and the copies that it made, those before an error included.
func (d *dir) copyAll(ctx context.Context, from, dest string) (keys, copied []string, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(copiesInFlight)
	for e, listErr := range d.bucket.List(gctx, objstore.Query{Prefix: from}) {
		if listErr != nil {
			err = listErr
			break
		}
		key := dest + e.Key[len(from):]
		if err = checkKey(key); err != nil || gctx.Err() != nil {
			break
		}
		keys = append(keys, e.Key)
		copied = append(copied, key)
		g.Go(func() error {
			_, err := d.bucket.Copy(gctx, key, objstore.Ref{Key: e.Key, ETag: e.ETag}, objstore.CopyOptions{})
			return err
		})
	}
	if copyErr := g.Wait(); copyErr != nil {
		err = copyErr // what ended the listing, if it was ended by that
	}
	return keys, copied, err
}

// deleteMany removes keys, all of them even when some fail.
func (d *dir) deleteMany(ctx context.Context, keys []string) error {
	var first error
	for len(keys) > 0 {
		batch := keys[:min(len(keys), deleteBatch)]
		keys = keys[len(batch):]
		if err := d.deleteKeys(ctx, batch...); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// moved tells every inode below d that its key is another: handles follow,
// numbers stay, and the store is asked anew.
func (d *dir) moved() {
	d.fsys.keepIno(d.StableAttr().Ino)
	d.mu.Lock()
	d.listed = nil
	d.mu.Unlock()
	for _, ch := range d.Children() {
		switch n := ch.Operations().(type) {
		case *file:
			d.fsys.keepIno(ch.StableAttr().Ino)
			n.mu.Lock()
			n.version++
			n.checked = time.Time{}
			n.carried = true
			n.mu.Unlock()
		case *symlink:
			d.fsys.keepIno(ch.StableAttr().Ino)
		case *dir:
			n.moved()
		}
	}
}

package fs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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
	if !d.samePolicy(nm, to, newName) {
		return syscall.EXDEV
	}
	if err := d.rename(context.WithoutCancel(ctx), nm, to, newName, flags); err != nil {
		return d.fsys.errno("rename", path(d.bucket, d.prefix()+nm), err)
	}
	return 0
}

// samePolicy reports whether both names lie under the same kind of encryption
// policy. Of a directory its own prefix counts, and not rules for parts of it:
// those decide for each object that is copied.
func (d *dir) samePolicy(nm string, to *dir, newName string) bool {
	p, ok := d.bucket.(objstore.Policies)
	if !ok {
		return true
	}
	end := ""
	if ch := d.live(nm); ch != nil && ch.IsDir() {
		end = "/"
	}
	return p.SamePolicy(d.prefix()+nm+end, to.prefix()+newName+end)
}

func (d *dir) rename(ctx context.Context, nm string, to *dir, newName string, flags uint32) error {
	if d == to && nm == newName {
		return nil
	}
	if flags&renameNoReplace != 0 && !to.isUnlinked(newName) {
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
	if sub, ok := ch.Operations().(*dir); ok {
		return sub.renameTo(ctx, d, nm, to, newName)
	}
	return d.renameFile(ctx, ch, nm, to, newName)
}

// renameFile moves a file or a symbolic link. What the store does not have of
// it is committed first; handles stay good and follow to the new key. Nobody
// can write to the file, nor to the one that it replaces, before it is over.
func (d *dir) renameFile(ctx context.Context, ch *gofuse.Inode, nm string, to *dir, newName string) error {
	leave, err := d.fsys.gate.enter(ctx, d, to)
	if err != nil {
		return err
	}
	defer leave()
	oldKey, newKey := d.prefix()+nm, to.prefix()+newName
	if err := to.prepare(ctx, newName, newKey); err != nil {
		return err
	}
	target := to.live(newName)
	if target != nil && target.IsDir() {
		return syscall.EISDIR
	}
	if target != nil {
		if old, ok := target.Operations().(*file); ok {
			old.awaitReleases()
		}
	}
	release, err := takeTurns(ctx, ch, target)
	if err != nil {
		return err
	}
	defer release()
	src := objstore.Ref{Key: oldKey}
	n, isFile := ch.Operations().(*file)
	if isFile {
		if src.ETag, err = n.settle(ctx); err != nil {
			return err
		}
	}
	d.keepAlive(ctx)
	defer func() {
		d.didChange(nm)
		to.didChange(newName)
	}()
	back := func() {}
	if target != nil {
		if old, ok := target.Operations().(*file); ok {
			if back, err = old.moveAside(ctx); err != nil {
				d.fsys.log.Warn("who has the replaced file open can no longer read it", "path", old.path(), "err", err)
			}
		}
	}
	var opts objstore.CopyOptions
	switch n := ch.Operations().(type) {
	case *file:
		n.mu.Lock()
		opts = n.keepingMtimeLocked()
		n.mu.Unlock()
	case *special:
		opts = d.fsys.keepingMtime(n.object().LastModified)
	}
	done, err := d.bucket.Copy(ctx, newKey, src, opts)
	if err != nil {
		back()
		return err
	}
	if err := d.deleteKeys(ctx, oldKey); err != nil {
		// Both are there, and the file stays what it was. Where the copy
		// replaced nothing it goes again.
		if target == nil {
			return errors.Join(err, d.deleteKeys(context.WithoutCancel(ctx), newKey))
		}
		if old, ok := target.Operations().(*file); ok {
			back() // its name is another's, and it keeps it: who has it open finds it stale
			old.mu.Lock()
			old.stale = true
			old.mu.Unlock()
		}
		return err
	}
	d.fsys.heads.forget(d.bucket.Name(), newKey)
	d.fsys.keepIno(ch)
	d.fsys.lose(ctx, target)
	d.fsys.tree.Lock()
	if isFile {
		n.place = place{to, newName}
	} else if l, ok := ch.Operations().(*special); ok {
		l.place = place{to, newName}
	}
	d.fsys.tree.Unlock()
	switch n := ch.Operations().(type) {
	case *file:
		n.mu.Lock()
		n.carryLocked(done)
		if n.meta != nil {
			n.meta, _ = opts.MetaOf(n.meta)
		}
		n.mu.Unlock()
	case *special:
		meta, _ := opts.MetaOf(n.object().Meta)
		n.carry(done, meta)
	}
	d.namesChanged()
	to.namesChanged()
	return nil
}

// takeTurns takes the turns of those of the inodes that are files. It is the
// only place where two are taken, and takes them in the order of their
// numbers.
func takeTurns(ctx context.Context, inodes ...*gofuse.Inode) (release func(), err error) {
	var files []*file
	for _, i := range inodes {
		if i != nil {
			if n, ok := i.Operations().(*file); ok {
				files = append(files, n)
			}
		}
	}
	slices.SortFunc(files, func(a, b *file) int {
		if a.StableAttr().Ino < b.StableAttr().Ino {
			return -1
		}
		return 1
	})
	for i, n := range files {
		if err := n.turn.take(ctx); err != nil {
			for _, held := range files[:i] {
				held.turn.release()
			}
			return nil, err
		}
	}
	return func() {
		for _, n := range files {
			n.turn.release()
		}
	}, nil
}

// settle commits bytes and attributes, and returns the version that the store
// then has. The caller has the turn.
func (n *file) settle(ctx context.Context) (objstore.ETag, error) {
	if err := n.commit(ctx); err != nil {
		return "", err
	}
	if err := n.storeMeta(ctx); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.obj.ETag, nil
}

// carryLocked takes over the version that a copy of the file made: the bytes
// and the metadata are the same.
func (n *file) carryLocked(done objstore.Object) {
	n.version++
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

// renameTo moves a directory: all objects are copied before the first is
// deleted, so that a failure in between loses nothing; the copies that were
// made are then removed again. The gate keeps every change below out.
func (sub *dir) renameTo(ctx context.Context, d *dir, nm string, to *dir, newName string) error {
	from, dest := d.prefix()+nm+"/", to.prefix()+newName+"/"
	target := to.live(newName)
	if target != nil && !target.IsDir() {
		return syscall.ENOTDIR
	}
	leave, err := d.fsys.gate.move(ctx, sub, d, to)
	if err != nil {
		return err
	}
	defer leave()
	if err := to.prepare(ctx, newName, dest); err != nil {
		return err
	}
	m := move{fsys: d.fsys, bucket: d.bucket, from: from, dest: dest, live: map[string]*file{}, made: map[*file]objstore.Object{}}
	replaces, err := to.emptied(ctx, newName)
	again := objstore.KindOf(err) == objstore.NotEmpty && !to.isUsed(newName)
	if err != nil && !again {
		return err
	}
	if err := sub.settleAll(ctx); err != nil {
		return err
	}
	if again {
		if err := m.takeUp(ctx); err != nil {
			return err
		}
	}
	d.keepAlive(ctx)
	sub.keepAlive(ctx) // so that it is found under its new name: another mount asks for its marker first
	defer func() {
		d.didChange(nm)
		to.didChange(newName)
	}()
	sub.liveFiles(m.live)
	if err := m.copyAll(ctx); err != nil {
		if again {
			return err // as before, with some copies more
		}
		// Not with ctx: what was begun is cleaned up whatever ended it.
		return errors.Join(err, m.undo(context.WithoutCancel(ctx), d, replaces))
	}
	m.putNote(ctx)
	if err := m.deleteAll(ctx, d); err != nil {
		return err // some are there twice, none is lost: renaming again goes on here
	}
	m.removeNote(ctx)
	// Markers are all alike but for their metadata: what was remembered of the
	// target's would be taken for the new one's.
	d.fsys.listings.forget(d.bucket.Name(), dest)
	d.fsys.heads.forget(d.bucket.Name(), dest)
	for _, key := range m.keys {
		d.fsys.heads.forget(d.bucket.Name(), dest+strings.TrimPrefix(key, from))
	}
	d.fsys.tree.Lock()
	sub.place = place{to, newName}
	d.fsys.tree.Unlock()
	sub.moved(m.made)
	d.namesChanged()
	to.namesChanged()
	d.fsys.lose(ctx, target)
	return nil
}

// settleAll commits every file below d, and ends the files that are unlinked
// and still open: what they left does not move along.
func (d *dir) settleAll(ctx context.Context) error {
	if err := d.clearAllUnlinked(ctx); err != nil {
		return err
	}
	for _, ch := range d.Children() {
		var err error
		switch n := ch.Operations().(type) {
		case *file:
			err = n.commitNow(ctx)
		case *dir:
			err = n.settleAll(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// liveFiles adds the files below d that the kernel knows, by key.
func (d *dir) liveFiles(m map[string]*file) {
	for _, ch := range d.Children() {
		switch n := ch.Operations().(type) {
		case *file:
			m[n.key()] = n
		case *dir:
			n.liveFiles(m)
		}
	}
}

// move is the rename of a directory's objects.
type move struct {
	fsys       *filesystem
	bucket     objstore.Bucket
	from, dest string
	keys       []string         // below from, without the marker
	marked     bool             // there is a marker
	live       map[string]*file // by key
	made       map[*file]objstore.Object
	copied     map[string]objstore.Object // by key: copies that an earlier rename has made
}

// copyAll copies the objects below from to below dest, the marker last.
func (m *move) copyAll(ctx context.Context) error {
	// A copy that fails does not cancel those under way: the store would make
	// them all the same, perhaps after they have been removed again.
	var (
		g      errgroup.Group
		failed atomic.Bool
	)
	g.SetLimit(copiesInFlight)
	type result struct {
		n    *file
		done objstore.Object
	}
	results := make(chan result, len(m.live))
	var stop error
	var marker *objstore.Entry
	for e, err := range m.bucket.List(ctx, objstore.Query{Prefix: m.from}) {
		if err != nil {
			stop = err
			break
		}
		if e.Key == m.from {
			marker = &e
			continue
		}
		key := m.dest + e.Key[len(m.from):]
		if stop = checkKey(key); stop != nil || failed.Load() {
			break
		}
		m.keys = append(m.keys, e.Key)
		if done, ok := m.copied[e.Key]; ok {
			if n := m.live[e.Key]; n != nil {
				results <- result{n, done}
			}
			continue
		}
		g.Go(func() error {
			done, err := m.bucket.Copy(ctx, key, objstore.Ref{Key: e.Key, ETag: e.ETag}, m.fsys.keepingMtime(e.LastModified))
			if err != nil {
				failed.Store(true)
				return err
			}
			if n := m.live[e.Key]; n != nil {
				results <- result{n, done}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err // it ended the listing too
	}
	if stop != nil {
		return stop
	}
	close(results)
	for r := range results {
		m.made[r.n] = r.done
	}
	if marker == nil {
		var err error
		if marker, err = unlistedMarker(ctx, m.bucket, m.from); err != nil {
			return err
		}
	}
	if m.marked = marker != nil; m.marked {
		_, err := m.bucket.Copy(ctx, m.dest, objstore.Ref{Key: m.from}, m.fsys.keepingMtime(marker.LastModified))
		return err
	}
	return nil
}

// undo removes the copies. The marker of a directory that was there before
// stays.
func (m *move) undo(ctx context.Context, d *dir, replaces bool) error {
	copies := make([]string, 0, len(m.keys)+1)
	for _, k := range m.keys {
		copies = append(copies, m.dest+k[len(m.from):])
	}
	if m.marked && !replaces {
		copies = append(copies, m.dest)
	}
	return d.deleteMany(ctx, copies)
}

// deleteAll removes what was copied: the marker, by which the rest stays a
// directory, when the rest is gone.
func (m *move) deleteAll(ctx context.Context, d *dir) error {
	if err := d.deleteMany(ctx, m.keys); err != nil || !m.marked {
		return err
	}
	return d.deleteKeys(ctx, m.from)
}

// deleteMany removes keys, which ascend, from the bottom of the tree up, and all of them
// even when some fail.
func (d *dir) deleteMany(ctx context.Context, keys []string) error {
	var first error
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	for batch := range slices.Chunk(keys, deleteBatch) {
		if err := d.deleteKeys(ctx, batch...); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// moved tells every inode below d that its key is another: handles follow to
// the copies that were made, numbers stay.
func (d *dir) moved(made map[*file]objstore.Object) {
	d.fsys.keepIno(d.EmbeddedInode())
	d.beginListing()
	for _, ch := range d.Children() {
		switch n := ch.Operations().(type) {
		case *file:
			d.fsys.keepIno(ch)
			n.mu.Lock()
			if done, ok := made[n]; ok {
				n.carryLocked(done)
				n.complete = false // the copy says when it was written, the original may not have
			} else {
				n.stale = true // it was looked up while its directory moved
			}
			n.mu.Unlock()
		case *special:
			d.fsys.keepIno(ch)
		case *dir:
			n.moved(made)
		}
	}
}

package fs

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// The marker of a directory: an empty object whose key ends in "/". It keeps
// the directory alive without files, and its metadata are the directory's
// attributes.

// learn takes over what the store says of the marker.
func (d *dir) learn(f finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marked = f.hasObj
	switch {
	case !f.hasObj:
		d.complete, d.meta = true, nil
	case f.complete:
		if d.complete && !attributesOf(d.meta).mtime.Equal(attributesOf(f.obj.Meta).mtime) {
			d.named = time.Time{} // somebody else has set it
		}
		d.complete, d.meta, d.modified = true, objstore.CloneMeta(f.obj.Meta), inSeconds(f.obj.LastModified)
	case !d.complete:
		d.modified = inSeconds(f.obj.LastModified)
	}
}

// setMarker notes a marker that this mount stored.
func (d *dir) setMarker(meta map[string]string, modified time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marked, d.complete, d.meta, d.modified, d.named = true, true, meta, inSeconds(modified), time.Time{}
}

func (d *dir) fillAttr(out *fuse.Attr) {
	cfg := &d.fsys.cfg
	stored := d.fsys.full() || !d.hasMarkerKey()
	d.mu.Lock()
	var a attributes
	if stored {
		a = attributesOf(d.meta)
	}
	modified, named := d.modified, d.named
	d.mu.Unlock()
	out.Ino = d.StableAttr().Ino
	cfg.fillOwner(out, a, syscall.S_IFDIR, cfg.DirMode)
	// One link: programs that count subdirectories by links, as find does
	// with two and more, look into each entry instead.
	out.Nlink = 1
	changed := modified
	if !named.IsZero() {
		a.mtime = named
		if named.After(changed) {
			changed = named
		}
	}
	a.fillTimes(out, modified, changed)
}

// isStickyLocked reports whether the kernel may look at the owner of a file that
// is to be unlinked from d.
func (d *dir) isStickyLocked() bool {
	a := attributesOf(d.meta)
	return !d.complete || a.hasMode && a.mode&syscall.S_ISVTX != 0 || !a.hasMode && d.fsys.cfg.DirMode&syscall.S_ISVTX != 0
}

// Getattr implements gofuse.NodeGetattrer.
func (d *dir) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.fillAttr(&out.Attr)
	out.SetTimeout(d.fsys.cfg.MetadataTTL)
	return 0
}

// Setattr implements gofuse.NodeSetattrer.
func (d *dir) Setattr(ctx context.Context, _ gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, ok := in.GetSize(); ok {
		return syscall.EISDIR
	}
	err := d.changeMeta(ctx, func(meta map[string]string) error {
		a := attributesOf(meta)
		a.change(in, syscall.S_IFDIR)
		a.put(meta, d.fsys.cfg.Convention)
		return nil
	})
	if err != nil {
		return d.fsys.errno("setattr", path(d.bucket, d.prefix()), err)
	}
	d.fillAttr(&out.Attr)
	out.SetTimeout(d.fsys.cfg.MetadataTTL)
	return 0
}

// changeMeta changes the metadata of d by storing its marker anew. A bucket,
// or the root of a mount, has no marker: there they live as long as the mount,
// for cp -a and tar set them and must not fail.
func (d *dir) changeMeta(ctx context.Context, change func(map[string]string) error) error {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := d.needComplete(dctx); err != nil {
		return err
	}
	d.mu.Lock()
	meta := objstore.CloneMeta(d.meta)
	// The marker is dated anew; the names are as old as before.
	a := attributesOf(meta)
	switch {
	case !d.named.IsZero():
		a.mtime = d.named
	case a.mtime.IsZero():
		a.mtime = d.modified
	}
	d.mu.Unlock()
	a.put(meta, d.fsys.cfg.Convention)
	if err := change(meta); err != nil {
		return err
	}
	if !d.hasMarkerKey() {
		d.mu.Lock()
		d.meta, d.modified, d.named = meta, time.Now(), time.Time{}
		d.mu.Unlock()
		d.fsys.mu.Lock()
		d.fsys.attrs[d.bucket.Name()] = meta
		d.fsys.mu.Unlock()
		return nil
	}
	if err := d.putMarker(dctx, meta, objstore.Condition{}); err != nil {
		return err
	}
	d.setMarker(meta, time.Now())
	return nil
}

// needComplete asks for the metadata of the marker unless it is known: what is
// stored anew must not lose what somebody else has put there.
func (d *dir) needComplete(ctx context.Context) error {
	d.mu.Lock()
	complete := d.complete
	d.mu.Unlock()
	if complete {
		return nil
	}
	o, err := d.fsys.heads.ask(ctx, d.bucket, d.prefix())
	switch {
	case err == nil:
		d.learn(finding{obj: o, hasObj: true, complete: true})
	case objstore.KindOf(err) == objstore.NotExist:
		d.learn(finding{})
	default:
		return err
	}
	return nil
}

// hasMarkerKey reports whether d can have a marker: not a bucket, nor the
// root of the mount.
func (d *dir) hasMarkerKey() bool {
	d.fsys.tree.RLock()
	defer d.fsys.tree.RUnlock()
	return d.place.parent != nil
}

// putMarker stores the marker of d.
func (d *dir) putMarker(ctx context.Context, meta map[string]string, cond objstore.Condition) error {
	prefix := d.prefix()
	if err := d.fsys.protected(ctx, d.bucket, prefix); err != nil {
		return err
	}
	_, err := putObject(ctx, d.bucket, prefix, nil, objstore.CreateOptions{
		Meta: meta, Headers: objstore.Headers{ContentType: directoryType}, Cond: cond,
	})
	d.fsys.listings.forget(d.bucket.Name(), prefix)
	d.fsys.heads.forget(d.bucket.Name(), prefix)
	return err
}

// directoryType is the content type of markers.
const directoryType = "application/x-directory"

// unlistedMarker returns the marker under key that a listing of this prefix did not
// show, nil if there is none: some servers, S3Proxy among them, list what lies below a
// prefix and not what is called so.
func unlistedMarker(ctx context.Context, b objstore.Bucket, key string) (*objstore.Entry, error) {
	o, err := b.Head(ctx, objstore.Ref{Key: key})
	switch kind := objstore.KindOf(err); {
	case err == nil:
		return &o.Entry, nil
	case kind == objstore.NotExist, kind == objstore.Permission:
		return nil, nil
	}
	return nil, err
}

// keepAlive gives d a marker before a name below it goes: a directory lives
// until its rmdir, not until its last file.
func (d *dir) keepAlive(ctx context.Context) {
	d.mu.Lock()
	marked := d.marked
	d.mu.Unlock()
	if marked || !d.hasMarkerKey() {
		return
	}
	err := d.putMarker(ctx, map[string]string{}, objstore.Condition{IfAbsent: true})
	switch {
	case err == nil:
		d.setMarker(map[string]string{}, time.Now())
	case objstore.KindOf(err) == objstore.Exist:
		d.mu.Lock()
		d.marked, d.complete = true, false // somebody else's, with what we do not know
		d.mu.Unlock()
	default:
		// The name below can go all the same; only the directory may go with it.
		d.fsys.log.Debug("no marker for directory", "path", path(d.bucket, d.prefix()), "err", err)
	}
}

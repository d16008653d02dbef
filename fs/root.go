package fs

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// root is the directory of all buckets of the account.
type root struct {
	gofuse.Inode
	fsys *filesystem
	born time.Time

	mu      sync.Mutex
	changed time.Time // when this mount last made or removed a bucket
}

func (f *filesystem) newRoot() *root {
	now := time.Now()
	return &root{fsys: f, born: now, changed: now}
}

func (r *root) namesChanged() {
	r.mu.Lock()
	r.changed = time.Now()
	r.mu.Unlock()
}

func (r *root) fillAttr(out *fuse.Attr) {
	cfg := &r.fsys.cfg
	cfg.fillOwner(out, attributes{}, syscall.S_IFDIR, cfg.DirMode)
	out.Nlink = 1
	r.mu.Lock()
	t := r.changed
	r.mu.Unlock()
	attributes{}.fillTimes(out, t, t)
}

// Getattr implements gofuse.NodeGetattrer.
func (r *root) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	r.fillAttr(&out.Attr)
	out.SetTimeout(r.fsys.cfg.MetadataTTL)
	return 0
}

// Setattr implements gofuse.NodeSetattrer: there is nothing to keep it in.
func (r *root) Setattr(ctx context.Context, f gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return syscall.EPERM
}

// Lookup implements gofuse.NodeLookuper. It asks for the bucket by name, so
// that it works with keys that may not list the buckets.
func (r *root) Lookup(ctx context.Context, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	q, end := question(ctx)
	defer end()
	b, err := r.fsys.bucket(q, nm)
	if err != nil {
		k := objstore.KindOf(err)
		if k == objstore.InvalidName || k == objstore.NameTooLong {
			// Desktop tools look for names like ".Trash" in every directory.
			return nil, syscall.ENOENT
		}
		return nil, r.fsys.errno("lookup", nm, err)
	}
	return r.adopt(ctx, nm, b, out), 0
}

func (r *root) adopt(ctx context.Context, nm string, b objstore.Bucket, out *fuse.EntryOut) *gofuse.Inode {
	var d *dir
	ch := r.GetChild(nm)
	if ch != nil {
		d, _ = ch.Operations().(*dir)
	}
	if d == nil {
		d = r.fsys.newDir(b, place{nil, nm}, "")
		d.modified = r.born
		r.fsys.keepIno(ch)
		ch = r.NewInode(ctx, d, gofuse.StableAttr{Mode: syscall.S_IFDIR, Ino: r.fsys.newIno(nm, "")})
	}
	d.fillAttr(&out.Attr)
	r.fsys.entryTimeouts(out, r.fsys.cfg.MetadataTTL)
	return ch
}

// Mkdir implements gofuse.NodeMkdirer: a new bucket, encrypted and proved so.
func (r *root) Mkdir(ctx context.Context, nm string, _ uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	dctx := context.WithoutCancel(ctx)
	r.fsys.forgetBucket(nm)
	enc, err := r.fsys.cfg.Store.CreateBucket(dctx, nm, objstore.CreateBucketOptions{AllowUnencrypted: r.fsys.cfg.AllowUnencrypted})
	if err != nil {
		if errors.Is(err, objstore.Unencrypted) {
			r.fsys.log.Warn("no bucket was made: the store does not encrypt, or it could not be proved; "+
				"use another store, or mount with --allow-unencrypted to store plaintext", "bucket", nm, "err", err)
		}
		return nil, r.fsys.errno("mkdir", nm, err)
	}
	r.namesChanged()
	r.fsys.log.Info("bucket created", "bucket", nm, "encryption", enc.Word())
	b, err := r.fsys.bucket(dctx, nm)
	if err != nil {
		return nil, r.fsys.errno("mkdir", nm, err)
	}
	return r.adopt(ctx, nm, b, out), 0
}

// Rmdir implements gofuse.NodeRmdirer: the bucket goes when it is empty.
func (r *root) Rmdir(ctx context.Context, nm string) syscall.Errno {
	if ch := r.GetChild(nm); ch != nil {
		if d, ok := ch.Operations().(*dir); ok {
			if d.hasLocal() {
				return syscall.ENOTEMPTY
			}
			if err := d.settleUnlinks(context.WithoutCancel(ctx)); err != nil {
				return r.fsys.errno("rmdir", nm, err)
			}
		}
	}
	if err := r.fsys.cfg.Store.DeleteBucket(context.WithoutCancel(ctx), nm); err != nil {
		return r.fsys.errno("rmdir", nm, err)
	}
	r.fsys.forgetBucket(nm)
	r.namesChanged()
	return 0
}

// Unlink implements gofuse.NodeUnlinker: there are only directories here.
func (r *root) Unlink(context.Context, string) syscall.Errno { return syscall.EISDIR }

// Create implements gofuse.NodeCreater: a file lies in a bucket.
func (r *root) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EPERM
}

// Mknod implements gofuse.NodeMknoder.
func (r *root) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Symlink implements gofuse.NodeSymlinker.
func (r *root) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Link implements gofuse.NodeLinker.
func (r *root) Link(context.Context, gofuse.InodeEmbedder, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Rename implements gofuse.NodeRenamer: S3 cannot rename a bucket. EXDEV
// makes mv copy and remove instead.
func (r *root) Rename(context.Context, string, gofuse.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EXDEV
}

// Fsync implements gofuse.NodeFsyncer.
func (r *root) Fsync(context.Context, gofuse.FileHandle, uint32) syscall.Errno { return 0 }

// Statfs implements gofuse.NodeStatfser.
func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	statfs(out)
	return 0
}

// OpendirHandle implements gofuse.NodeOpendirHandler.
func (r *root) OpendirHandle(ctx context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	q, end := question(ctx)
	defer end()
	infos, err := r.fsys.cfg.Store.Buckets(q)
	switch {
	case errors.Is(err, objstore.Permission):
		// Keys that are limited to single buckets: names still resolve, so
		// the directory shows those that were looked up.
		r.fsys.warnOnce("list buckets", "these credentials may not list buckets; only buckets already in use are shown", "err", err)
		for nm := range r.Children() {
			infos = append(infos, objstore.BucketInfo{Name: nm})
		}
	case err != nil:
		return nil, 0, r.fsys.errno("readdir", "/", err)
	}
	entries := []fuse.DirEntry{
		{Name: ".", Mode: syscall.S_IFDIR, Ino: 1},
		{Name: "..", Mode: syscall.S_IFDIR, Ino: 1},
	}
	for _, b := range infos {
		if validName(b.Name) {
			entries = append(entries, fuse.DirEntry{Name: b.Name, Mode: syscall.S_IFDIR, Ino: inoOf(b.Name, "")})
		}
	}
	return &rootHandle{entries: entries}, 0, 0
}

// rootHandle is the open directory of buckets.
type rootHandle struct {
	entries []fuse.DirEntry
	next    int
}

// Readdirent implements gofuse.FileReaddirenter.
func (h *rootHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if h.next >= len(h.entries) {
		return nil, 0
	}
	e := h.entries[h.next]
	h.next++
	e.Off = uint64(h.next)
	return &e, 0
}

// Lookup implements gofuse.FileLookuper: names come without attributes, which cost
// requests.
func (h *rootHandle) Lookup(context.Context, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, noAttributes
}

// Seekdir implements gofuse.FileSeekdirer.
func (h *rootHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	h.next = int(min(off, uint64(len(h.entries)))) // nowhere is at the end
	return 0
}

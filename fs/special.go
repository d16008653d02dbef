package fs

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// symlinkMax is the longest target in bytes: PATH_MAX counts the zero that ends
// it.
const symlinkMax = 4095

// special is an object whose metadata says that it is no regular file, as s3fs
// writes them: a symbolic link, whose target is the object's content, so that
// it is protected like any other; or a fifo, a socket or a device node, which
// is empty and lives in the kernel.
type special struct {
	gofuse.Inode
	fsys   *filesystem
	bucket objstore.Bucket
	place  place

	mu sync.Mutex
	// obj changes its metadata only: a link with another target is another
	// inode, and so is what has another type.
	obj objstore.Object
	// target is that of a link, "" while nobody has asked for it.
	target string
}

// kind returns the type bits of what metadata makes of an object of so many
// bytes: what is not empty is no fifo, what is longer than any target no link,
// and what is in it can be read.
func (a attributes) kind(size int64) uint32 {
	if a.hasMode {
		switch kind := a.mode & syscall.S_IFMT; kind {
		case syscall.S_IFLNK:
			if size <= symlinkMax {
				return kind
			}
		case syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
			if size == 0 {
				return kind
			}
		}
	}
	return syscall.S_IFREG
}

// isPlain reports whether an entry of a listing is a regular file whatever its
// metadata says.
func isPlain(e objstore.Entry) bool { return e.SizeKnown && e.Size > symlinkMax }

// learn takes over what the store says, and reports false when it is another
// one.
func (l *special) learn(o objstore.Object) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := attributesOf(o.Meta); l.obj.ETag != o.ETag || attributesOf(l.obj.Meta).kind(l.obj.Size) != now.kind(o.Size) || attributesOf(l.obj.Meta).rdev != now.rdev {
		return false
	}
	l.obj = o
	return true
}

// object returns what is stored.
func (l *special) object() objstore.Object {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.obj
}

func (l *special) fillAttr(out *fuse.Attr) {
	obj := l.object()
	a := attributesOf(obj.Meta)
	out.Ino = l.StableAttr().Ino
	kind := a.kind(obj.Size)
	if kind == syscall.S_IFLNK {
		a.hasMode = false // a link's own mode means nothing
	}
	l.fsys.cfg.fillOwner(out, a, kind, 0o777)
	out.Nlink = 1
	out.Rdev = a.rdev
	out.Size = uint64(obj.Size)
	out.Blocks = blocksOf(out.Size)
	t := inSeconds(obj.LastModified)
	a.fillTimes(out, t, t)
}

// Getattr implements gofuse.NodeGetattrer.
func (l *special) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	l.fillAttr(&out.Attr)
	out.SetTimeout(l.fsys.cfg.MetadataTTL)
	return 0
}

// key returns the key of the object.
func (l *special) key() string {
	l.fsys.tree.RLock()
	defer l.fsys.tree.RUnlock()
	return l.place.parent.prefixLocked() + l.place.name
}

// parent returns the directory that l is in, and its name there.
func (l *special) parent() (*dir, string) {
	l.fsys.tree.RLock()
	defer l.fsys.tree.RUnlock()
	return l.place.parent, l.place.name
}

// Setattr implements gofuse.NodeSetattrer. Attributes are part of the metadata,
// so the object is stored anew in place.
func (l *special) Setattr(ctx context.Context, _ gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	parent, nm := l.parent()
	dctx, leave, err := parent.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	defer leave()
	obj := l.object()
	meta, _ := l.fsys.keepingMtime(obj.LastModified).MetaOf(objstore.CloneMeta(obj.Meta))
	a := attributesOf(meta)
	kind := a.kind(obj.Size)
	a.change(in, kind)
	if kind == syscall.S_IFLNK {
		a.mode = syscall.S_IFLNK | 0o777
	}
	a.put(meta, l.fsys.cfg.Convention)
	key := l.key()
	done, err := l.bucket.Copy(dctx, key, objstore.Ref{Key: key, ETag: obj.ETag}, objstore.CopyOptions{Meta: meta})
	parent.didChange(nm) // when it failed as well: somebody else may have replaced it
	if err != nil {
		return l.fsys.errno("setattr", path(l.bucket, key), err)
	}
	l.carry(done, meta)
	l.fillAttr(&out.Attr)
	out.SetTimeout(l.fsys.cfg.MetadataTTL)
	return 0
}

// carry takes over the version that a copy with such metadata made.
func (l *special) carry(done objstore.Object, meta map[string]string) {
	if done.LastModified.IsZero() {
		done.LastModified = time.Now() // until the next lookup, when the store tells
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.obj.ETag, l.obj.LastModified, l.obj.Meta = done.ETag, done.LastModified, meta
}

// Readlink implements gofuse.NodeReadlinker. The kernel keeps the answer, for the
// target of this inode never changes.
func (l *special) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	if target != "" {
		return []byte(target), 0
	}
	q, end := question(ctx)
	defer end()
	key := l.key()
	target, err := l.read(q, key)
	if err != nil {
		return nil, l.fsys.errno("readlink", path(l.bucket, key), err)
	}
	l.mu.Lock()
	l.target = target
	l.mu.Unlock()
	return []byte(target), 0
}

// read fetches the target from the store, of the version that the inode is of: when
// somebody else stored another, the kernel looks the path up again.
func (l *special) read(ctx context.Context, key string) (string, error) {
	obj := l.object()
	if obj.Size == 0 {
		return "", &objstore.Error{Op: "readlink", Key: path(l.bucket, key), Kind: objstore.Integrity}
	}
	r, got, err := l.bucket.Get(ctx, objstore.Ref{Key: key, ETag: obj.ETag}, objstore.GetOptions{})
	if err != nil {
		if objstore.KindOf(err) == objstore.Stale {
			l.unlist()
		}
		return "", err
	}
	defer r.Close()
	if obj.ETag != "" && got.ETag != obj.ETag { // servers exist that ignore If-Match
		l.unlist()
		return "", errStale
	}
	target, err := io.ReadAll(io.LimitReader(r, symlinkMax))
	return string(target), err
}

// unlist makes the directory forget what a listing told of the link.
func (l *special) unlist() {
	parent, nm := l.parent()
	parent.unlist(nm)
}

// Symlink implements gofuse.NodeSymlinker.
func (d *dir) Symlink(ctx context.Context, target, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return d.newSpecial(ctx, "symlink", nm, target, syscall.S_IFLNK|0o777, 0, out)
}

// newSpecial stores a new object that is no regular file.
func (d *dir) newSpecial(ctx context.Context, op, nm, content string, mode, rdev uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	key := d.prefix() + nm
	if !d.fsys.full() {
		return nil, syscall.EPERM // a mount that does not read metadata could not show it
	}
	kind := mode & syscall.S_IFMT
	meta := map[string]string{}
	a := d.newAttributes(ctx, mode, kind)
	a.rdev = rdev
	a.put(meta, d.fsys.cfg.Convention)
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return nil, toErrno(err)
	}
	defer leave()
	obj, err := d.putSpecial(dctx, key, content, meta)
	d.didChange(nm) // when it failed as well: somebody else may have made it
	if err != nil {
		return nil, d.fsys.errno(op, path(d.bucket, key), err)
	}
	d.namesChanged()
	obj.Meta = meta
	obj.Key, obj.Size = key, int64(len(content))
	if obj.LastModified.IsZero() {
		if o, err := d.fsys.heads.ask(dctx, d.bucket, key); err == nil {
			obj = o
		}
	}
	l := &special{fsys: d.fsys, bucket: d.bucket, place: place{d, nm}, obj: obj, target: content}
	l.fillAttr(&out.Attr)
	d.fsys.entryTimeouts(out, d.fsys.cfg.MetadataTTL)
	return d.newInode(ctx, nm, l, kind), 0
}

func (d *dir) putSpecial(ctx context.Context, key, content string, meta map[string]string) (objstore.Object, error) {
	if err := d.prepare(ctx, key[len(d.prefix()):], key); err != nil {
		return objstore.Object{}, err
	}
	return putObject(ctx, d.bucket, key, []byte(content), objstore.CreateOptions{
		Meta: meta, Cond: objstore.Condition{IfAbsent: true}, SizeHint: int64(len(content)),
	})
}

// Setxattr implements gofuse.NodeSetxattrer. The kernel lets no user.* through
// for what is neither file nor directory; cp -a tries access control lists.
func (l *special) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.ENOTSUP
}

// OnForget implements gofuse.NodeOnForgetter.
func (l *special) OnForget() { l.fsys.freeIno(l.EmbeddedInode()) }

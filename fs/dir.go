package fs

import (
	"context"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// dir is a bucket, or a prefix of keys in one.
//
// A directory is there because keys lie below it, or because of its marker:
// an empty object whose key ends in "/", which also carries its attributes.
type dir struct {
	gofuse.Inode
	fsys   *filesystem
	bucket objstore.Bucket
	place  place
	// top is the prefix of a directory without a parent: "" for a bucket.
	top string

	mu sync.Mutex
	// marked tells that a marker is there, complete that meta is its
	// metadata. A bucket has none and is complete from the beginning.
	marked, complete bool
	meta             map[string]string
	modified         time.Time // of the marker
	// named is when this mount last made or removed a name in it; zero when
	// the mtime was set since, or stored with other attributes.
	named        time.Time
	unlinked     map[string]*unlinkedName
	unlinkFailed error // of the last batch with a name of this directory
	known        knownNames
	burst        readBurst
}

// newDir returns the directory that hangs at pl.
func (f *filesystem) newDir(b objstore.Bucket, pl place, top string) *dir {
	d := &dir{fsys: f, bucket: b, place: pl, top: top}
	if pl.parent == nil {
		f.mu.Lock()
		d.complete, d.meta = true, f.attrs[b.Name()]
		f.mu.Unlock()
	}
	return d
}

// live returns the inode that the kernel knows under name, nil if none, or if
// it is one that another version has left behind.
func (d *dir) live(name string) *gofuse.Inode {
	ch := d.GetChild(name)
	if ch == nil {
		return nil
	}
	if n, ok := ch.Operations().(*file); ok && n.isStale() {
		return nil
	}
	return ch
}

// liveFile returns the file that the kernel knows under name, nil if none.
func (d *dir) liveFile(name string) *file {
	if ch := d.live(name); ch != nil {
		if n, ok := ch.Operations().(*file); ok {
			return n
		}
	}
	return nil
}

// newInode makes the inode of ops under nm. One that the kernel still knows
// under that name keeps its number.
func (d *dir) newInode(ctx context.Context, nm string, ops gofuse.InodeEmbedder, kind uint32) *gofuse.Inode {
	d.fsys.keepIno(d.GetChild(nm))
	key := d.prefix() + nm
	if kind == syscall.S_IFDIR {
		key += "/"
	}
	return d.NewInode(ctx, ops, gofuse.StableAttr{Mode: kind, Ino: d.fsys.newIno(d.bucket.Name(), key)})
}

// change begins a change of names in d: a context detached from the request,
// and the gate of d entered. The caller calls leave.
func (d *dir) change(ctx context.Context) (dctx context.Context, leave func(), err error) {
	dctx = context.WithoutCancel(ctx)
	leave, err = d.fsys.gate.enter(dctx, d)
	return dctx, leave, err
}

// namesChanged notes the time of an own change of names in d. It is not stored:
// that would double the requests of each.
func (d *dir) namesChanged() {
	d.mu.Lock()
	d.named = time.Now()
	d.mu.Unlock()
}

// newAttributes are those of something that caller creates in d.
func (d *dir) newAttributes(ctx context.Context, mode, kind uint32) attributes {
	a := attributes{mode: kind | mode&0o7777, hasMode: true, uid: d.fsys.cfg.UID, hasUID: true, gid: d.fsys.cfg.GID, hasGID: true}
	if caller, ok := fuse.FromContext(ctx); ok {
		a.uid, a.gid = caller.Uid, caller.Gid
	}
	var own fuse.Attr
	d.fillAttr(&own)
	if own.Mode&syscall.S_ISGID != 0 {
		a.gid = own.Gid
		if kind == syscall.S_IFDIR {
			a.mode |= syscall.S_ISGID
		}
	}
	return a
}

// prepare makes nm ready to be created: the key is one, the store will protect
// what comes, and nothing unlinked lies there any more.
func (d *dir) prepare(ctx context.Context, nm, key string) error {
	if err := checkName(nm, key); err != nil {
		return err
	}
	if isScratch(nm) {
		return objstore.InvalidName
	}
	if !utf8.ValidString(nm) {
		return syscall.EILSEQ // keys are UTF-8, and a listing could not tell others
	}
	if err := d.fsys.protected(ctx, d.bucket, key); err != nil {
		return err
	}
	return d.clearUnlinked(ctx, nm)
}

// Mkdir implements gofuse.NodeMkdirer.
func (d *dir) Mkdir(ctx context.Context, nm string, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return nil, toErrno(err)
	}
	defer leave()
	sub := d.fsys.newDir(d.bucket, place{d, nm}, "")
	key := d.prefix() + nm + "/"
	meta := map[string]string{}
	d.newAttributes(ctx, mode, syscall.S_IFDIR).put(meta, d.fsys.cfg.Convention)
	if err = d.prepare(dctx, nm, key); err == nil {
		err = sub.putMarker(dctx, meta, objstore.Condition{IfAbsent: true})
	}
	d.didChange(nm) // when it failed as well: somebody else may have made it
	if err != nil {
		return nil, d.fsys.errno("mkdir", path(d.bucket, key), err)
	}
	d.namesChanged()
	sub.setMarker(meta, time.Now())
	sub.fillAttr(&out.Attr)
	d.fsys.entryTimeouts(out, d.fsys.cfg.MetadataTTL)
	return d.newInode(ctx, nm, sub, syscall.S_IFDIR), 0
}

// Create implements gofuse.NodeCreater. Nothing is sent: the object comes to
// be with the commit at close, whole; unless an exclusive create is to be
// decided now.
func (d *dir) Create(ctx context.Context, nm string, flags uint32, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	var n *file
	var errno syscall.Errno
	claim := flags&syscall.O_EXCL != 0 && d.fsys.cfg.ExclusiveAtOpen
	if d.fsys.tmpNames.has(nm) {
		n, errno = d.newTmpfile(ctx, nm, mode)
	} else {
		n, errno = d.newLocalFile(ctx, nm, mode, claim)
	}
	if errno != 0 {
		return nil, nil, 0, errno
	}
	inode := d.newInode(ctx, nm, n, syscall.S_IFREG)
	// An empty file is something to commit, also for who may only read it.
	h := n.newHandle(ctx, flags|syscall.O_WRONLY)
	h.wrote.Store(!claim)
	n.fillEntry(out)
	return inode, h, 0, 0
}

// newLocalFile returns a file that the store does not have yet, when the
// store would protect it. With claim the store has it, empty, and had none.
func (d *dir) newLocalFile(ctx context.Context, nm string, mode uint32, claim bool) (*file, syscall.Errno) {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return nil, toErrno(err)
	}
	defer leave()
	key := d.prefix() + nm
	if err := d.prepare(dctx, nm, key); err != nil {
		return nil, d.fsys.errno("create", path(d.bucket, key), err)
	}
	n := d.fsys.newFile(d.bucket, place{d, nm})
	meta := map[string]string{}
	d.newAttributes(ctx, mode, syscall.S_IFREG).put(meta, d.fsys.cfg.Convention)
	if claim {
		if err := n.claim(dctx, meta); err != nil {
			d.didChange(nm) // it may be there by now
			return nil, d.fsys.errno("create", path(d.bucket, key), err)
		}
	} else {
		n.beginNew(meta)
	}
	d.namesChanged()
	return n, 0
}

// Mknod implements gofuse.NodeMknoder.
func (d *dir) Mknod(ctx context.Context, nm string, mode uint32, rdev uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if mode&syscall.S_IFMT != syscall.S_IFREG {
		return d.newSpecial(ctx, "mknod", nm, "", mode, rdev, out)
	}
	n, errno := d.newLocalFile(ctx, nm, mode, true)
	if errno != 0 {
		return nil, errno
	}
	n.fillEntry(out)
	return d.newInode(ctx, nm, n, syscall.S_IFREG), 0
}

// Fsync implements gofuse.NodeFsyncer: every change of a name was in the
// store before its call returned, but unlinks that are batched.
func (d *dir) Fsync(ctx context.Context, _ gofuse.FileHandle, _ uint32) syscall.Errno {
	return toErrno(d.settleUnlinks(ctx)) // logged when it failed
}

// Statfs implements gofuse.NodeStatfser: a store tells no limits, so df shows
// one that nothing reaches, as its peers do.
func (d *dir) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	statfs(out)
	return 0
}

func statfs(out *fuse.StatfsOut) {
	const size = 1 << 60 // bytes: 1 EiB
	out.Bsize, out.Frsize = blockSize, blockSize
	out.Blocks, out.Bfree, out.Bavail = size/blockSize, size/blockSize, size/blockSize
	out.Files, out.Ffree = 1<<40, 1<<40
	out.NameLen = nameMax
}

// OnForget implements gofuse.NodeOnForgetter.
func (d *dir) OnForget() {
	d.fsys.names.forgotten(d)
	d.fsys.freeIno(d.EmbeddedInode())
	d.fsys.hurryUnlinks(d.bucket) // the names that d hides would show again
}

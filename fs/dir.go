package fs

import (
	"context"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"

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
	// meta is the metadata of the marker, nil while there is none.
	meta     map[string]string
	modified time.Time // of the marker
	checked  time.Time // when meta was last asked for
	// unlinked are names whose objects live until their last close.
	unlinked map[string]int
	listed   map[string]listedName
	ahead    readAhead
	asking   int // questions under way
	changes  uint64
	changed  map[string]uint64 // last own change of a name, while asking > 0
}

// listedName is a name as a listing told it.
type listedName struct {
	name
	at  time.Time
	pos int // in readAhead.order, -1 for a directory
}

// listedMax bounds the names that one directory remembers from listings.
const listedMax = 10_000

// newDir returns the directory that hangs at pl.
func (f *filesystem) newDir(b objstore.Bucket, pl place, top string) *dir {
	return &dir{fsys: f, bucket: b, place: pl, top: top}
}

// ask begins a question about names of d. Its answer about a name is out of
// date when an own change of that name ended in between; see isOutdated.
func (d *dir) ask() (since uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asking++
	return d.changes
}

func (d *dir) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking--; d.asking == 0 {
		d.changed = nil
	}
}

func (d *dir) isOutdated(name string, since uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed[name] > since
}

// didChange notes that an own change of name has ended.
func (d *dir) didChange(name string) {
	key := d.prefix() + name
	d.fsys.heads.forget(d.bucket.Name(), key)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes++
	delete(d.listed, name)
	if d.asking > 0 {
		if d.changed == nil {
			d.changed = map[string]uint64{}
		}
		d.changed[name] = d.changes
	}
}

// remember keeps a name from a listing for the lookups that follow it.
func (d *dir) remember(n name, since uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed[n.name] > since || d.fsys.cfg.MetadataTTL == 0 {
		return
	}
	if len(d.listed) >= listedMax {
		d.listed, d.ahead = nil, readAhead{}
	}
	if d.listed == nil {
		d.listed = map[string]listedName{}
	}
	l := listedName{n, time.Now(), -1}
	if !n.isDir && d.fsys.full() {
		l.pos = d.ahead.add(n.entry)
	}
	d.listed[n.name] = l
}

// beginListing forgets the order of the last listing, since another begins.
func (d *dir) beginListing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ahead = readAhead{}
}

// recall returns a name as a listing told it not longer ago than names are
// believed. When names are recalled in the order of the listing, which is how
// ls -l stats them, the HEADs of those to come are sent ahead.
func (d *dir) recall(nm string) (name, bool) {
	d.mu.Lock()
	l, ok := d.listed[nm]
	ok = ok && time.Since(l.at) < d.fsys.cfg.MetadataTTL
	var next []objstore.Entry
	if ok && l.pos >= 0 {
		next = d.ahead.lookedUp(l.pos)
	}
	d.mu.Unlock()
	for _, e := range next {
		d.fsys.heads.askAhead(&d.fsys.background, d.bucket, e)
	}
	return l.name, ok
}

// isUnlinked reports whether name was unlinked here while it is still open.
func (d *dir) isUnlinked(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unlinked[name] > 0
}

// finding is what the store says of a name.
type finding struct {
	isDir bool
	// obj is the file, or the marker of the directory; hasObj is false for a
	// directory without one.
	obj    objstore.Object
	hasObj bool
	// complete tells that obj came from a HEAD, with metadata and encryption.
	complete bool
}

// find asks the store for a name; kind NotExist when it is absent.
func (d *dir) find(ctx context.Context, nm string) (finding, error) {
	key := d.prefix() + nm
	if len(key) > keyMax {
		return finding{}, objstore.NameTooLong
	}
	for {
		since := d.ask()
		f, err := d.findOnce(ctx, nm, key)
		outdated := d.isOutdated(nm, since)
		d.answered()
		if !outdated || ctx.Err() != nil {
			return f, err
		}
	}
}

func (d *dir) findOnce(ctx context.Context, nm, key string) (finding, error) {
	if n, ok := d.recall(nm); ok {
		if n.isDir {
			return d.findDir(ctx, key)
		}
		if !d.fsys.full() {
			return finding{obj: objstore.Object{Entry: n.entry}, hasObj: true}, nil
		}
		if o, ok := d.fsys.heads.recall(d.bucket.Name(), n.entry); ok {
			return finding{obj: o, hasObj: true, complete: true}, nil
		}
		o, err := d.fsys.heads.ask(ctx, d.bucket, key)
		if err == nil {
			return finding{obj: o, hasObj: true, complete: true}, nil
		}
		if objstore.KindOf(err) != objstore.NotExist {
			return finding{}, err
		}
		// gone since the listing: ask in full
	}
	var (
		g         errgroup.Group
		asDir     finding
		asFile    objstore.Object
		dirErr    error
		objectErr error
	)
	g.Go(func() error { asDir, dirErr = d.findDir(ctx, key); return nil })
	g.Go(func() error { asFile, objectErr = d.fsys.heads.ask(ctx, d.bucket, key); return nil })
	_ = g.Wait()
	switch {
	case dirErr == nil:
		if objectErr == nil {
			d.fsys.warnOnce("shadow "+path(d.bucket, key), "object is hidden by a directory of the same name",
				"key", path(d.bucket, key))
		}
		return asDir, nil
	case objectErr == nil:
		return finding{obj: asFile, hasObj: true, complete: true}, nil
	case objstore.KindOf(objectErr) != objstore.NotExist:
		return finding{}, objectErr
	default:
		return finding{}, dirErr
	}
}

// findDir asks whether anything lies below key.
func (d *dir) findDir(ctx context.Context, key string) (finding, error) {
	prefix := key + "/"
	for e, err := range d.bucket.List(ctx, objstore.Query{Prefix: prefix, Limit: 1}) {
		if err != nil {
			return finding{}, err
		}
		if e.Key != prefix {
			return finding{isDir: true}, nil
		}
		f := finding{isDir: true, obj: objstore.Object{Entry: e}, hasObj: true}
		if !d.fsys.full() {
			return f, nil
		}
		if o, ok := d.fsys.heads.recall(d.bucket.Name(), e); ok {
			f.obj, f.complete = o, true
			return f, nil
		}
		o, err := d.fsys.heads.ask(ctx, d.bucket, prefix)
		switch {
		case err == nil:
			f.obj, f.complete = o, true
		case objstore.KindOf(err) == objstore.NotExist:
			f.hasObj = false // removed in between; other keys may keep the directory
		default:
			return finding{}, err
		}
		return f, nil
	}
	return finding{}, objstore.NotExist
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

// adopt returns the inode for a finding: the one that is there, when it is of
// the same kind, or a new one.
func (d *dir) adopt(ctx context.Context, nm string, f finding, out *fuse.EntryOut) *gofuse.Inode {
	ttl := d.fsys.cfg.MetadataTTL
	key := d.prefix() + nm
	ch := d.live(nm)
	if f.isDir {
		var sub *dir
		if ch != nil {
			sub, _ = ch.Operations().(*dir)
		}
		if sub == nil {
			sub = d.fsys.newDir(d.bucket, place{d, nm}, "")
			ch = d.NewInode(ctx, sub, gofuse.StableAttr{Mode: syscall.S_IFDIR, Ino: d.fsys.newIno(d.bucket.Name(), key+"/")})
		}
		sub.learn(f)
		sub.fillAttr(&out.Attr)
		d.fsys.entryTimeouts(out, ttl)
		return ch
	}
	if f.complete && d.fsys.full() && attributesOf(f.obj.Meta).isSymlink() {
		var link *symlink
		if ch != nil {
			link, _ = ch.Operations().(*symlink)
		}
		if link == nil || link.object().ETag != f.obj.ETag {
			link = &symlink{fsys: d.fsys, bucket: d.bucket, obj: f.obj}
			if ch != nil {
				d.fsys.keepIno(ch.StableAttr().Ino) // a link never changes: another target is another inode
			}
			link.place = place{d, nm}
			ch = d.NewInode(ctx, link, gofuse.StableAttr{Mode: syscall.S_IFLNK, Ino: d.fsys.newIno(d.bucket.Name(), key)})
		}
		link.fillAttr(&out.Attr)
		d.fsys.entryTimeouts(out, ttl)
		return ch
	}
	n := (*file)(nil)
	if ch != nil {
		if n, _ = ch.Operations().(*file); n != nil {
			n.learn(f.obj, f.complete)
			if n.isStale() {
				n = nil
			}
		}
	}
	if n == nil {
		n = d.fsys.newFile(d.bucket, place{d, nm})
		if ch := d.GetChild(nm); ch != nil {
			d.fsys.keepIno(ch.StableAttr().Ino)
		}
		ch = d.NewInode(ctx, n, gofuse.StableAttr{Mode: syscall.S_IFREG, Ino: d.fsys.newIno(d.bucket.Name(), key)})
	}
	n.learn(f.obj, f.complete)
	n.fillEntry(out)
	return ch
}

// Lookup implements gofuse.NodeLookuper.
func (d *dir) Lookup(ctx context.Context, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if d.isUnlinked(nm) {
		return nil, syscall.ENOENT
	}
	if n := d.liveFile(nm); n != nil && n.isLocal() {
		n.fillEntry(out)
		return n.EmbeddedInode(), 0
	}
	q, end := question(ctx)
	defer end()
	f, err := d.find(q, nm)
	if err != nil {
		return nil, d.fsys.errno("lookup", path(d.bucket, d.prefix()+nm), err)
	}
	return d.adopt(ctx, nm, f, out), 0
}

// learn takes over what the store says of the marker.
func (d *dir) learn(f finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.checked = time.Now()
	switch {
	case !f.hasObj:
		d.meta = nil
	case f.complete:
		d.meta, d.modified = objstore.CloneMeta(f.obj.Meta), f.obj.LastModified
	case d.meta == nil:
		d.meta, d.modified = map[string]string{}, f.obj.LastModified
	}
}

func (d *dir) fillAttr(out *fuse.Attr) {
	d.mu.Lock()
	a := attributesOf(d.meta)
	modified := d.modified
	d.mu.Unlock()
	cfg := &d.fsys.cfg
	if !d.fsys.full() {
		a = attributes{}
	}
	out.Ino = d.StableAttr().Ino
	out.Mode = syscall.S_IFDIR | cfg.DirMode
	if a.hasMode {
		out.Mode = syscall.S_IFDIR | a.mode&0o7777
	}
	out.Uid, out.Gid = cfg.UID, cfg.GID
	if a.hasUID {
		out.Uid = a.uid
	}
	if a.hasGID {
		out.Gid = a.gid
	}
	// One link: programs that count subdirectories by links, as find does
	// with two and more, look into each entry instead.
	out.Nlink = 1
	out.Blksize = blockSize
	if !a.mtime.IsZero() {
		modified = a.mtime
	}
	setTimes(out, modified)
}

// Getattr implements gofuse.NodeGetattrer.
func (d *dir) Getattr(ctx context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	d.fillAttr(&out.Attr)
	out.SetTimeout(d.fsys.cfg.MetadataTTL)
	return 0
}

// Setattr implements gofuse.NodeSetattrer: attributes of a directory live in
// its marker. A bucket, or the root of the mount, has none: there they live
// as long as the mount, for cp -a and tar set them and must not fail.
func (d *dir) Setattr(ctx context.Context, _ gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, ok := in.GetSize(); ok {
		return syscall.EISDIR
	}
	d.mu.Lock()
	meta := objstore.CloneMeta(d.meta)
	d.mu.Unlock()
	a := attributesOf(meta)
	if a.change(in, syscall.S_IFDIR) {
		a.put(meta)
		if err := d.setMeta(ctx, meta); err != nil {
			return d.fsys.errno("setattr", path(d.bucket, d.prefix()), err)
		}
	}
	d.fillAttr(&out.Attr)
	out.SetTimeout(d.fsys.cfg.MetadataTTL)
	return 0
}

// setMeta rewrites the marker with other metadata.
func (d *dir) setMeta(ctx context.Context, meta map[string]string) error {
	if d.hasMarkerKey() {
		ctx, leave, err := d.change(ctx)
		if err != nil {
			return err
		}
		defer leave()
		if err := d.putMarker(ctx, meta, objstore.Condition{}); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.meta = meta
	if d.modified.IsZero() {
		d.modified = time.Now()
	}
	d.mu.Unlock()
	return nil
}

// change begins a change of names in d: a context detached from the request,
// and the gate of d entered. The caller calls leave.
func (d *dir) change(ctx context.Context) (dctx context.Context, leave func(), err error) {
	dctx, cancel := detached(ctx)
	left, err := d.fsys.gate.enter(dctx, d)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return dctx, func() { left(); cancel() }, nil
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
	if _, err := putObject(ctx, d.bucket, prefix, nil, objstore.CreateOptions{
		Meta: meta, Headers: objstore.Headers{ContentType: "application/x-directory"}, Cond: cond,
	}); err != nil {
		return err
	}
	d.fsys.heads.forget(d.bucket.Name(), prefix)
	return nil
}

// keepAlive gives d a marker before a name below it goes: a directory lives
// until its rmdir, not until its last file.
func (d *dir) keepAlive(ctx context.Context) {
	d.mu.Lock()
	marked := d.meta != nil
	d.mu.Unlock()
	if marked || !d.hasMarkerKey() {
		return
	}
	err := d.putMarker(ctx, map[string]string{}, objstore.Condition{IfAbsent: true})
	if err != nil && objstore.KindOf(err) != objstore.Exist {
		// The name below can go all the same; only the directory may go with it.
		d.fsys.log.Debug("no marker for directory", "path", path(d.bucket, d.prefix()), "err", err)
		return
	}
	d.mu.Lock()
	if d.meta == nil {
		d.meta = map[string]string{}
		d.modified = time.Now()
	}
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

// Mkdir implements gofuse.NodeMkdirer.
func (d *dir) Mkdir(ctx context.Context, nm string, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	sub := d.fsys.newDir(d.bucket, place{d, nm}, "")
	key := d.prefix() + nm + "/"
	if err := checkKey(key); err != nil {
		return nil, d.fsys.errno("mkdir", path(d.bucket, key), err)
	}
	meta := map[string]string{}
	d.newAttributes(ctx, mode, syscall.S_IFDIR).put(meta)
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return nil, toErrno(err)
	}
	defer leave()
	if err := d.clearUnlinked(dctx, nm); err != nil {
		return nil, d.fsys.errno("mkdir", path(d.bucket, key), err)
	}
	if err := sub.putMarker(dctx, meta, objstore.Condition{IfAbsent: true}); err != nil {
		return nil, d.fsys.errno("mkdir", path(d.bucket, key), err)
	}
	d.didChange(nm)
	sub.meta, sub.modified, sub.checked = meta, time.Now(), time.Now()
	sub.fillAttr(&out.Attr)
	d.fsys.entryTimeouts(out, d.fsys.cfg.MetadataTTL)
	return d.NewInode(ctx, sub, gofuse.StableAttr{Mode: syscall.S_IFDIR, Ino: d.fsys.newIno(d.bucket.Name(), key)}), 0
}

// Create implements gofuse.NodeCreater. Nothing is sent: the object comes to
// be with the commit at close, whole.
func (d *dir) Create(ctx context.Context, nm string, flags uint32, mode uint32, out *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	n, errno := d.newLocalFile(ctx, nm, mode)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	inode := d.NewInode(ctx, n, gofuse.StableAttr{Mode: syscall.S_IFREG, Ino: d.fsys.newIno(d.bucket.Name(), n.key())})
	h := n.newHandle(ctx, flags)
	n.fillEntry(out)
	return inode, h, 0, 0
}

// newLocalFile returns a file that the store does not have yet, when the
// store would protect it.
func (d *dir) newLocalFile(ctx context.Context, nm string, mode uint32) (*file, syscall.Errno) {
	key := d.prefix() + nm
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return nil, toErrno(err)
	}
	defer leave()
	err = checkKey(key)
	if err == nil {
		err = d.fsys.protected(dctx, d.bucket, key)
	}
	if err == nil {
		err = d.clearUnlinked(dctx, nm)
	}
	if err != nil {
		return nil, d.fsys.errno("create", path(d.bucket, key), err)
	}
	n := d.fsys.newFile(d.bucket, place{d, nm})
	meta := map[string]string{}
	d.newAttributes(ctx, mode, syscall.S_IFREG).put(meta)
	n.beginNew(meta)
	return n, 0
}

// Mknod implements gofuse.NodeMknoder for regular files.
func (d *dir) Mknod(ctx context.Context, nm string, mode uint32, _ uint32, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, syscall.ENOTSUP
	}
	n, errno := d.newLocalFile(ctx, nm, mode)
	if errno != 0 {
		return nil, errno
	}
	dctx, leave, err := n.change(ctx)
	if err == nil {
		err = n.commitNow(dctx)
		leave()
	}
	if err != nil {
		return nil, d.fsys.errno("mknod", path(d.bucket, n.key()), err)
	}
	n.fillEntry(out)
	return d.NewInode(ctx, n, gofuse.StableAttr{Mode: syscall.S_IFREG, Ino: d.fsys.newIno(d.bucket.Name(), n.key())}), 0
}

// Link implements gofuse.NodeLinker: an object has one name.
func (d *dir) Link(context.Context, gofuse.InodeEmbedder, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Fsync implements gofuse.NodeFsyncer: every change of a name was in the
// store before its call returned.
func (d *dir) Fsync(context.Context, gofuse.FileHandle, uint32) syscall.Errno { return 0 }

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
func (d *dir) OnForget() { d.fsys.freeIno(d.StableAttr().Ino) }

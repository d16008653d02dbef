package fs

import (
	"context"
	"syscall"
	"time"
	"unicode/utf8"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"

	"coffer/objstore"
)

// finding is what the store says of a name.
type finding struct {
	isDir bool
	// obj is the file, or the marker of the directory; hasObj is false for a
	// directory without one.
	obj    objstore.Object
	hasObj bool
	// complete tells that obj came from a HEAD, with metadata and encryption.
	complete bool
	// at is when the store said so, zero for now.
	at time.Time
}

// find asks the store for a name; kind NotExist when it is absent.
func (d *dir) find(ctx context.Context, nm string) (finding, error) {
	key := d.prefix() + nm
	if err := checkName(nm, key); err != nil {
		return finding{}, err
	}
	for {
		since := d.ask()
		f, err := d.findOnce(ctx, nm, key)
		if err == nil && !f.isDir && isScratch(nm) {
			f, err = finding{}, objstore.NotExist
		}
		outdated := d.isOutdated(nm, since)
		d.answered()
		if !outdated || ctx.Err() != nil {
			return f, err
		}
	}
}

func (d *dir) findOnce(ctx context.Context, nm, key string) (finding, error) {
	l, ok := d.recall(nm, d.fsys.passesAsOwner(ctx))
	if !ok && utf8.ValidString(key) && d.fsys.listings.look(dirKey{d.bucket.Name(), key + "/"}, false) != nil {
		l, ok = listedName{name: name{name: nm, isDir: true}}, true
	}
	if ok {
		f, err := d.findListed(ctx, l, key)
		if objstore.KindOf(err) != objstore.NotExist {
			return f, err
		}
		// gone since the listing: ask in full
	}
	if !utf8.ValidString(key) {
		return finding{}, objstore.NotExist // keys are UTF-8: who asks for another is told off
	}
	ch := d.live(nm)
	isDir := ch != nil && ch.IsDir()
	var (
		g         errgroup.Group
		asDir     finding
		asFile    objstore.Object
		dirErr    error
		objectErr error
	)
	likelyFile := !isDir && d.expectsFile()
	if likelyFile {
		asFile, objectErr = d.askFile(ctx, key, -1)
		if objectErr == nil && asFile.Size > 0 {
			d.foundFile()
			return finding{obj: asFile, hasObj: true, complete: true}, nil
		}
	}
	believed := d.believes(nm)
	if believed == absent {
		d.foundNoFile()
		return finding{}, objstore.NotExist
	}
	findDir := d.findDir
	if isDir {
		believed = nothing // it may have lost its marker
	} else if believed == unmarked {
		findDir = d.findMarked
	}
	g.Go(func() error { asDir, dirErr = findDir(ctx, key); return nil })
	if !likelyFile {
		g.Go(func() error { asFile, objectErr = d.askFile(ctx, key, -1); return nil })
	}
	_ = g.Wait()
	if dirErr != nil && objectErr == nil && asFile.Size > 0 {
		d.foundFile()
	} else {
		d.foundNoFile()
	}
	if believed == unmarked && dirErr == nil && objectErr == nil {
		asDir, dirErr = d.findDir(ctx, key) // there are servers to which "x/" is "x"
	}
	// To some servers "x" is "x/", which they do not list.
	sameAsDir := objectErr == nil && asFile.Size == 0 && asFile.Headers.ContentType == directoryType
	switch {
	case dirErr == nil:
		if objectErr == nil && !sameAsDir {
			d.fsys.warnOnce("shadow "+path(d.bucket, key), "object is hidden by a directory of the same name",
				"key", path(d.bucket, key))
		}
		return asDir, nil
	case objectErr == nil:
		if sameAsDir {
			if f, err := d.findMarked(ctx, key); objstore.KindOf(err) != objstore.NotExist {
				return f, err
			}
		}
		return finding{obj: asFile, hasObj: true, complete: true}, nil
	case objstore.KindOf(objectErr) != objstore.NotExist:
		return finding{}, objectErr
	default:
		return finding{}, dirErr
	}
}

// findListed finds out what is not known yet of a name that a listing told.
func (d *dir) findListed(ctx context.Context, l listedName, key string) (finding, error) {
	if l.isDir {
		d.cameTo(l.name.name, false, d.fsys.listings.look(dirKey{d.bucket.Name(), key + "/"}, false))
		return d.findDir(ctx, key)
	}
	if !d.fsys.needsHead(l.name) && !l.unasked {
		return finding{obj: objstore.Object{Entry: l.entry}, hasObj: true, at: l.at}, nil
	}
	if o, ok := d.fsys.heads.recall(d.bucket.Name(), l.entry); ok && !l.unasked {
		return finding{obj: o, hasObj: true, complete: true, at: l.at}, nil
	}
	if l.removing {
		return finding{obj: objstore.Object{Entry: l.entry}, hasObj: true, at: l.at}, nil
	}
	size := int64(-1)
	if l.entry.SizeKnown {
		size = l.entry.Size
	}
	o, err := d.askFile(ctx, key, size)
	if err != nil {
		return finding{}, err
	}
	return finding{obj: o, hasObj: true, complete: true}, nil
}

// askFile asks for the file under key, for its bytes as well where those that are
// looked up here are read; see readBurst. size is that of a listing, -1 when it is
// not known.
func (d *dir) askFile(ctx context.Context, key string, size int64) (objstore.Object, error) {
	d.mu.Lock()
	whole := size != 0 && size <= wholeMax && d.burst.wantsWhole()
	d.mu.Unlock()
	var o objstore.Object
	var err error
	if whole {
		o, err = d.fsys.heads.askWhole(ctx, d.fsys.ahead, d.bucket, key, d.fsys.cfg.Cache)
	} else {
		o, err = d.fsys.heads.ask(ctx, d.bucket, key)
	}
	if err == nil && size <= wholeMax {
		d.mu.Lock()
		d.burst.found(o.Size)
		d.mu.Unlock()
	}
	return o, err
}

// findDir asks whether anything lies below key.
func (d *dir) findDir(ctx context.Context, key string) (finding, error) {
	prefix := key + "/"
	e, err := d.firstBelow(ctx, prefix)
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

// firstBelow returns what a listing of prefix begins with, as one that was asked for
// ahead tells, or the store: nothing is there only if the store says so now.
func (d *dir) firstBelow(ctx context.Context, prefix string) (objstore.Entry, error) {
	l := d.fsys.listings.look(dirKey{d.bucket.Name(), prefix}, false)
	if l != nil && l.wait(ctx) && len(l.entries) > 0 {
		return l.entries[0], nil
	}
	for e, err := range d.bucket.List(ctx, objstore.Query{Prefix: prefix, Limit: 1}) {
		return e, err
	}
	return objstore.Entry{}, objstore.NotExist
}

// findMarked asks for the marker of the directory under key, where nothing else
// can make it one.
func (d *dir) findMarked(ctx context.Context, key string) (finding, error) {
	o, err := d.fsys.heads.ask(ctx, d.bucket, key+"/")
	switch {
	case err == nil:
		return finding{isDir: true, obj: o, hasObj: true, complete: true}, nil
	case objstore.KindOf(err) == objstore.NotExist:
		return finding{}, err
	}
	return d.findDir(ctx, key) // who may not see the marker may see that it is there
}

// Lookup implements gofuse.NodeLookuper.
func (d *dir) Lookup(ctx context.Context, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if d.isUnlinked(nm) {
		return nil, syscall.ENOENT
	}
	n := d.liveFile(nm)
	var version uint64
	if n != nil {
		if n.isLocal() {
			n.fillEntry(out)
			return n.EmbeddedInode(), 0
		}
		version = n.ownChanges()
	}
	q, end := question(ctx)
	defer end()
	f, err := d.find(q, nm)
	if err != nil {
		return nil, d.fsys.errno("lookup", path(d.bucket, d.prefix()+nm), err)
	}
	if n != nil && n.ownChanges() != version && d.liveFile(nm) == n {
		// A commit of ours ended meanwhile: what it made is newer than the answer.
		n.fillEntry(out)
		return n.EmbeddedInode(), 0
	}
	return d.adopt(ctx, nm, f, out), 0
}

// adopt returns the inode for a finding: the one that is there, when it is of
// the same kind, or a new one.
func (d *dir) adopt(ctx context.Context, nm string, f finding, out *fuse.EntryOut) *gofuse.Inode {
	ch := d.live(nm)
	if f.isDir {
		var sub *dir
		if ch != nil {
			sub, _ = ch.Operations().(*dir)
		}
		if sub == nil {
			sub = d.fsys.newDir(d.bucket, place{d, nm}, "")
			ch = d.newInode(ctx, nm, sub, syscall.S_IFDIR)
		}
		sub.learn(f)
		sub.fillAttr(&out.Attr)
		d.fsys.entryTimeouts(out, d.fsys.cfg.MetadataTTL)
		return ch
	}
	if kind := attributesOf(f.obj.Meta).kind(f.obj.Size); f.complete && d.fsys.full() && kind != syscall.S_IFREG {
		var l *special
		if ch != nil {
			l, _ = ch.Operations().(*special)
		}
		if l == nil || !l.learn(f.obj) {
			l = &special{fsys: d.fsys, bucket: d.bucket, place: place{d, nm}, obj: f.obj}
			ch = d.newInode(ctx, nm, l, kind)
		}
		l.fillAttr(&out.Attr)
		d.fsys.entryTimeouts(out, d.fsys.cfg.MetadataTTL)
		return ch
	}
	var n *file
	if ch != nil {
		if n, _ = ch.Operations().(*file); n != nil {
			if n.isGone() {
				n = nil // what is under its name by now is another
			} else if n.learn(f); n.isStale() {
				n = nil
			}
		}
	}
	if n == nil {
		n = d.fsys.newFile(d.bucket, place{d, nm})
		n.learn(f)
		ch = d.newInode(ctx, nm, n, syscall.S_IFREG)
	}
	n.fillEntry(out)
	return ch
}

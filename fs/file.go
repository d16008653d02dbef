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

// file is the inode of an object.
type file struct {
	gofuse.Inode
	fsys   *filesystem
	bucket objstore.Bucket
	place  place
	// aside is the key of a file that lost its name to another while it was
	// open, "" for all others; guarded by fsys.tree as place is.
	aside string

	turn    turn
	content content // guarded by turn

	mu sync.Mutex
	// obj is the version that the store has, as far as known; inStore is
	// false for a file that was created and not committed.
	obj     objstore.Object
	inStore bool
	// complete tells that obj came from a HEAD; a listing tells no metadata.
	complete bool
	// guessed tells that the kernel was last told attributes that were not known
	// here; see fillEntry.
	guessed bool
	checked time.Time // when the store last said so; zero: ask again
	version uint64    // counts own changes: answers asked for before are outdated
	// stale tells that somebody else stored another version while this one
	// was open here. The kernel's pages belong to the inode, so the new
	// version gets an inode of its own, and this one answers ESTALE.
	stale bool

	// meta is the user metadata as this mount shows it; the store has it
	// too unless metaDirty. Nil while not known.
	meta      map[string]string
	metaDirty bool

	local bool // content holds bytes that the store does not have
	size  int64
	wrote time.Time
	// touched is when attributes were changed that wait for the commit.
	touched time.Time
	failed  error // what became of the last commit that failed
	// failures counts those: a failure is the answer to all handles that were
	// opened before it.
	failures int

	// closed counts the open handles that a close(2) was told of; see awaitReleases.
	handles, writers, closed int
	gone                     bool // unlinked, or replaced by a rename
	nameless                 bool // gone because it never had a name
	// deferred tells that the object is deleted at the last close.
	deferred bool
	// cached is the version that the kernel's pages are of, proved the one of which
	// the store has proved that it has provedSize bytes: see proveSize.
	cached, proved objstore.ETag
	provedSize     int64
}

// turn is a lock whose wait can be cancelled and whose holder does I/O.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) release() { <-t }

func (f *filesystem) newFile(b objstore.Bucket, pl place) *file {
	return &file{fsys: f, bucket: b, place: pl, turn: newTurn()}
}

// log name of the file.
func (n *file) path() string { return path(n.bucket, n.key()) }

// isLocal reports whether the store does not have all of the file yet.
func (n *file) isLocal() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.local || n.metaDirty
}

// isGone reports whether the inode has lost its name.
func (n *file) isGone() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone
}

// isStale reports whether the inode has been left behind by another version.
func (n *file) isStale() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stale
}

// ownChanges counts the changes that this mount made.
func (n *file) ownChanges() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.version
}

// learn takes over what the store says of the current version.
func (n *file) learn(f finding) {
	n.mu.Lock()
	changed := n.learnLocked(f)
	n.mu.Unlock()
	if changed {
		n.fsys.notes.contentChanged(n.EmbeddedInode())
	}
}

// learnLocked reports whether somebody else stored another version. While the
// old one is open, the inode becomes stale.
func (n *file) learnLocked(f finding) (changed bool) {
	o, complete, at := f.obj, f.complete, f.at
	if at.IsZero() {
		at = time.Now()
	}
	if n.local || n.metaDirty || n.gone || n.stale || n.inStore && at.Before(n.checked) {
		return false
	}
	// Nor is what somebody else made the file of those who could not make theirs.
	if n.inStore && n.obj.ETag != o.ETag || !n.inStore && n.handles > 0 {
		changed = true
		n.cached = ""
		if n.handles > 0 {
			n.stale = true
			return true
		}
	}
	if !complete && n.complete && !changed && sameVersion(o.Entry, n.obj) {
		n.checked = at
		return false
	}
	if o.ETag != "" && o.ETag == n.proved {
		o.Size, o.SizeKnown = n.provedSize, true // o may have what was told before
	}
	n.obj, n.inStore, n.complete, n.meta = o, true, complete, nil
	if complete {
		n.meta = objstore.CloneMeta(o.Meta)
	}
	n.checked = at
	if !o.SizeKnown {
		n.checked = time.Time{}
	}
	return changed
}

// isFresh reports whether what is known of the file need not be asked for.
func (n *file) isFresh(age time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.local, n.metaDirty, n.gone:
		return true
	case n.stale:
		return false
	case n.fsys.full() && !n.complete:
		return false
	}
	return !n.checked.IsZero() && time.Since(n.checked) <= age
}

// errStale is the answer of an inode whose name is another's by now. The
// kernel looks a path up again when it gets ESTALE, and then finds that one.
var errStale = &objstore.Error{Op: "open", Kind: objstore.Stale, Err: errors.New("another version was stored by somebody else")}

// refresh asks the store for the current version, for its bytes as well where toRead
// tells that they are wanted, and reports whether it is another than was known. A file that somebody else removed is Stale: the
// kernel looks its path up again, and finds that there is none, or another.
func (n *file) refresh(ctx context.Context, toRead bool) (changed bool, err error) {
	for {
		n.mu.Lock()
		version, stale := n.version, n.stale
		n.mu.Unlock()
		if stale {
			return true, errStale
		}
		o, err := n.ask(ctx, toRead)
		n.mu.Lock()
		if n.local || n.gone {
			n.mu.Unlock()
			return false, nil
		}
		if n.version != version && ctx.Err() == nil {
			n.mu.Unlock()
			continue
		}
		if err != nil {
			missing := objstore.KindOf(err) == objstore.NotExist
			if missing {
				n.stale = true
				err = errStale
			}
			n.mu.Unlock()
			if missing {
				n.unlist()
			}
			return missing, err
		}
		old := n.obj.ETag
		changed = n.learnLocked(finding{obj: o, hasObj: true, complete: true})
		stale = n.stale
		n.mu.Unlock()
		if changed {
			n.fsys.notes.contentChanged(n.EmbeddedInode())
		}
		if old != o.ETag {
			n.unlist()
		}
		if stale {
			return true, errStale
		}
		return changed, nil
	}
}

// ask asks for the current version, for its bytes where they are wanted and the
// kernel does not have them.
func (n *file) ask(ctx context.Context, toRead bool) (objstore.Object, error) {
	n.mu.Lock()
	size, kept := n.obj.Size, n.cached != "" && n.cached == n.obj.ETag
	n.mu.Unlock()
	if toRead && !kept {
		parent, _ := n.parent()
		return parent.askFile(ctx, n.key(), size)
	}
	return n.fsys.heads.ask(ctx, n.bucket, n.key())
}

// unlist makes the directory forget what a listing told of the file.
func (n *file) unlist() {
	parent, nm := n.parent()
	parent.unlist(nm)
}

// needComplete asks for metadata and encryption unless they are known.
func (n *file) needComplete(ctx context.Context) error {
	n.mu.Lock()
	ok := n.complete || !n.inStore || n.gone
	n.mu.Unlock()
	if ok {
		return nil
	}
	_, err := n.refresh(ctx, false)
	return err
}

// fillEntry answers a lookup. Where the attributes are not known, the kernel asks
// for them before it tells anybody, and for the name before it is used again: what
// is known is enough for an unlink.
func (n *file) fillEntry(out *fuse.EntryOut) {
	n.fsys.entryTimeouts(out, n.fillAttr(&out.Attr))
	if n.isGuessed() {
		out.SetEntryTimeout(0)
	}
}

// passesAsOwner reports whether the caller of ctx passes the kernel's checks on a
// file whose owner is not known yet: then it is us who are asked.
func (f *filesystem) passesAsOwner(ctx context.Context) bool {
	caller, ok := fuse.FromContext(ctx)
	return ok && (caller.Uid == 0 || caller.Uid == f.cfg.UID && !f.cfg.AllowOther)
}

// isGuessed reports whether the kernel has attributes that are not known. It is
// not enough that they are not: they may have been, and be forgotten since.
func (n *file) isGuessed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.guessed && !n.complete
}

// fillAttr fills in what is known and returns for how long it holds.
func (n *file) fillAttr(out *fuse.Attr) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	cfg := &n.fsys.cfg
	// go-fuse fills in the number for GETATTR and LOOKUP, not for SETATTR.
	out.Ino = n.StableAttr().Ino
	var a attributes
	if n.fsys.full() {
		a = attributesOf(n.meta)
	}
	cfg.fillOwner(out, a, syscall.S_IFREG, cfg.FileMode)
	out.Nlink = 1
	if n.gone {
		out.Nlink = 0
	}
	out.Size = uint64(n.obj.Size)
	out.Blocks = blocksOf(out.Size)
	changed := inSeconds(n.obj.LastModified)
	written := changed
	if n.local {
		out.Size, written, changed = uint64(n.size), n.wrote, n.wrote
		out.Blocks = blocksOf(out.Size)
	}
	if (n.local || n.gone) && n.touched.After(changed) {
		changed = n.touched
	}
	a.fillTimes(out, written, changed)
	n.guessed = n.fsys.full() && n.inStore && !n.complete
	if n.guessed || n.local || n.metaDirty || n.checked.IsZero() {
		return 0
	}
	return cfg.MetadataTTL
}

// Getattr implements gofuse.NodeGetattrer.
func (n *file) Getattr(ctx context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if !n.isFresh(n.fsys.cfg.MetadataTTL) {
		q, end := question(ctx)
		defer end()
		if _, err := n.refresh(q, false); err != nil {
			return n.fsys.errno("getattr", n.path(), err)
		}
	}
	out.SetTimeout(n.fillAttr(&out.Attr))
	return 0
}

// Setattr implements gofuse.NodeSetattrer.
func (n *file) Setattr(ctx context.Context, fh gofuse.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && size > sizeMax {
		return syscall.EFBIG
	}
	if h, ok := fh.(*handle); ok && in.Valid&fuse.FATTR_SIZE != 0 {
		if err := n.refuses(h.failures); err != nil {
			return toErrno(err)
		}
		h.wrote.Store(true)
	}
	if n.isGuessed() {
		// The kernel has checked an owner that is not known. It looks the path up
		// again.
		q, end := question(ctx)
		defer end()
		err := n.needComplete(q)
		if err == nil {
			err = errStale
		}
		return n.fsys.errno("setattr", n.path(), err)
	}
	h, _ := fh.(*handle)
	if size, ok := in.GetSize(); ok && h == nil && size > 0 {
		// No open has made sure of how much there is to keep.
		q, end := proof(ctx)
		err := n.proveSize(q)
		end()
		if err != nil {
			return n.fsys.errno("setattr", n.path(), err)
		}
	}
	if err := n.setattr(ctx, in, h); err != nil {
		return n.fsys.errno("setattr", n.path(), err)
	}
	out.SetTimeout(n.fillAttr(&out.Attr))
	return 0
}

func (n *file) setattr(ctx context.Context, in *fuse.SetAttrIn, h *handle) error {
	dctx, leave, err := n.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(dctx, int64(size), h); err != nil {
			return err
		}
	}
	return n.changeMeta(dctx, func(meta map[string]string) error {
		a := attributesOf(meta)
		a.change(in, syscall.S_IFREG)
		a.put(meta, n.fsys.cfg.Convention)
		return nil
	})
}

// Open implements gofuse.NodeOpener.
func (n *file) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	h, fuseFlags, err := n.open(ctx, flags)
	if err != nil {
		return nil, 0, n.fsys.errno("open", n.path(), err)
	}
	return h, fuseFlags, 0
}

// revalidateAfter is how old knowledge of a file may be when it is opened:
// what another mount has closed is seen by who opens it a second later.
func (f *filesystem) revalidateAfter() time.Duration {
	if f.cfg.MetadataTTL == Indefinite {
		return Indefinite
	}
	return min(time.Second, f.cfg.MetadataTTL)
}

func (n *file) open(ctx context.Context, flags uint32) (*handle, uint32, error) {
	if !n.isFresh(n.fsys.revalidateAfter()) {
		q, end := question(ctx)
		changed, err := n.refresh(q, flags&(syscall.O_ACCMODE|syscall.O_TRUNC) == syscall.O_RDONLY)
		end()
		if changed {
			// The kernel has the attributes of what was there before, and
			// would end a read, or place an append, by the old size. It
			// looks the path up again.
			return nil, 0, errStale
		}
		if err != nil {
			return nil, 0, err
		}
	}
	if flags&syscall.O_TRUNC == 0 {
		q, end := proof(ctx)
		err := n.proveSize(q)
		end()
		if err != nil {
			return nil, 0, err
		}
	}
	h, err := n.openHandle(ctx, flags)
	if err != nil {
		return nil, 0, err
	}
	n.mu.Lock()
	var fuseFlags uint32
	if n.local || n.cached == n.obj.ETag {
		fuseFlags = fuse.FOPEN_KEEP_CACHE
	}
	if !n.local {
		n.cached = n.obj.ETag
	}
	n.mu.Unlock()
	return h, fuseFlags, nil
}

// proveSize makes sure of the size before anybody reads to the end of the file or
// writes there, where the store has only told what may be one. When it is another, the
// kernel has to look the path up again.
func (n *file) proveSize(ctx context.Context) error {
	p, ok := n.bucket.(objstore.Prover)
	ref := objstore.Ref{Key: n.key()}
	n.mu.Lock()
	ref.ETag = n.obj.ETag
	known := n.local || n.gone || !n.inStore || ref.ETag != "" && n.proved == ref.ETag
	n.mu.Unlock()
	if !ok || known {
		return nil
	}
	o, err := p.Prove(ctx, ref)
	n.mu.Lock()
	if n.local {
		n.mu.Unlock()
		return nil
	}
	kind := objstore.KindOf(err)
	if gone := kind == objstore.NotExist; gone || kind == objstore.Stale || err == nil && n.obj.ETag != ref.ETag {
		// Whoever has it open is told so, whoever opens it looks again.
		n.stale, n.checked = n.stale || gone, time.Time{}
		n.mu.Unlock()
		n.forgetTold(ref.Key)
		return errStale
	}
	if err != nil {
		n.mu.Unlock()
		return err
	}
	n.proved, n.provedSize = ref.ETag, o.Size
	right := n.obj.SizeKnown && n.obj.Size == o.Size
	n.obj.Size, n.obj.SizeKnown = o.Size, true
	n.mu.Unlock()
	if right {
		return nil
	}
	n.forgetTold(ref.Key)
	return errStale
}

// forgetTold forgets what listings and HEADs have told of n, whose key is key.
func (n *file) forgetTold(key string) {
	n.fsys.heads.outdate(n.bucket.Name(), key)
	n.unlist()
}

// openHandle returns a handle that may do what flags ask for; O_TRUNC has
// emptied the file.
func (n *file) openHandle(ctx context.Context, flags uint32) (*handle, error) {
	if flags&syscall.O_TRUNC != 0 {
		flags |= syscall.O_WRONLY // POSIX leaves O_RDONLY with it open; Linux truncates
	}
	if flags&syscall.O_ACCMODE == syscall.O_RDONLY {
		return n.newHandle(ctx, flags), nil
	}
	dctx, leave, err := n.change(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.fsys.protected(dctx, n.bucket, n.key()); err != nil {
		leave()
		return nil, err
	}
	// The handle counts as a writer before the file is emptied: the end of
	// an earlier one, which the kernel tells late, must not commit that.
	h := n.newHandle(ctx, flags)
	if flags&syscall.O_TRUNC != 0 {
		h.wrote.Store(true)
		if err = n.truncateAtOpen(dctx, h); err == nil {
			err = n.dropSetID(ctx, dctx)
		}
	}
	leave()
	if err != nil {
		h.Release(ctx)
		return nil, err
	}
	return h, nil
}

// dropSetID takes the set-id bits of a file away that the caller of ctx has
// emptied by opening it: of every other change the kernel sees to that itself,
// and asks for it.
func (n *file) dropSetID(ctx, dctx context.Context) error {
	if caller, ok := fuse.FromContext(ctx); !ok || caller.Uid == 0 {
		return nil
	}
	return n.changeMeta(dctx, func(meta map[string]string) error {
		a := attributesOf(meta)
		kept := a.mode &^ syscall.S_ISUID
		if kept&syscall.S_IXGRP != 0 {
			kept &^= syscall.S_ISGID
		}
		if kept != a.mode {
			a.mode = kept
			a.put(meta, n.fsys.cfg.Convention)
		}
		return nil
	})
}

// change begins a change of the file: a context detached from the request,
// and the gate of its directory entered. The caller calls leave.
func (n *file) change(ctx context.Context) (dctx context.Context, leave func(), err error) {
	dctx = context.WithoutCancel(ctx)
	parent, _ := n.parent()
	leave, err = n.fsys.gate.enter(dctx, parent)
	return dctx, leave, err
}

// OnForget implements gofuse.NodeOnForgetter.
func (n *file) OnForget() { n.fsys.freeIno(n.EmbeddedInode()) }

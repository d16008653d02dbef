package fs

import (
	"context"
	"iter"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// dirHandle is an open directory. go-fuse calls it under a lock of its own,
// one call at a time.
//
// The kernel asks for pages, by the offset of the entry that it has last. Offsets
// count entries. What was listed for a page is kept until the next is asked for:
// the kernel does not always take all of it, and a few names may be listed ahead.
//
//	| . .. a b c d e | f g h i j k l | m n o p ...
//	handed out      ^page   ^at      ^off
//	                 |--- listed ----|
type dirHandle struct {
	dir   *dir
	since uint64 // see dir.ask
	// ctx ends with the handle: the listing runs ahead of the reader.
	ctx    context.Context
	cancel context.CancelFunc

	next func() (name, error, bool)
	stop func()

	told  int         // names of the store
	asked []time.Time // see listedAt

	err    error // what ended the listing
	ended  bool
	local  map[string]bool // names that only this mount knows, true when listed
	extras []string        // those of local still to come

	listed []listedName // from the beginning of the page
	off    uint64       // of the last of listed
	at     uint64       // of the last entry handed out
	sent   uint64       // of the last whose HEAD was sent ahead
	away   bool         // at is nowhere, see rereading
	answer pageAnswer
}

// OpendirHandle implements gofuse.NodeOpendirHandler.
func (d *dir) OpendirHandle(ctx context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	h := &dirHandle{dir: d, since: d.ask()}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if d.fsys.cfg.MetadataTTL == Indefinite {
		return h, fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0 // the kernel may keep the names
	}
	return h, 0, 0
}

// start begins, or begins again, at the first name.
func (h *dirHandle) start() {
	if h.stop != nil {
		h.stop()
	}
	d := h.dir
	prefix := d.prefix()
	ahead := d.opened(prefix)
	asked := time.Now()
	if ahead != nil {
		asked = ahead.asked
	}
	listing := names(prefix,
		ahead.listing(h.ctx, d.bucket, prefix),
		func(k hidden) {
			d.fsys.warnOnce("hidden "+path(d.bucket, k.key), "object is hidden", "key", path(d.bucket, k.key), "why", k.why)
		})
	h.next, h.stop = iter.Pull2(listing)
	h.err, h.ended = nil, false
	h.told, h.asked = 0, []time.Time{asked}
	h.local, h.extras = map[string]bool{}, nil
	for nm, ch := range d.Children() {
		if n, ok := ch.Operations().(*file); ok && n.isLocal() {
			h.local[nm] = false
			h.extras = append(h.extras, nm)
		}
	}
	h.listed, h.off, h.at, h.sent, h.away = nil, 0, 0, 0, false
	h.beginPage()
}

// list adds the next entry to those listed, and reports whether there is one.
func (h *dirHandle) list() bool {
	var n listedName
	switch {
	case h.off == 0:
		n.name = name{name: ".", isDir: true}
	case h.off == 1:
		n.name = name{name: "..", isDir: true}
	case h.nextOfStore(&n), h.err == nil && h.nextLocal(&n):
	default:
		return false
	}
	h.listed = append(h.listed, n)
	h.off++
	return true
}

// nextOfStore makes n the next name that the store tells.
func (h *dirHandle) nextOfStore(n *listedName) bool {
	d := h.dir
	for !h.ended {
		told, err, ok := h.next()
		if !ok || err != nil {
			h.err, h.ended = err, true
			d.listedAll()
			break
		}
		if d.isUnlinked(told.name) {
			continue
		}
		if listed, ok := h.local[told.name]; ok {
			if listed {
				continue
			}
			h.local[told.name] = true
		}
		n.name, n.at = told, h.listedAt()
		d.remember(n.name, h.since, n.at)
		return true
	}
	return false
}

// listedAt returns a time at which the store had not yet told the name that
// is being listed. It was asked for ahead, by up to objstore.ListAhead names, so
// the time is that at which as many were missing: asked has one of every thousand.
func (h *dirHandle) listedAt() time.Time {
	const every = 1000
	if h.told++; h.told%every == 0 {
		h.asked = append(h.asked, time.Now())
		if len(h.asked) > objstore.ListAhead/every+1 {
			h.asked = h.asked[1:]
		}
	}
	return h.asked[0]
}

// Readdirent implements gofuse.FileReaddirenter.
func (h *dirHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if h.away {
		return nil, 0
	}
	if h.next == nil {
		h.start()
	}
	if h.answer.isFull() {
		return nil, 0
	}
	if h.at == h.off && !h.list() {
		if h.err != nil {
			return nil, h.dir.fsys.errno("readdir", path(h.dir.bucket, h.dir.prefix()), h.err)
		}
		return nil, 0
	}
	h.at++
	h.answer.names++
	n := h.current()
	if h.answer.withAttributes && h.dir.fsys.needsHead(n.name) {
		h.askAhead()
	}
	return &fuse.DirEntry{Name: n.name.name, Mode: h.mode(n.name), Ino: h.ino(n.name), Off: h.at}, 0
}

// current returns the entry that was handed out last.
func (h *dirHandle) current() listedName {
	return h.listed[uint64(len(h.listed))-1-(h.off-h.at)]
}

// nextLocal makes n the next name that no listing shows yet.
func (h *dirHandle) nextLocal(n *listedName) bool {
	for len(h.extras) > 0 {
		nm := h.extras[0]
		h.extras = h.extras[1:]
		if !h.local[nm] && h.dir.liveFile(nm) != nil {
			h.local[nm] = true
			n.name = name{name: nm}
			return true
		}
	}
	return false
}

// mode returns the file type for d_type, 0 (unknown) where only a HEAD tells:
// with attributes from metadata a small object may be no regular file.
func (h *dirHandle) mode(n name) uint32 {
	if n.isDir {
		return syscall.S_IFDIR
	}
	fsys := h.dir.fsys
	if !fsys.full() || n.entry.Key == "" || isPlain(n.entry) {
		return syscall.S_IFREG
	}
	if o, ok := fsys.heads.recall(h.dir.bucket.Name(), n.entry); ok {
		return attributesOf(o.Meta).kind(o.Size)
	}
	return 0
}

func (h *dirHandle) ino(n name) uint64 {
	if n.name == "." || n.name == ".." {
		return h.dir.StableAttr().Ino
	}
	if ch := h.dir.GetChild(n.name); ch != nil {
		return ch.StableAttr().Ino
	}
	key := h.dir.prefix() + n.name
	if n.isDir {
		key += "/"
	}
	return inoOf(h.dir.bucket.Name(), key)
}

// Seekdir implements gofuse.FileSeekdirer. Every page but the first begins with
// it, see rereading. Going back before the last page means listing again.
func (h *dirHandle) Seekdir(_ context.Context, off uint64) syscall.Errno {
	if h.away = off == nowhere; h.away {
		return 0
	}
	if off == 0 || off < h.off-uint64(len(h.listed)) || h.next == nil {
		h.start()
	}
	for h.off < off {
		if h.list() {
			continue
		}
		if h.err != nil {
			return h.dir.fsys.errno("readdir", path(h.dir.bucket, h.dir.prefix()), h.err)
		}
		break
	}
	h.at = min(off, h.off)
	left := copy(h.listed, h.listed[uint64(len(h.listed))-(h.off-h.at):])
	clear(h.listed[left:])
	h.listed = h.listed[:left]
	h.beginPage()
	return 0
}

// Fsyncdir implements gofuse.FileFsyncdirer.
func (h *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return h.dir.Fsync(ctx, h, flags)
}

// Releasedir implements gofuse.FileReleasedirer.
func (h *dirHandle) Releasedir(context.Context, uint32) {
	h.cancel()
	if h.stop != nil {
		h.stop()
	}
	h.dir.answered()
}

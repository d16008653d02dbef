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
type dirHandle struct {
	dir   *dir
	since uint64 // see dir.ask
	// ctx ends with the handle: the listing runs ahead of the reader.
	ctx    context.Context
	cancel context.CancelFunc

	next func() (name, error, bool)
	stop func()

	// began is when the listing of the page before the present one can have
	// been asked for, at the latest; see listedAt.
	began, page time.Time
	listed      int

	err    error // what ended the listing
	ended  bool
	off    uint64          // of the last entry handed out
	last   name            // the last entry handed out
	local  map[string]bool // names that only this mount knows, true when handed out
	extras []string        // those of local still to come
}

// OpendirHandle implements gofuse.NodeOpendirHandler.
func (d *dir) OpendirHandle(ctx context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	h := &dirHandle{dir: d, since: d.ask()}
	h.ctx, h.cancel = context.WithCancel(context.WithoutCancel(ctx))
	h.start()
	return h, 0, 0
}

// start begins, or begins again, at the first name.
func (h *dirHandle) start() {
	d := h.dir
	prefix := d.prefix()
	listing := names(prefix,
		d.bucket.List(h.ctx, objstore.Query{Prefix: prefix, Delimiter: "/"}),
		func(k hidden) {
			d.fsys.warnOnce("hidden "+path(d.bucket, k.key), "object is hidden", "key", path(d.bucket, k.key), "why", k.why)
		})
	h.next, h.stop = iter.Pull2(listing)
	h.err, h.ended, h.off = nil, false, 0
	h.began, h.listed = time.Now(), 0
	h.page = h.began
	d.beginListing()
	h.local, h.extras = map[string]bool{}, nil
	for nm, ch := range d.Children() {
		if n, ok := ch.Operations().(*file); ok && n.isLocal() {
			h.local[nm] = false
			h.extras = append(h.extras, nm)
		}
	}
}

// nextListed makes last the next name of the listing.
func (h *dirHandle) nextListed() bool {
	d := h.dir
	for !h.ended {
		n, err, ok := h.next()
		if !ok || err != nil {
			h.err, h.ended = err, true
			break
		}
		if d.isUnlinked(n.name) {
			continue
		}
		if handedOut, ok := h.local[n.name]; ok {
			if handedOut {
				continue
			}
			h.local[n.name] = true
		}
		d.remember(n, h.since, h.listedAt())
		h.last = n
		return true
	}
	return false
}

// listedAt returns a time at which the store had not yet told the name that
// is being listed. Pages of up to 1,000 names are asked for one page ahead,
// so a name may be as old as the beginning of the page before it.
func (h *dirHandle) listedAt() time.Time {
	if h.listed++; h.listed%1000 == 0 {
		h.began, h.page = h.page, time.Now()
	}
	return h.began
}

// Readdirent implements gofuse.FileReaddirenter.
func (h *dirHandle) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if h.off < 2 {
		h.off++
		return &fuse.DirEntry{Name: [...]string{".", ".."}[h.off-1], Mode: syscall.S_IFDIR, Ino: h.dir.StableAttr().Ino, Off: h.off}, 0
	}
	if !h.nextListed() {
		if h.err != nil {
			return nil, h.dir.fsys.errno("readdir", path(h.dir.bucket, h.dir.prefix()), h.err)
		}
		if !h.nextLocal() {
			return nil, 0
		}
	}
	h.off++
	return &fuse.DirEntry{Name: h.last.name, Mode: h.mode(h.last), Ino: h.ino(h.last), Off: h.off}, 0
}

// nextLocal makes last the next name that no listing shows yet.
func (h *dirHandle) nextLocal() bool {
	for len(h.extras) > 0 {
		nm := h.extras[0]
		h.extras = h.extras[1:]
		if !h.local[nm] && h.dir.liveFile(nm) != nil {
			h.local[nm] = true
			h.last = name{name: nm}
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
	if ch := h.dir.GetChild(n.name); ch != nil {
		return ch.StableAttr().Ino
	}
	key := h.dir.prefix() + n.name
	if n.isDir {
		key += "/"
	}
	return inoOf(h.dir.bucket.Name(), key)
}

// Seekdir implements gofuse.FileSeekdirer. Offsets count entries, so going
// back means listing again.
func (h *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	if off < h.off {
		h.stop()
		h.start()
	}
	for h.off < off {
		e, errno := h.Readdirent(ctx)
		if errno != 0 {
			return errno
		}
		if e == nil {
			break
		}
	}
	return 0
}

// Fsyncdir implements gofuse.FileFsyncdirer.
func (h *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return h.dir.Fsync(ctx, h, flags)
}

// Releasedir implements gofuse.FileReleasedirer.
func (h *dirHandle) Releasedir(context.Context, uint32) {
	h.cancel()
	h.stop()
	h.dir.answered()
}

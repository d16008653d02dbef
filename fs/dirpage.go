package fs

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// The kernel takes the attributes of files with their names (READDIRPLUS), which
// saves a request for each when they are wanted, as by ls -l. When they are not, as
// by find, each costs an inode, here and in the kernel, and perhaps a HEAD. So the
// first file of every page goes out by its name alone. If that is looked up before
// the next page is asked for, the next goes out with attributes. The first page of
// a directory does so when those of the last directory were wanted, and is a short
// one otherwise, so that long directories are known for what they are early.

// pageAnswer is what is being answered to one request for names.
type pageAnswer struct {
	names int
	most  int // 0 for as many as there is room for
	// withAttributes tells that they are wanted.
	withAttributes bool
	// watched is the file that went out by its name alone, "" for none yet.
	watched string
}

// shortPage is how many names a page has that is not known to be wanted with
// attributes and is the first.
const shortPage = 16

func (p *pageAnswer) isFull() bool { return p.most > 0 && p.names >= p.most }

// beginPage finds out what the page behind h.at is wanted with.
func (h *dirHandle) beginPage() {
	d, last := h.dir, h.answer
	h.answer = pageAnswer{withAttributes: last.withAttributes}
	switch {
	case h.at == 0:
		if h.answer.withAttributes = d.fsys.attributesWanted.Load(); !h.answer.withAttributes {
			h.answer.most = shortPage
		}
	case last.watched != "":
		h.answer.withAttributes = d.wasLookedUp(last.watched)
		d.fsys.attributesWanted.Store(h.answer.withAttributes)
	}
}

// watch begins to look out for a look-up of name.
func (d *dir) watch(name string) {
	d.mu.Lock()
	d.known.watched = name
	d.mu.Unlock()
}

// wasLookedUp reports whether name was looked up since watch.
func (d *dir) wasLookedUp(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.watched != name
}

// seenLocked notes that name is looked up.
func (d *dir) seenLocked(name string) {
	if d.known.watched == name {
		d.known.watched = ""
		d.fsys.attributesWanted.Store(true)
	}
}

// noAttributes is the answer to the kernel that a name comes without any.
const noAttributes = syscall.ENODATA

// Lookup implements gofuse.FileLookuper: it tells the attributes of the name that
// was handed out last. Attributes that are not known are never guessed.
func (h *dirHandle) Lookup(ctx context.Context, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	n, d := h.current(), h.dir
	switch {
	case n.isDir || n.name.name != nm:
		return nil, noAttributes
	case h.answer.watched == "":
		h.answer.watched = nm
		d.watch(nm)
		return nil, noAttributes
	case !h.answer.withAttributes:
		return nil, noAttributes
	}
	if l := d.liveFile(nm); l != nil && l.isLocal() {
		l.fillEntry(out)
		return l.EmbeddedInode(), 0
	}
	if n.entry.Key == "" || time.Since(n.at) >= d.fsys.cfg.MetadataTTL || d.isUnlinked(nm) || d.isOutdated(nm, h.since) {
		return nil, noAttributes
	}
	f := finding{obj: objstore.Object{Entry: n.entry}, hasObj: true, at: n.at}
	if d.fsys.full() {
		var ok bool
		if f.obj, ok = d.fsys.heads.recall(d.bucket.Name(), n.entry); !ok {
			return nil, noAttributes
		}
		f.complete = true
	}
	return d.adopt(ctx, nm, f, out), 0
}

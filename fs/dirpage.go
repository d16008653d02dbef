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
//
// Where attributes cost HEADs, only what was seen of this very directory counts,
// and a page with attributes is as long as one of a listing. Its HEADs are sent
// ahead, and the answer waits for them.

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

// headPage is how many names a page has whose attributes cost HEADs.
const headPage = 1000

func (p *pageAnswer) isFull() bool { return p.most > 0 && p.names >= p.most }

// beginPage finds out what the page behind h.at is wanted with.
func (h *dirHandle) beginPage() {
	d, last := h.dir, h.answer
	h.sent = 0 // of those that were sent some may be too old by now
	h.answer = pageAnswer{withAttributes: last.withAttributes}
	switch {
	case h.at == 0:
		h.answer.withAttributes = !d.fsys.full() && d.fsys.attributesWanted.Load()
		if !h.answer.withAttributes {
			h.answer.most = shortPage
		}
	case last.watched != "":
		h.answer.withAttributes = d.wasLookedUp(last.watched)
		d.fsys.attributesWanted.Store(h.answer.withAttributes)
	}
	if h.answer.withAttributes && d.fsys.full() {
		h.answer.most = headPage
	}
}

// askAhead sends the HEADs for the entries that follow, as many as may be under
// way at a time. In a long directory they take longer than the listing, which runs
// ahead of them: what was listed so long ago that it will soon not be believed is asked
// for even if it is remembered, and is as new as the answer then.
func (h *dirHandle) askAhead() {
	d := h.dir
	for h.off < h.at+headsInFlight && h.list() {
	}
	for h.sent = max(h.sent, h.at-1); h.sent < h.off; h.sent++ {
		n := &h.listed[uint64(len(h.listed))-(h.off-h.sent)]
		if n.entry.Key == "" || !d.fsys.needsHead(n.name) {
			continue
		}
		now := time.Now()
		old := now.Sub(n.at) >= d.fsys.cfg.MetadataTTL/2
		if old {
			d.fsys.heads.outdate(d.bucket.Name(), n.entry.Key)
		}
		if !d.fsys.heads.askAhead(d.fsys.ahead, &d.fsys.background, d.bucket, n.entry) {
			return
		}
		if old {
			n.at = now
		}
	}
}

// watch begins to look out for a look-up of name.
func (d *dir) watch(name string) {
	d.mu.Lock()
	d.known.watched = name
	d.mu.Unlock()
}

// wasLookedUp reports whether name was looked up since watch, and not to unlink it.
func (d *dir) wasLookedUp(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.watched != name && !d.known.removed
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
	live := d.liveFile(nm)
	var version uint64
	if live != nil {
		if live.isLocal() {
			live.fillEntry(out)
			return live.EmbeddedInode(), 0
		}
		version = live.ownChanges()
	}
	if n.entry.Key == "" || time.Since(n.at) >= d.fsys.cfg.MetadataTTL || d.isUnlinked(nm) || d.isOutdated(nm, h.since) {
		return nil, noAttributes
	}
	f := finding{obj: objstore.Object{Entry: n.entry}, hasObj: true, at: n.at}
	if d.fsys.needsHead(n.name) {
		o, ok := d.fsys.heads.recall(d.bucket.Name(), n.entry)
		if !ok {
			q, end := question(ctx)
			defer end()
			var err error
			if o, err = d.fsys.heads.ask(q, d.bucket, n.entry.Key); err != nil {
				return nil, noAttributes // who looks it up is told
			}
			if d.isOutdated(nm, h.since) || live != nil && live.ownChanges() != version {
				return nil, noAttributes
			}
			f.at = time.Time{}
		}
		f.obj, f.complete = o, true
	}
	return d.adopt(ctx, nm, f, out), 0
}

package fs

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// filesystem is what all inodes of one mount share.
type filesystem struct {
	cfg      Config
	log      *slog.Logger
	heads    *heads
	notes    *notifier
	gate     *gate
	tmpNames tmpNames
	unlinks  unlinks
	names    namesBudget
	listings listings
	// background counts work that outlives its request: commits after the
	// last close, and the like. Close waits for it.
	background sync.WaitGroup
	// ahead is the context of questions that nobody has asked yet. They end
	// with the mount.
	ahead    context.Context
	endAhead context.CancelFunc
	// attributesWanted tells that names of directories were looked up after they
	// were read, when that was found out last; see pageAnswer.
	attributesWanted atomic.Bool
	// lastProcess is the one that processOf found last.
	lastProcess atomic.Uint32

	tree sync.RWMutex // parent and name of every node

	mu      sync.Mutex
	buckets map[string]objstore.Bucket
	moved   map[uint64]*gofuse.Inode // live inodes that left their key, by number
	lastIno uint64                   // counter above the hashes
	dirty   map[*file]struct{}
	lost    []error // what could not be committed after the last close
	held    []*held // what could not be committed and is kept here
	// kept are the files with data that could not be committed, by what it
	// was meant for.
	kept   map[string]keptFile
	warned map[string]bool
	// attrs are the attributes of buckets and of the root of the mount, which
	// no object keeps.
	attrs   map[string]map[string]string
	handles map[*handle]struct{} // open files
}

func newFilesystem(cfg Config) *filesystem {
	f := &filesystem{
		cfg:     cfg,
		log:     cfg.Logger,
		heads:   newHeads(),
		notes:   newNotifier(),
		buckets: map[string]objstore.Bucket{},
		moved:   map[uint64]*gofuse.Inode{},
		lastIno: 1 << 63,
		dirty:   map[*file]struct{}{},
		handles: map[*handle]struct{}{},
		warned:  map[string]bool{},
		attrs:   map[string]map[string]string{},
		kept:    map[string]keptFile{},
	}
	f.names.most = namesMax
	f.listings.goodFor = min(aheadFor, cfg.MetadataTTL)
	f.gate = newGate(&f.tree)
	f.ahead, f.endAhead = context.WithCancel(context.Background())
	return f
}

// close ends the background work; no request may be under way any more.
func (f *filesystem) close() {
	f.settleAllUnlinks(context.Background())
	f.endAhead()
	f.background.Wait()
	f.notes.close()
	f.dropHeld()
}

// bucket returns the open bucket, asking the store at first sight.
func (f *filesystem) bucket(ctx context.Context, name string) (objstore.Bucket, error) {
	f.mu.Lock()
	b := f.buckets[name]
	f.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := f.cfg.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if raced := f.buckets[name]; raced != nil {
		return raced, nil
	}
	f.buckets[name] = b
	return b, nil
}

// forgetBucket drops what is known of a bucket that is gone: one of the same
// name that comes later must be proved anew.
func (f *filesystem) forgetBucket(name string) {
	f.mu.Lock()
	delete(f.buckets, name)
	delete(f.attrs, name)
	f.mu.Unlock()
}

// setDirty notes whether a file holds bytes or attributes that the store has not.
func (f *filesystem) setDirty(n *file, dirty bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if dirty {
		f.dirty[n] = struct{}{}
	} else {
		delete(f.dirty, n)
	}
}

// dirtyFiles returns the files with uncommitted content.
func (f *filesystem) dirtyFiles() []*file {
	f.mu.Lock()
	defer f.mu.Unlock()
	files := make([]*file, 0, len(f.dirty))
	for n := range f.dirty {
		files = append(files, n)
	}
	return files
}

// setOpen notes that a handle was opened, or released; it tells whether that
// is news.
func (f *filesystem) setOpen(h *handle, open bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, is := f.handles[h]; is == open {
		return false
	}
	if open {
		f.handles[h] = struct{}{}
	} else {
		delete(f.handles, h)
	}
	return true
}

// releaseAll ends the handles whose release the kernel has not told: a request
// that waits when the mount ends is dropped.
func (f *filesystem) releaseAll(ctx context.Context) {
	f.mu.Lock()
	open := slices.Collect(maps.Keys(f.handles))
	f.mu.Unlock()
	for _, h := range open {
		_ = h.Release(ctx) // logged there
	}
}

// addLost records data that nobody was left to be told about.
func (f *filesystem) addLost(err error) {
	f.mu.Lock()
	f.lost = append(f.lost, err)
	f.mu.Unlock()
}

// warnOnce logs a line the first time that key comes up in this mount.
func (f *filesystem) warnOnce(key, msg string, args ...any) {
	f.mu.Lock()
	seen := f.warned[key]
	if len(f.warned) >= 10_000 { // a bucket can have a million odd keys
		clear(f.warned)
	}
	f.warned[key] = true
	f.mu.Unlock()
	if !seen {
		f.log.Warn(msg, args...)
	}
}

// protected returns nil when new data under key of b will be protected as the
// policy demands; the first refusal of a bucket is explained in the log.
func (f *filesystem) protected(ctx context.Context, b objstore.Bucket, key string) error {
	_, err := b.Protection(ctx, key)
	if objstore.KindOf(err) == objstore.Unencrypted {
		f.warnOnce("unencrypted "+b.Name(), "refusing to write: the bucket does not encrypt what is stored in it; "+
			"turn on its default encryption, choose another bucket, or mount with --allow-unencrypted to store plaintext",
			"bucket", b.Name(), "err", err)
	}
	return err
}

// full reports whether attributes come from object metadata.
func (f *filesystem) full() bool { return f.cfg.Attributes == AttributesFull }

// needsHead reports whether n is a file whose attributes are not all in what a listing
// told of it.
func (f *filesystem) needsHead(n name) bool { return !n.isDir && (f.full() || !n.entry.SizeKnown) }

// keepingMtime makes a copy as old as what it is made of, which was written at
// t unless its metadata says more: a store dates a copy anew.
func (f *filesystem) keepingMtime(t time.Time) objstore.CopyOptions {
	missing, unless := f.cfg.Convention.missingMtime(inSeconds(t))
	return objstore.CopyOptions{Missing: missing, MissingUnless: unless}
}

// entryTimeouts sets how long the kernel may believe an entry.
func (f *filesystem) entryTimeouts(out *fuse.EntryOut, ttl time.Duration) {
	out.SetEntryTimeout(f.cfg.MetadataTTL)
	out.SetAttrTimeout(ttl)
}

// notifier tells the kernel to drop cached pages. A notification may wait for
// requests on the same inode, so it is never sent from inside of one, nor
// under a lock.
type notifier struct {
	queue chan *gofuse.Inode
	done  chan struct{}
}

func newNotifier() *notifier {
	n := &notifier{queue: make(chan *gofuse.Inode, 1024), done: make(chan struct{})}
	go func() {
		defer close(n.done)
		for inode := range n.queue {
			inode.NotifyContent(0, 0)
		}
	}()
	return n
}

// contentChanged asks for the pages of inode to be dropped. When the queue is
// full the pages stay until the next open, which drops them too.
func (n *notifier) contentChanged(inode *gofuse.Inode) {
	if inode.StableAttr().Mode == 0 {
		return // a file that is being created: the kernel does not know it yet
	}
	select {
	case n.queue <- inode:
	default:
	}
}

func (n *notifier) close() {
	close(n.queue)
	<-n.done
}

package fs

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coffer/objstore"
)

// Who walks a tree opens one directory after the other, and waits for a listing
// each time. Where the walk is in order, see walk, the directories that it comes
// to next are listed ahead of it. The first to open one of them has the listing, if
// it was asked for less than aheadFor ago or is under way, and no name in or above
// that directory was changed by this mount since. Look-ups are told by it that the
// directory is there.

const (
	// aheadPages is how many names of a directory are listed ahead; who opens it
	// has the rest listed.
	aheadPages = 4 * namesOfPage
	// aheadNames bounds the names of all that is listed ahead, at some 250 bytes each.
	aheadNames = 64 << 10
)

// listings are the directories of a mount that are listed ahead. They are good for
// aheadFor, or as long as names are believed.
type listings struct {
	goodFor time.Duration
	names   atomic.Int64

	mu    sync.Mutex
	ahead map[dirKey]*aheadListing
}

type dirKey struct{ bucket, prefix string }

// aheadListing is the beginning of a listing.
type aheadListing struct {
	asked time.Time
	gone  chan struct{} // closed when it is not in listings any more
	// outdated tells that forget has dropped it.
	outdated atomic.Bool
	done     chan struct{} // closed when the rest is known
	// entries are the first, all when nothing follows them.
	entries []objstore.Entry
	all     bool
	err     error
}

// begin returns a listing to be asked for; nil if it is already, and false when
// there are too many.
func (ls *listings) begin(k dirKey) (*aheadListing, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.ahead[k] != nil {
		return nil, true
	}
	if len(ls.ahead) >= aheadMax || ls.names.Load() >= aheadNames {
		return nil, false
	}
	if ls.ahead == nil {
		ls.ahead = map[dirKey]*aheadListing{}
	}
	l := &aheadListing{asked: time.Now(), gone: make(chan struct{}), done: make(chan struct{})}
	ls.ahead[k] = l
	return l, true
}

// look returns the listing of a directory, nil if there is none that is good. With
// take nobody else gets it.
func (ls *listings) look(k dirKey, take bool) *aheadListing {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.ahead[k]
	if l == nil {
		return nil
	}
	if take {
		ls.dropLocked(k, l)
	}
	if !l.isUnderWay() && time.Since(l.asked) >= ls.goodFor {
		return nil
	}
	return l
}

func (ls *listings) dropLocked(k dirKey, l *aheadListing) {
	delete(ls.ahead, k)
	close(l.gone)
}

// drop takes l out, and reports whether it was still there.
func (ls *listings) drop(k dirKey, l *aheadListing) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.ahead[k] != l {
		return false
	}
	ls.dropLocked(k, l)
	return true
}

// forget drops what a change of key makes outdated: the directories that it lies in
// and those that lie in it. What heads remember of them is forgotten after that.
func (ls *listings) forget(bucket, key string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for k, l := range ls.ahead {
		if k.bucket == bucket && (strings.HasPrefix(key, k.prefix) || strings.HasPrefix(k.prefix, strings.TrimSuffix(key, "/")+"/")) {
			l.outdated.Store(true)
			ls.dropLocked(k, l)
		}
	}
}

// isUnderWay reports whether a listing, if there is one, is not known yet.
func (l *aheadListing) isUnderWay() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// wait returns when l is known, or ctx ends. It reports whether it is of use.
func (l *aheadListing) wait(ctx context.Context) bool {
	select {
	case <-l.done:
		return l.err == nil
	case <-ctx.Done():
		return false
	}
}

// fill asks for a listing, and for the marker of the directory where that keeps
// attributes, which who comes to the directory wants first.
func (l *aheadListing) fill(ctx context.Context, fsys *filesystem, b objstore.Bucket, prefix string) {
	defer close(l.done)
	l.all = true
	for e, err := range b.List(ctx, objstore.Query{Prefix: prefix, Delimiter: "/", Limit: aheadPages}) {
		if err != nil {
			l.err = err // whoever opens it is told
			return
		}
		l.entries = append(l.entries, e)
		if fsys.listings.names.Add(1) >= aheadNames || len(l.entries) == aheadPages {
			l.all = false
			break
		}
	}
	if fsys.full() && len(l.entries) > 0 && l.entries[0].Key == prefix {
		if _, ok := fsys.heads.recall(b.Name(), l.entries[0]); !ok {
			_, _ = fsys.heads.ask(ctx, b, prefix) // who looks it up is told
			if l.outdated.Load() {
				fsys.heads.forget(b.Name(), prefix)
			}
		}
	}
}

// listing yields the names of a directory, of which the first may be listed.
func (l *aheadListing) listing(ctx context.Context, b objstore.Bucket, prefix string) iter.Seq2[objstore.Entry, error] {
	q := objstore.Query{Prefix: prefix, Delimiter: "/"}
	return func(yield func(objstore.Entry, error) bool) {
		if l != nil && l.wait(ctx) {
			for _, e := range l.entries {
				q.StartAfter = e.Key
				if !yield(e, nil) {
					return
				}
			}
			if l.all {
				return
			}
		}
		for e, err := range b.List(ctx, q) {
			if !yield(e, err) {
				return
			}
		}
	}
}

// listAhead lists the directory nm of d, which is at pos of w. It reports false when
// too many are listed.
func (d *dir) listAhead(nm string, w *walk, pos int) bool {
	fsys, k := d.fsys, dirKey{d.bucket.Name(), d.prefix() + nm + "/"}
	l, ok := fsys.listings.begin(k)
	if l == nil {
		return ok
	}
	fsys.background.Go(func() {
		ctx, cancel := context.WithTimeout(fsys.ahead, questionTimeout)
		defer cancel()
		l.fill(ctx, fsys, d.bucket, k.prefix)
		defer fsys.listings.names.Add(-int64(len(l.entries)))
		old := time.NewTimer(time.Until(l.asked.Add(fsys.listings.goodFor)))
		defer old.Stop()
		select {
		case <-l.gone:
		case <-ctx.Done():
			fsys.listings.drop(k, l)
		case <-old.C:
			if fsys.listings.drop(k, l) {
				d.mu.Lock()
				w.tooLate(pos)
				d.mu.Unlock()
			}
		}
	})
	return true
}

// askWalk has those directories listed that w, a walk in d, comes to next.
func (d *dir) askWalk(w *walk) {
	d.mu.Lock()
	from, to := w.ask()
	next := slices.Clone(w.order[from:to])
	for i, nm := range next {
		if l := d.known.listed.names[nm]; !l.isDir || l.doubtful {
			next[i] = "" // removed since it was listed
		}
	}
	d.mu.Unlock()
	for i, nm := range next {
		if nm != "" && !d.listAhead(nm, w, from+i) {
			d.mu.Lock()
			w.refused(from + i)
			d.mu.Unlock()
			return
		}
	}
}

// cameTo notes that nm in d is opened, or looked up, for which l was listed ahead
// if it was. It returns how many levels below nm the walker is expected to go, and
// whether in the order of numbers.
func (d *dir) cameTo(nm string, opened bool, l *aheadListing) (levels int, byNumber bool) {
	now, numberOf := time.Now(), d.numbers()
	d.mu.Lock()
	k := &d.known
	at := k.listed.names[nm]
	if !at.isDir || at.pos < 0 {
		d.mu.Unlock()
		return 0, false
	}
	w, inOrder := &k.walk, false
	byNumber = k.byNumber.depth > 0
	if !byNumber {
		inOrder = w.cameTo(int(at.pos), opened, l.isUnderWay(), now)
		byNumber = opened && !inOrder
	}
	if byNumber && k.byNumber.sort(k.walk.order, numberOf, now) {
		w = &k.byNumber.walk
		inOrder = w.cameTo(k.byNumber.position(numberOf(nm)), opened, l.isUnderWay(), now)
	}
	levels = w.levelsBelow()
	d.mu.Unlock()
	if !inOrder {
		return 0, false
	}
	d.askWalk(w)
	if opened {
		for n := 1; d != nil; n++ {
			d.mu.Lock()
			d.known.walk.below(n, now)
			d.known.byNumber.below(n, now)
			d.mu.Unlock()
			d, _ = d.parent()
		}
	}
	return levels, byNumber
}

// listedAll begins the walk of d in the order of numbers, if one is expected.
func (d *dir) listedAll() {
	now, numberOf := time.Now(), d.numbers()
	d.mu.Lock()
	k := &d.known
	expected := k.byNumber.depth > 0 && k.byNumber.sort(k.walk.order, numberOf, now)
	d.mu.Unlock()
	if expected {
		d.askWalk(&k.byNumber.walk)
	}
}

// numbers returns the inode numbers of the directories in d, by name, that have
// kept their key.
func (d *dir) numbers() func(nm string) uint64 {
	bucket, prefix := d.bucket.Name(), d.prefix()
	return func(nm string) uint64 { return inoOf(bucket, prefix+nm+"/") }
}

// opened notes that d, which is prefix, is opened. It returns the listing of d that
// was asked for ahead, nil if there is none, and begins the walk of d.
func (d *dir) opened(prefix string) *aheadListing {
	l := d.fsys.listings.look(dirKey{d.bucket.Name(), prefix}, true)
	levels, byNumber := 0, false
	if p, nm := d.parent(); p != nil {
		levels, byNumber = p.cameTo(nm, true, l)
	}
	d.beginListing()
	d.mu.Lock()
	if byNumber {
		d.known.byNumber.begin(levels)
	} else {
		d.known.walk.begin(levels)
	}
	d.mu.Unlock()
	return l
}

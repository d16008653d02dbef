package fs

import (
	"container/list"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coffer/objstore"
)

// namesMax is how many names all directories of a mount remember, at some 180 bytes
// each: see BenchmarkKeptNames.
const namesMax = 1_000_000

// keptNames are the names that a directory remembers. The zero value is ready.
type keptNames struct {
	names map[string]keptName
	base  time.Time // keptName.at counts from here
	kept  int       // as many are counted in namesBudget
}

// keptName is a listedName in little room: neither its key nor its name, which are
// known to who asks.
type keptName struct {
	etag                objstore.ETag
	class               string
	size, stored        int64
	modified            int64         // in ns since 1970, 0 for none
	at                  time.Duration // after base
	pos                 int32
	isDir, sizeKnown    bool
	doubtful, isUnasked bool
}

// get returns what is remembered of a name with that key.
func (k *keptNames) get(nm, key string) (listedName, bool) {
	c, ok := k.names[nm]
	if !ok {
		return listedName{}, false
	}
	l := listedName{name: name{name: nm, isDir: c.isDir}, at: k.base.Add(c.at), pos: int(c.pos), doubtful: c.doubtful, unasked: c.isUnasked}
	if !c.isDir {
		l.entry = objstore.Entry{Key: key, Size: c.size, SizeKnown: c.sizeKnown, StoredSize: c.stored, ETag: c.etag, StorageClass: c.class}
		if c.modified != 0 {
			l.entry.LastModified = time.Unix(0, c.modified).UTC()
		}
	}
	return l, true
}

// put remembers l.
func (k *keptNames) put(l listedName) {
	if k.names == nil {
		k.names, k.base = map[string]keptName{}, time.Now()
	}
	e := l.entry
	c := keptName{
		etag: e.ETag, class: e.StorageClass, size: e.Size, stored: e.StoredSize, sizeKnown: e.SizeKnown,
		at: l.at.Sub(k.base), pos: int32(l.pos), isDir: l.isDir, doubtful: l.doubtful, isUnasked: l.unasked,
	}
	if !e.LastModified.IsZero() {
		c.modified = e.LastModified.UnixNano()
	}
	k.names[strings.Clone(l.name.name)] = c // the rest of the key need not stay
}

// namesBudget bounds the names that all directories remember. The directory that
// was listed longest ago forgets them first.
type namesBudget struct {
	most int64
	kept atomic.Int64

	mu   sync.Mutex
	dirs list.List // of *dir, the last that was listed at the end
	at   map[*dir]*list.Element
}

// countLocked notes how many names d remembers by now.
func (d *dir) countLocked() {
	k := &d.known.listed
	d.fsys.names.kept.Add(int64(len(k.names) - k.kept))
	k.kept = len(k.names)
}

// used notes that d is being listed.
func (b *namesBudget) used(d *dir) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.at[d]; e != nil {
		b.dirs.MoveToBack(e)
		return
	}
	if b.at == nil {
		b.at = map[*dir]*list.Element{}
	}
	b.at[d] = b.dirs.PushBack(d)
}

// oldest takes out the directory that was listed longest ago.
func (b *namesBudget) oldest() *dir {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.dirs.Front()
	if e == nil {
		return nil
	}
	d := b.dirs.Remove(e).(*dir)
	delete(b.at, d)
	return d
}

// fit has directories forget names until there are not too many: d, which is being
// listed, when it alone has so many.
func (b *namesBudget) fit(d *dir) {
	for b.kept.Load() > b.most {
		old := b.oldest()
		if old == nil {
			old = d
		}
		old.forgetNames()
		if old == d {
			b.used(d)
			return
		}
	}
}

// forgetNames forgets what was listed.
func (d *dir) forgetNames() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.clear()
	d.countLocked()
}

// forgotten takes d out, which the kernel does not know any more.
func (b *namesBudget) forgotten(d *dir) {
	b.mu.Lock()
	if e := b.at[d]; e != nil {
		b.dirs.Remove(e)
		delete(b.at, d)
	}
	b.mu.Unlock()
	d.forgetNames()
}

package fs

import (
	"cmp"
	"context"
	"maps"
	"time"

	"coffer/objstore"
)

// knownNames is what a directory remembers of its names: what listings told,
// and which own changes make an answer of the store outdated. It is guarded by
// dir.mu.
type knownNames struct {
	listed keptNames
	ahead  readAhead
	// walk and byNumber are of the directories in it.
	walk     walk
	byNumber numberWalk
	// removed tells that a name was unlinked and none recalled since.
	removed bool
	// watched is a name of which a look-up is waited for; see pageAnswer.
	watched string

	// whole is when the store had no other names than those of listed; zero
	// while that is not known. took is for how long it was asked. See listWhole.
	whole time.Time
	took  time.Duration
	// listing counts what makes a listing of the whole outdated altogether.
	listing  int
	underway bool // such a listing is under way
	// tooMany is how many names were not all, or could not be told soon enough
	// to be of use, when that was found last.
	tooMany   int
	tooManyAt time.Time
	lookups   rate // those that found no file
	// files is how many look-ups in a row found one, the last at fileAt.
	files  int
	fileAt time.Time

	asking  int    // questions under way
	changes uint64 // own changes so far
	// changed is the last own change of a name, kept while asking > 0.
	changed map[string]uint64
	// floor makes every answer asked for before it outdated: changed was
	// too large to keep.
	floor uint64
}

// listedName is a name as a listing told it.
type listedName struct {
	name
	at  time.Time // not later than the store said so
	pos int       // in readAhead.order or walk.order, -1 for in neither
	// doubtful tells that only the store knows by now.
	doubtful bool
	// unasked tells that nobody has listed the directory: that the name is a
	// file is believed, and no more of it.
	unasked bool
	// removing tells that this look-up is one of an unlink, probably.
	removing bool
}

const (
	// listedMax bounds the names that are listed because of look-ups.
	listedMax = 128 << 10
	// changedMax bounds the changes that are kept apart by name.
	changedMax = 64 << 10
)

// ask begins a question about names of d. Its answer about a name is outdated
// when an own change of that name ended in between; see isOutdated.
func (d *dir) ask() (since uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.asking++
	return d.known.changes
}

// answered ends a question.
func (d *dir) answered() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.asking--; d.known.asking == 0 {
		d.known.changed, d.known.floor = nil, 0
	}
}

func (d *dir) isOutdated(name string, since uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.isOutdated(name, since)
}

func (k *knownNames) isOutdated(name string, since uint64) bool {
	return k.changed[name] > since || k.floor > since
}

// didChange notes that an own change of name has ended.
func (d *dir) didChange(name string) {
	key := d.prefix() + name
	d.fsys.listings.forget(d.bucket.Name(), key)
	d.fsys.heads.forget(d.bucket.Name(), key)
	d.fsys.heads.forget(d.bucket.Name(), key+"/")
	d.mu.Lock()
	defer d.mu.Unlock()
	k := &d.known
	k.changes++
	d.doubtLocked(name)
	if k.asking == 0 {
		return
	}
	if len(k.changed) >= changedMax {
		k.changed, k.floor = nil, k.changes
	}
	if k.changed == nil {
		k.changed = map[string]uint64{}
	}
	k.changed[name] = k.changes
}

// didUnlink notes that an unlink has ended: the next look-up may be of another.
func (d *dir) didUnlink() {
	d.mu.Lock()
	d.known.removed = true
	d.mu.Unlock()
	d.fsys.attributesWanted.Store(false)
}

// unlist forgets what a listing told of name, because it is known to be wrong.
func (d *dir) unlist(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doubtLocked(name)
}

// doubtLocked makes the next look-up of name ask the store. It is noted only
// while something would be believed of the name otherwise: that a file which was
// made or removed is no directory stays true.
func (d *dir) doubtLocked(name string) {
	k := &d.known
	was := k.listed.names[name]
	delete(k.listed.names, name)
	switch {
	case !d.tellsWholeLocked(time.Now()):
	case d.fsys.cfg.AbsentTTL == 0 && !was.isDir:
	case len(k.listed.names) >= listedMax:
		k.clear()
	default:
		k.doubt(name)
	}
	d.countLocked()
}

// doubt notes that only the store knows what name is: a directory, perhaps.
func (k *knownNames) doubt(nm string) {
	k.listed.put(listedName{name: name{name: nm, isDir: true}, pos: -1, doubtful: true})
}

// tellsWholeLocked reports whether a listing of the whole says something of the
// names that it did not have.
func (d *dir) tellsWholeLocked(now time.Time) bool {
	return !d.known.whole.IsZero() && now.Sub(d.known.whole) < d.useful()
}

// useful is for how long a listing of the whole is.
func (d *dir) useful() time.Duration {
	return cmp.Or(d.fsys.cfg.AbsentTTL, d.fsys.cfg.MetadataTTL)
}

// remember keeps a name from a listing for the lookups that follow it.
func (d *dir) remember(n name, since uint64, at time.Time) {
	d.mu.Lock()
	k := &d.known
	if !k.isOutdated(n.name, since) && d.fsys.cfg.MetadataTTL > 0 {
		k.add(n, at, d.fsys.needsHead(n))
		d.countLocked()
	}
	walks := n.isDir && k.walk.depth > 0
	d.mu.Unlock()
	d.fsys.names.fit(d)
	if walks {
		d.askWalk(&k.walk)
	}
}

func (k *knownNames) add(n name, at time.Time, needsHead bool) {
	l := listedName{name: n, at: at, pos: -1}
	switch {
	case n.isDir:
		l.pos = k.walk.add(n.name, time.Now())
	case needsHead:
		l.pos = k.ahead.add(n.name)
	}
	k.listed.put(l)
}

// clear forgets what was listed.
func (k *knownNames) clear() {
	k.listed.names, k.ahead, k.whole = nil, readAhead{}, time.Time{}
	k.walk, k.byNumber = walk{}, numberWalk{}
	k.listing++
}

// beginListing forgets the names of the last listing: another tells them anew.
func (d *dir) beginListing() {
	d.forgetNames()
	d.fsys.names.used(d)
}

// recall returns a name as a listing told it not longer ago than names are
// believed. When names are recalled in the order of the listing, which is how
// ls -l stats them, the HEADs of those to come are sent ahead. Not so where each
// is unlinked before the next is recalled, which is how rm -r goes along, by
// somebody of whom the kernel needs no attributes for that.
func (d *dir) recall(nm string, needsNone bool) (listedName, bool) {
	prefix := d.prefix()
	d.mu.Lock()
	k := &d.known
	d.seenLocked(nm)
	l, ok := k.listed.get(nm, prefix+nm)
	ok = ok && !l.doubtful && time.Since(l.at) < d.fsys.cfg.MetadataTTL
	var next []objstore.Entry
	if ok && !l.isDir && l.pos >= 0 {
		removing := k.removed && needsNone && !d.isStickyLocked()
		l.removing = removing && isPlain(l.entry)
		for _, nm := range k.ahead.lookedUp(l.pos) {
			if l, ok := k.listed.get(nm, prefix+nm); ok && (!removing || !isPlain(l.entry)) {
				next = append(next, l.entry)
			}
		}
	}
	k.removed = false
	d.mu.Unlock()
	for _, e := range next {
		d.fsys.heads.askAhead(d.fsys.ahead, &d.fsys.background, d.bucket, e)
	}
	return l, ok
}

// A look-up that nothing is remembered for costs two requests: a HEAD for the
// file, and a LIST for the directory, which may be there because keys lie below
// it and for nothing else. A LIST costs more, with some servers as much as there
// are names in the directory.
//
// Where the last look-ups have found files, as when a data set is read, the next is
// asked for as a file first, and the LIST is left out when it is one. Where they have
// not, as when a tree is written, one listing tells which names are files, and of all
// others that no keys lie below them, so that what is left to ask for is what another
// mount can have made a moment ago, a file or the marker of a directory: two HEADs.
// That nothing is there is believed only where Config.AbsentTTL says so.
const (
	// manyLookups is how many in a second are worth one page of a listing for
	// every second that it is good for, and how many files in a row make the next
	// name a likely one.
	manyLookups = 8
	// namesOfPage is how many names a store tells at once.
	namesOfPage = 1000
	// tooManyFor is for how long a directory is left alone that has more names
	// than its look-ups are worth, or that cannot be listed in time, unless they
	// come twice as fast.
	tooManyFor = 10 * time.Second
)

// expectsFile reports whether a name that nothing is remembered for is likely to be
// a file: many were in a row, each within a second of the last.
func (d *dir) expectsFile() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.files >= manyLookups && time.Since(d.known.fileAt) < time.Second
}

// foundFile notes that a look-up has found a file and no directory.
func (d *dir) foundFile() {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, now := &d.known, time.Now()
	if now.Sub(k.fileAt) >= time.Second {
		k.files = 0
	}
	k.files++
	k.fileAt = now
}

// foundNoFile notes that a look-up has found no file, or an empty one, and so had to
// ask for a directory. It has the directory listed when that is worth it.
func (d *dir) foundNoFile() {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, now := &d.known, time.Now()
	k.files = 0
	n := k.lookups.add(now)
	if renewed := d.renewedAfterLocked(); !k.underway && renewed > 0 && now.Sub(k.whole) >= renewed {
		most := min(n/manyLookups*max(1, int(renewed/time.Second))*namesOfPage, listedMax)
		if most > 0 && (most >= 2*k.tooMany || now.Sub(k.tooManyAt) > tooManyFor) {
			k.underway = true
			d.fsys.background.Go(func() { d.listWhole(most) })
		}
	}
}

// belief is what is believed of a name that nothing is remembered for.
type belief int

const (
	nothing  belief = iota
	unmarked        // there is no directory of that name without a marker
	absent
)

// believes returns what is believed of name.
func (d *dir) believes(name string) belief {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, told := d.known.listed.names[name]
	switch {
	case !d.tellsWholeLocked(time.Now()) || l.isDir:
		return nothing
	case d.fsys.cfg.AbsentTTL == 0:
		return unmarked
	case !told:
		return absent
	}
	return nothing
}

// renewedAfterLocked returns how old a listing of the whole becomes while look-ups
// come, 0 for no listing at all. Where it tells what is absent that is as old as
// it is believed. Where it saves a LIST for each look-up, the next is to be there
// before, or they would all be sent meanwhile.
func (d *dir) renewedAfterLocked() time.Duration {
	useful := d.useful()
	if d.fsys.cfg.AbsentTTL > 0 {
		return useful
	}
	return max(useful/2, useful-max(useful/10, 2*d.known.took))
}

// listWhole remembers all names of d, unless they are more than most.
func (d *dir) listWhole(most int) {
	ctx, cancel := context.WithTimeout(d.fsys.ahead, questionTimeout)
	defer cancel()
	d.fsys.names.used(d)
	defer d.fsys.names.fit(d)
	since := d.ask()
	defer d.answered()
	d.mu.Lock()
	listing := d.known.listing
	d.mu.Unlock()
	at, prefix, told := time.Now(), d.prefix(), 0
	entries := func(yield func(objstore.Entry, error) bool) {
		for e, err := range d.bucket.List(ctx, objstore.Query{Prefix: prefix, Delimiter: "/", Limit: most}) {
			if told++; !yield(e, err) {
				return
			}
		}
	}
	var all []name
	var failed error
	for n, err := range names(prefix, entries, func(hidden) {}) { // who lists it is told of hidden keys
		if err != nil {
			failed = err // whoever asks for a name is told
			break
		}
		all = append(all, n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := &d.known
	k.underway, k.took = false, time.Since(at)
	if failed != nil || told >= most || time.Since(at) >= d.useful() {
		k.tooMany, k.tooManyAt = most, time.Now()
	}
	if failed == nil && told < most && k.listing == listing && k.floor <= since {
		d.takeWholeLocked(all, since, at)
	}
}

// takeWholeLocked remembers that all names are all, of a listing that began at a
// time. What somebody's own listing told is more, and is kept.
func (d *dir) takeWholeLocked(all []name, since uint64, at time.Time) {
	k := &d.known
	maps.DeleteFunc(k.listed.names, func(_ string, l keptName) bool {
		return l.isUnasked || time.Since(k.listed.base.Add(l.at)) >= d.fsys.cfg.MetadataTTL
	})
	k.whole = at
	for _, n := range all {
		if _, told := k.listed.names[n.name]; !told {
			k.listed.put(listedName{name: n, at: at, pos: -1, unasked: true})
		}
	}
	for name, change := range k.changed {
		if change > since {
			k.doubt(name)
		}
	}
	d.countLocked()
}

// rate counts what comes in a second.
type rate struct {
	second      int64
	now, before int
}

// add counts one, and returns how many came in this second or in the last,
// whichever had more.
func (r *rate) add(at time.Time) int {
	switch s := at.Unix(); s {
	case r.second:
	case r.second + 1:
		r.second, r.now, r.before = s, 0, r.now
	default:
		r.second, r.now, r.before = s, 0, 0
	}
	r.now++
	return max(r.now, r.before)
}

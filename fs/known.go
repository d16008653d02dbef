package fs

import (
	"time"

	"coffer/objstore"
)

// knownNames is what a directory remembers of its names: what listings told,
// and which own changes make an answer of the store outdated. It is guarded by
// dir.mu.
type knownNames struct {
	listed map[string]listedName
	ahead  readAhead

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
	pos int       // in readAhead.order, -1 for a directory
}

const (
	// listedMax bounds the names that one directory remembers from listings,
	// at some 200 bytes each.
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
	d.fsys.heads.forget(d.bucket.Name(), d.prefix()+name)
	d.mu.Lock()
	defer d.mu.Unlock()
	k := &d.known
	k.changes++
	delete(k.listed, name)
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

// unlist forgets what a listing told of name, because it is known to be wrong.
func (d *dir) unlist(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known.listed, name)
}

// remember keeps a name from a listing for the lookups that follow it.
func (d *dir) remember(n name, since uint64, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := &d.known
	if k.isOutdated(n.name, since) || d.fsys.cfg.MetadataTTL == 0 {
		return
	}
	if len(k.listed) >= listedMax {
		k.listed, k.ahead = nil, readAhead{}
	}
	if k.listed == nil {
		k.listed = map[string]listedName{}
	}
	l := listedName{n, at, -1}
	if !n.isDir && d.fsys.full() {
		l.pos = k.ahead.add(n.entry)
	}
	k.listed[n.name] = l
}

// beginListing forgets the names of the last listing: another tells them anew.
func (d *dir) beginListing() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.listed, d.known.ahead = nil, readAhead{}
}

// recall returns a name as a listing told it not longer ago than names are
// believed. When names are recalled in the order of the listing, which is how
// ls -l stats them, the HEADs of those to come are sent ahead.
func (d *dir) recall(nm string) (listedName, bool) {
	d.mu.Lock()
	l, ok := d.known.listed[nm]
	ok = ok && time.Since(l.at) < d.fsys.cfg.MetadataTTL
	var next []objstore.Entry
	if ok && l.pos >= 0 {
		next = d.known.ahead.lookedUp(l.pos)
	}
	d.mu.Unlock()
	for _, e := range next {
		d.fsys.heads.askAhead(&d.fsys.background, d.bucket, e)
	}
	return l, ok
}

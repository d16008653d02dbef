package cache

import (
	"slices"
	"sort"
)

// ExtentKind tells where the bytes of an extent are.
type ExtentKind uint8

// The kinds of extents.
const (
	// Hole reads as zeros; nothing is stored.
	Hole ExtentKind = iota
	// Local bytes were written here and are on scratch or in memory.
	Local
	// Remote bytes are those of the base at RemoteOff.
	Remote
)

// String returns the kind in a word.
func (k ExtentKind) String() string {
	switch k {
	case Hole:
		return "hole"
	case Local:
		return "local"
	case Remote:
		return "remote"
	}
	return "unknown"
}

// Extent is a run of bytes of one kind.
type Extent struct {
	Kind ExtentKind
	// Off and Len are the run within the file, in bytes; Len is positive.
	Off, Len int64
	// RemoteOff is the first byte's place in the base of a Remote extent.
	RemoteOff int64
}

// end returns the offset after the last byte.
func (e Extent) end() int64 { return e.Off + e.Len }

// cut returns the part of e from lo up to hi, which lie within it.
func (e Extent) cut(lo, hi int64) Extent {
	c := Extent{Kind: e.Kind, Off: lo, Len: hi - lo}
	if e.Kind == Remote {
		c.RemoteOff = e.RemoteOff + lo - e.Off
	}
	return c
}

// follows reports whether e and the run before it are one run.
func (e Extent) follows(prev Extent) bool {
	return e.Kind == prev.Kind && e.Off == prev.end() &&
		(e.Kind != Remote || e.RemoteOff == prev.RemoteOff+prev.Len)
}

// extents is a file as runs that follow one another from 0 to its size without
// gaps, no two of which could be one. The zero value is an empty file. It maps
// and holds no bytes.
type extents struct {
	runs []Extent
}

// size returns the length of the file.
func (x *extents) size() int64 {
	if len(x.runs) == 0 {
		return 0
	}
	return x.runs[len(x.runs)-1].end()
}

// find returns the index of the run that holds off, len(x.runs) beyond the end.
func (x *extents) find(off int64) int {
	return sort.Search(len(x.runs), func(i int) bool { return x.runs[i].end() > off })
}

// at returns the rest, from off on, of the run that holds off.
func (x *extents) at(off int64) (Extent, bool) {
	i := x.find(off)
	if i == len(x.runs) {
		return Extent{}, false
	}
	return x.runs[i].cut(off, x.runs[i].end()), true
}

// write makes n > 0 bytes at off local. A gap between the end of the file and
// off becomes a hole.
//
//	before  |---- remote ----|-- hole --|
//	write          |########|
//	after   |remote|# local #|r|-- hole --|
func (x *extents) write(off, n int64) {
	if size := x.size(); off > size {
		x.truncate(off)
	}
	x.put(Extent{Kind: Local, Off: off, Len: n})
}

// put replaces what e covers; e begins at or before the end of the file.
func (x *extents) put(e Extent) {
	i := x.find(e.Off)
	j := i
	for j < len(x.runs) && x.runs[j].Off < e.end() {
		j++
	}
	var parts [3]Extent
	with := parts[:0]
	if i < j && x.runs[i].Off < e.Off {
		with = append(with, x.runs[i].cut(x.runs[i].Off, e.Off))
	}
	with = append(with, e)
	if i < j && x.runs[j-1].end() > e.end() {
		with = append(with, x.runs[j-1].cut(e.end(), x.runs[j-1].end()))
	}
	// Neighbours on both sides may be one run with what is put.
	if i > 0 {
		i--
		with = append([]Extent{x.runs[i]}, with...)
	}
	if j < len(x.runs) {
		with = append(with, x.runs[j])
		j++
	}
	merged := with[:1]
	for _, r := range with[1:] {
		if last := &merged[len(merged)-1]; r.follows(*last) {
			last.Len += r.Len
		} else {
			merged = append(merged, r)
		}
	}
	x.runs = slices.Replace(x.runs, i, j, merged...)
}

// long returns a length, no less than least, that at most most remote runs
// have or exceed, and how many bytes those hold together.
func (x *extents) long(least int64, most int) (length, bytes int64) {
	for length = least; ; length *= 2 {
		count := 0
		bytes = 0
		for _, r := range x.runs {
			if r.Kind == Remote && r.Len >= length {
				count++
				bytes += r.Len
			}
		}
		if count <= most {
			return length, bytes
		}
	}
}

// remote reports whether some run is one.
func (x *extents) remote() bool {
	return slices.ContainsFunc(x.runs, func(e Extent) bool { return e.Kind == Remote })
}

// truncate makes the file n bytes long; what is added is a hole.
func (x *extents) truncate(n int64) {
	size := x.size()
	switch {
	case n > size:
		x.put(Extent{Kind: Hole, Off: size, Len: n - size})
	case n < size:
		i := x.find(n)
		if x.runs[i].Off < n {
			x.runs[i] = x.runs[i].cut(x.runs[i].Off, n)
			i++
		}
		x.runs = slices.Delete(x.runs, i, len(x.runs))
	}
}

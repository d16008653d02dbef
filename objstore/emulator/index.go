package emulator

import (
	"slices"
	"sort"
	"strconv"
	"strings"
)

// index maps keys to their versions in the byte order of the keys. It is a
// row of sorted blocks: an insert moves the entries of one block and, now and
// then, the row of blocks, which stays cheap for millions of keys. The zero
// value is empty. Not safe for concurrent use.
type index struct {
	blocks [][]*entry // none empty
	n      int
}

// entry holds all versions of a key, newest first; never none.
type entry struct {
	key      string
	versions []*version
}

// current returns the newest version, nil when that is a delete marker.
func (e *entry) current() *version {
	if v := e.versions[0]; !v.DeleteMarker {
		return v
	}
	return nil
}

// byID returns the version with this id, nil when there is none; e may be nil.
func (e *entry) byID(id string) *version {
	if e == nil {
		return nil
	}
	for _, v := range e.versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// maxBlock entries split a block in two. 512 pointers are 4 KiB.
const maxBlock = 512

// find returns the position of the first entry whose key is at or after key.
func (x *index) find(key string) (block, i int) {
	block = sort.Search(len(x.blocks), func(b int) bool {
		last := x.blocks[b][len(x.blocks[b])-1]
		return last.key >= key
	})
	if block == len(x.blocks) {
		return block, 0
	}
	b := x.blocks[block]
	return block, sort.Search(len(b), func(j int) bool { return b[j].key >= key })
}

// get returns the entry of key, nil when there is none.
func (x *index) get(key string) *entry {
	b, i := x.find(key)
	if b < len(x.blocks) && x.blocks[b][i].key == key {
		return x.blocks[b][i]
	}
	return nil
}

// put adds v, in place of a version with the same id, which it returns.
func (x *index) put(v *version) (replaced *version) {
	e := x.get(v.Key)
	if e == nil {
		x.insert(&entry{key: v.Key, versions: []*version{v}})
		return nil
	}
	if i := slices.IndexFunc(e.versions, func(o *version) bool { return o.ID == v.ID }); i >= 0 {
		replaced = e.versions[i]
		e.versions = slices.Delete(e.versions, i, i+1)
	}
	i := sort.Search(len(e.versions), func(i int) bool { return e.versions[i].Seq <= v.Seq })
	e.versions = slices.Insert(e.versions, i, v)
	return replaced
}

func (x *index) insert(e *entry) {
	x.n++
	b, i := x.find(e.key)
	if b == len(x.blocks) {
		if b == 0 {
			x.blocks = append(x.blocks, []*entry{e})
			return
		}
		b--
		i = len(x.blocks[b])
	}
	block := slices.Insert(x.blocks[b], i, e)
	x.blocks[b] = block
	if len(block) > maxBlock {
		half := slices.Clone(block[len(block)/2:])
		clear(block[len(block)/2:])
		x.blocks[b] = block[:len(block)/2]
		x.blocks = slices.Insert(x.blocks, b+1, half)
	}
}

// remove takes out one version and returns it, nil when it is not there.
func (x *index) remove(key, id string) *version {
	b, i := x.find(key)
	if b == len(x.blocks) || x.blocks[b][i].key != key {
		return nil
	}
	e := x.blocks[b][i]
	j := slices.IndexFunc(e.versions, func(v *version) bool { return v.ID == id })
	if j < 0 {
		return nil
	}
	v := e.versions[j]
	e.versions = slices.Delete(e.versions, j, j+1)
	if len(e.versions) == 0 {
		x.n--
		if x.blocks[b] = slices.Delete(x.blocks[b], i, i+1); len(x.blocks[b]) == 0 {
			x.blocks = slices.Delete(x.blocks, b, b+1)
		}
	}
	return v
}

// from yields the entries whose key is at or after key, in order. yield
// returns the key to go on from, "" for the next entry, and false to stop.
func (x *index) from(key string, yield func(*entry) (seek string, more bool)) {
	b, i := x.find(key)
	for b < len(x.blocks) {
		seek, more := yield(x.blocks[b][i])
		if !more {
			return
		}
		if seek != "" {
			b, i = x.find(seek)
			continue
		}
		if i++; i == len(x.blocks[b]) {
			b, i = b+1, 0
		}
	}
}

// afterPrefix returns the smallest string that sorts after every string with
// the prefix p, "" when there is none.
func afterPrefix(p string) string {
	b := []byte(p)
	for len(b) > 0 && b[len(b)-1] == 0xff {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return ""
	}
	b[len(b)-1]++
	return string(b)
}

// listQuery selects a page of a listing.
type listQuery struct {
	prefix, delimiter string
	// after: only keys and common prefixes that sort after this one. With
	// afterVersion, versions of the key after itself which are older than that
	// version come too.
	after        string
	afterVersion string
	max          int
}

// listItem is a version or, when v is nil, a common prefix.
type listItem struct {
	prefix string
	v      *version
	latest bool
}

func (it listItem) name() string {
	if it.v != nil {
		return it.v.Key
	}
	return it.prefix
}

// list returns a page of current objects, or of all versions and delete
// markers, and whether more follow.
func (x *index) list(q listQuery, versions bool) (items []listItem, truncated bool) {
	if q.max == 0 {
		return nil, false
	}
	start := max(q.prefix, q.after)
	x.from(start, func(e *entry) (string, bool) {
		if !strings.HasPrefix(e.key, q.prefix) {
			return "", false
		}
		if !versions && e.current() == nil {
			return "", true
		}
		if q.delimiter != "" {
			if rest := e.key[len(q.prefix):]; strings.Contains(rest, q.delimiter) {
				group := e.key[:len(q.prefix)+strings.Index(rest, q.delimiter)+len(q.delimiter)]
				if group > q.after || q.after == "" {
					if len(items) == q.max {
						truncated = true
						return "", false
					}
					items = append(items, listItem{prefix: group})
				}
				next := afterPrefix(group)
				return next, next != ""
			}
		}
		if !versions {
			if e.key == q.after && q.after != "" {
				return "", true
			}
			if len(items) == q.max {
				truncated = true
				return "", false
			}
			items = append(items, listItem{v: e.current(), latest: true})
			return "", true
		}
		candidates := e.versions
		if e.key == q.after && q.after != "" {
			candidates = olderThan(e.versions, q.afterVersion)
		}
		for _, v := range candidates {
			if len(items) == q.max {
				truncated = true
				return "", false
			}
			items = append(items, listItem{v: v, latest: v == e.versions[0]})
		}
		return "", true
	})
	return items, truncated
}

// olderThan returns the versions that come after the one with this id, even
// when that one was deleted in the meantime.
func olderThan(versions []*version, id string) []*version {
	if i := slices.IndexFunc(versions, func(v *version) bool { return v.ID == id }); i >= 0 {
		return versions[i+1:]
	}
	if len(id) < 16 {
		return nil
	}
	seq, err := strconv.ParseInt(id[:16], 16, 64)
	if err != nil {
		return nil
	}
	i := sort.Search(len(versions), func(i int) bool { return versions[i].Seq < seq })
	return versions[i:]
}

package fs

import (
	"iter"
	"strings"

	"coffer/objstore"
)

// name is one name of a directory, as a listing tells it.
type name struct {
	name  string
	isDir bool
	entry objstore.Entry // of a file
}

// hidden tells why a key of a listing has no name in the file system.
type hidden struct {
	key, why string
}

// names turns the entries of a listing of prefix, with delimiter "/", into
// the names of the directory. The marker of the directory itself is left out,
// and keys that cannot be names are passed to hide.
//
// An object "x" and a prefix "x/" would be the same name: the directory wins
// and the object is hidden. Their keys are not always neighbours:
//
//	x        held back
//	x-1      sorts between, for '-' < '/'
//	x.txt    likewise
//	x/       a directory: drop the object x
//	y        beyond "x/": nothing held back can be shadowed any more
//
// so objects are held back until the listing is past the place where the
// directory would be. At most maxHeld are, which a flat directory of a million
// keys "x.000001" behind an object "x" would exceed; the oldest then goes out,
// and a lookup of that name tells the truth.
func names(prefix string, entries iter.Seq2[objstore.Entry, error], hide func(hidden)) iter.Seq2[name, error] {
	const maxHeld = 4096
	return func(yield func(name, error) bool) {
		var held []name
		flush := func(key string) bool {
			i := 0
			for ; i < len(held); i++ {
				if key != "" && key <= held[i].entry.Key+"/" && len(held)-i < maxHeld {
					break
				}
				if !yield(held[i], nil) {
					return false
				}
			}
			held = held[i:]
			return true
		}
		for e, err := range entries {
			if err != nil {
				yield(name{}, err)
				return
			}
			rest, ok := strings.CutPrefix(e.Key, prefix)
			if !ok || rest == "" {
				continue // the marker, or a server that answers beyond the question
			}
			n := strings.TrimSuffix(rest, "/")
			if !validName(n) {
				why := "its name would be empty, \".\", \"..\", or longer than 255 bytes"
				if !e.IsPrefix && strings.HasSuffix(rest, "/") {
					why = "it ends in a slash"
				}
				hide(hidden{e.Key, why})
				continue
			}
			if !e.IsPrefix {
				if !flush(e.Key) {
					return
				}
				held = append(held, name{name: n, entry: e})
				continue
			}
			for i := range held {
				if held[i].name == n {
					hide(hidden{held[i].entry.Key, "a directory has the same name"})
					held = append(held[:i], held[i+1:]...)
					break
				}
			}
			if !flush(e.Key) || !yield(name{name: n, isDir: true}, nil) {
				return
			}
		}
		flush("")
	}
}

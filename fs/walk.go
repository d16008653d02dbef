package fs

import (
	"cmp"
	"slices"
	"time"
)

const (
	// aheadMax is how many directories of a mount are listed ahead at a time.
	aheadMax = 32
	// minAhead is how many are, of those in one directory, when they have just
	// proved to be opened in order.
	minAhead = 2
	// firstAhead is how many are of a directory as soon as it is listed, where
	// the walker has looked below those before it.
	firstAhead = 8
	// walkGap is how far from the next directory in order a walker may be: it
	// leaves some out, or sorts them in another way.
	walkGap = 4
	// aheadFor is for how long a listing is good that was asked for ahead, and how
	// long a walker stays away.
	aheadFor = time.Second
)

// walk finds out when the directories in a directory are opened one after the
// other, as find, du and ls -R do, and which are to be listed before they are. It
// is pure: it knows positions in a listing, and no directory.
//
//	          depth (doubles, 2 ... 32)
//	         |<----------------->|
//	a b c d e f g h i j k l m n o p q ...
//	        ^ ^next     ^sent
//	        the walker
//
// Two in order, from the first one on, or three elsewhere open the window. The
// depth doubles when the walker has to wait, and halves when a listing becomes too
// old before the walker is there. Directories that are opened beside the walk
// change nothing; it is over when nobody goes on for aheadFor.
type walk struct {
	order []string // the directories, as listed
	next  int      // behind the furthest that the walker came to
	sent  int      // everything before was asked for, or come to
	run   int      // opened in order, up to 2
	depth int      // 0: closed
	grown int      // sent when depth was last changed
	// levels is how far below the walker is known to go: 1 when the directories
	// here are opened, 2 when those in them are.
	levels int
	at     time.Time // when the walker was last here, or below
}

// begin forgets everything, because the directory is listed anew. The walker is
// expected to go so many levels below it.
func (w *walk) begin(levels int) {
	*w = walk{levels: levels}
	if levels > 0 {
		w.depth = firstAhead
	}
}

// add appends a directory of the listing and returns its position.
func (w *walk) add(name string, now time.Time) int {
	w.order = append(w.order, name)
	w.at = now
	return len(w.order) - 1
}

// cameTo notes that a directory is opened, or only looked up. waits tells that it
// was asked for ahead and is not there yet. It reports whether that was in order.
func (w *walk) cameTo(pos int, opened, waits bool, now time.Time) bool {
	recent := now.Sub(w.at) <= aheadFor
	switch {
	case w.depth > 0 && recent:
		if pos < w.next-walkGap || pos >= max(w.next, w.sent)+walkGap {
			return false
		}
		if waits && pos >= w.grown {
			w.depth, w.grown = min(2*w.depth, aheadMax), w.sent
		}
		w.next = max(w.next, pos+1)
	case !opened:
		return false
	case recent && pos == w.next-1: // once more
	case recent && pos == w.next:
		w.next++
		if w.run++; w.run == 2 {
			w.depth, w.grown, w.sent = minAhead, w.next, w.next
		}
	default:
		w.run, w.depth, w.next = 0, 0, pos+1
		if pos == 0 {
			w.run = 1
		}
	}
	w.at = now
	return w.run > 0 || w.depth > 0
}

// levelsBelow returns how far below the directory that the walker is at it is known
// to go.
func (w *walk) levelsBelow() int {
	if w.depth == 0 {
		return 0
	}
	return max(w.levels-1, 0)
}

// below notes that a directory is opened so many levels below.
func (w *walk) below(levels int, now time.Time) {
	w.levels, w.at = max(w.levels, levels), now
}

// ask returns the positions of those to ask for now, from and before to.
func (w *walk) ask() (from, to int) {
	from, to = max(w.sent, w.next), min(w.next+w.depth, len(w.order))
	if w.depth == 0 || from >= to {
		return 0, 0
	}
	w.sent = to
	return from, to
}

// refused notes that there was no room to ask for those from pos on.
func (w *walk) refused(pos int) { w.sent = min(w.sent, pos) }

// tooLate notes that the listing of the one at pos became too old.
func (w *walk) tooLate(pos int) {
	w.sent, w.grown = min(w.sent, pos), min(w.grown, pos)
	w.depth = min(w.depth, max(w.depth/2, 1))
}

// numberWalk is the walk of who opens directories in the order of their inode
// numbers, as cp -r does, and find where there are more than 10,000.
type numberWalk struct {
	walk
	numbers []uint64 // of those in order
}

// sort takes over the directories of a listing, once, and reports whether it has:
// of very many it has none.
func (w *numberWalk) sort(listed []string, number func(string) uint64, now time.Time) bool {
	if w.numbers != nil || len(listed) > listedMax {
		return w.numbers != nil
	}
	type numbered struct {
		name   string
		number uint64
	}
	all := make([]numbered, len(listed))
	for i, nm := range listed {
		all[i] = numbered{nm, number(nm)}
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	w.numbers = make([]uint64, len(all))
	for i, n := range all {
		w.numbers[i] = n.number
		w.add(n.name, now)
	}
	return true
}

// position returns where the directory of that number is.
func (w *numberWalk) position(number uint64) int {
	i, _ := slices.BinarySearch(w.numbers, number)
	return i
}

package fs

// wholeMax is the size in bytes of the largest file that is fetched to be looked at.
const wholeMax = 128 << 10

// readBurst finds out whether the small files of a directory that are looked up are
// read then, all of them, as a training job does. There a look-up asks for the whole
// file instead of its attributes: they come with it, and a file costs one request
// where it cost two. It counts look-ups that have asked the store and found a small
// file, and first reads:
//
//	        asked >= 8, read >= 3/4 asked
//	HEADs ---------------------------------> GETs
//	      <---------------------------------
//	              read < 1/2 asked
//
// Both are halved now and then, so that the last ones count most. The zero value
// asks for attributes.
type readBurst struct {
	asked, read int
	whole       bool
}

const (
	burstBegins = 8
	burstMemory = 64 // look-ups
)

// wantsWhole reports whether a look-up is to ask for the whole file.
func (b *readBurst) wantsWhole() bool {
	switch {
	case b.whole:
		b.whole = 2*b.read >= b.asked
	default:
		b.whole = b.asked >= burstBegins && 4*b.read >= 3*b.asked
	}
	return b.whole
}

// found counts a look-up that has asked the store and found a file of size bytes. A
// large one ends the burst: where sizes are not known before, others may be as large.
func (b *readBurst) found(size int64) {
	switch {
	case size > wholeMax:
		*b = readBurst{}
	case size > 0:
		if b.asked++; b.asked == burstMemory {
			b.asked, b.read = b.asked/2, b.read/2
		}
	}
}

// didRead counts the first read of a file by a handle.
func (b *readBurst) didRead() { b.read = min(b.read+1, b.asked) }

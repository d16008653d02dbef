package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// rereading has open directories read by offset alone. go-fuse keeps the entries
// of the last page that it sent, and the one that did not fit. When the kernel has
// taken a part of that page only, because of a signal or a seek, and has less room
// for the rest than before, go-fuse loses the names that do not fit. It is made to
// forget them: before every page it is sent to an offset that no entry has, and
// has to have the handle seek back to the one that is asked for.
type rereading struct{ fuse.RawFileSystem }

// nowhere is that offset.
const nowhere = math.MaxUint64

// ReadDir implements fuse.RawFileSystem.
func (r rereading) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.forget(cancel, in)
	return r.RawFileSystem.ReadDir(cancel, in, out)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (r rereading) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r.forget(cancel, in)
	return r.RawFileSystem.ReadDirPlus(cancel, in, out)
}

func (r rereading) forget(cancel <-chan struct{}, in *fuse.ReadIn) {
	if in.Offset == 0 {
		return // either nothing is kept, or go-fuse seeks
	}
	away := *in
	away.Offset = nowhere
	r.RawFileSystem.ReadDir(cancel, &away, fuse.NewDirEntryList(nil, nowhere))
}

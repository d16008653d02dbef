package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// attributes are what metadata says of a file. The zero value says nothing.
type attributes struct {
	mode    uint32 // type and permission bits
	hasMode bool
	uid     uint32
	hasUID  bool
	gid     uint32
	hasGID  bool
	rdev    uint32 // of a device node
	// mtime is zero when it was never set explicitly: LastModified counts.
	// So is atime, and then it is mtime.
	mtime, atime time.Time
}

// fillTimes fills in the three times: those of a, and where it has none, when
// the content was last written. Reading changes none. Whatever changes anything
// stores a new version, so that its time is changed, the ctime.
func (a attributes) fillTimes(out *fuse.Attr, written, changed time.Time) {
	mtime := a.mtime
	if mtime.IsZero() {
		mtime = written
	}
	atime := a.atime
	if atime.IsZero() {
		atime = mtime
	}
	epoch := time.Unix(0, 0)
	for _, t := range []*time.Time{&atime, &mtime, &changed} {
		if t.IsZero() {
			*t = epoch
		}
	}
	out.SetTimes(&atime, &mtime, &changed)
}

// inSeconds cuts what a store says of a time: LIST tells milliseconds, HEAD
// seconds, and a time that flips between them would make the kernel drop its
// pages and make build again.
func inSeconds(t time.Time) time.Time { return t.Truncate(time.Second) }

// blockSize is the preferred size of I/O that stat reports, in bytes: one
// full FUSE request.
const blockSize = 1 << 20

// fillOwner fills in type, permissions and owner: those of a, and the mount's
// options where a has none.
func (c *Config) fillOwner(out *fuse.Attr, a attributes, kind, perm uint32) {
	out.Mode = kind | perm
	if a.hasMode {
		out.Mode = kind | a.mode&0o7777
	}
	out.Uid, out.Gid = c.UID, c.GID
	if a.hasUID {
		out.Uid = a.uid
	}
	if a.hasGID {
		out.Gid = a.gid
	}
	out.Blksize = blockSize
}

// blocksOf returns st_blocks, in units of 512 bytes: what du adds up. An
// object has no holes and no overhead that we know of.
func blocksOf(size uint64) uint64 { return (size + 511) / 512 }

// change applies what a SETATTR asks for, besides the size; kind is the type
// of the inode. It reports whether anything is left to be stored.
func (a *attributes) change(in *fuse.SetAttrIn, kind uint32) bool {
	changed := false
	if m, ok := in.GetMode(); ok {
		a.mode, a.hasMode, changed = kind|m&0o7777, true, true
	}
	if u, ok := in.GetUID(); ok {
		a.uid, a.hasUID, changed = u, true, true
	}
	if g, ok := in.GetGID(); ok {
		a.gid, a.hasGID, changed = g, true, true
	}
	if t, ok := in.GetATime(); ok {
		a.atime, changed = t, true
	}
	if t, ok := in.GetMTime(); ok {
		a.mtime, changed = t, true
	}
	return changed
}

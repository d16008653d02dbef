package fs

import (
	"crypto/sha256"
	"encoding/binary"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
)

// inoOf returns the inode number of an object at first sight: 63 bits of
// SHA-256 over bucket and key, so that it is the same after a remount and
// nobody can make two keys meet.
func inoOf(bucket, key string) uint64 {
	sum := sha256.Sum256([]byte(bucket + "\x00" + key))
	ino := binary.BigEndian.Uint64(sum[:]) >> 1
	if ino < 2 {
		ino += 2 // 0 is nothing, 1 the root
	}
	return ino
}

// newIno returns the number for an inode at key: its hash, or, while an inode
// that was there before and moved away still holds that number, one from a
// counter above all hashes. Two lookups of one key at the same time get the
// same number, which makes go-fuse keep one inode of the two.
func (f *filesystem) newIno(bucket, key string) uint64 {
	ino := inoOf(bucket, key)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.moved[ino] == nil {
		return ino
	}
	f.lastIno++
	return f.lastIno
}

// keepIno marks the number of an inode that leaves its key while the kernel
// still knows it; nil is no inode.
func (f *filesystem) keepIno(inode *gofuse.Inode) {
	if inode == nil {
		return
	}
	ino := inode.StableAttr().Ino
	f.mu.Lock()
	if f.moved[ino] == nil {
		f.moved[ino] = inode
	}
	f.mu.Unlock()
}

// freeIno gives back the number of an inode that the kernel forgot, if it was
// the one that kept it.
func (f *filesystem) freeIno(inode *gofuse.Inode) {
	ino := inode.StableAttr().Ino
	f.mu.Lock()
	if f.moved[ino] == inode {
		delete(f.moved, ino)
	}
	f.mu.Unlock()
}

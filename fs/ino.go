package fs

import (
	"crypto/sha256"
	"encoding/binary"
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
	if !f.moved[ino] {
		return ino
	}
	f.lastIno++
	return f.lastIno
}

// keepIno marks the number of a live inode that leaves its key.
func (f *filesystem) keepIno(ino uint64) {
	f.mu.Lock()
	f.moved[ino] = true
	f.mu.Unlock()
}

// freeIno gives back the number of an inode that the kernel forgot.
func (f *filesystem) freeIno(ino uint64) {
	f.mu.Lock()
	delete(f.moved, ino)
	f.mu.Unlock()
}

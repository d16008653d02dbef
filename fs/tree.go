package fs

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"coffer/objstore"
)

// place is where a node hangs in the tree. The fields are guarded by
// filesystem.tree; a rename of a directory moves all below it by changing
// one place.
type place struct {
	parent *dir // nil at the top of a bucket or of the mount
	name   string
}

// nameMax is the longest file name in bytes, as on local disks.
const nameMax = 255

// keyMax is the longest key in bytes that S3 knows.
const keyMax = 1024

// prefix returns the key prefix of all in d: "" or a string that ends in "/".
func (d *dir) prefix() string {
	d.fsys.tree.RLock()
	defer d.fsys.tree.RUnlock()
	return d.prefixLocked()
}

func (d *dir) prefixLocked() string {
	if d.place.parent == nil {
		return d.top
	}
	return d.place.parent.prefixLocked() + d.place.name + "/"
}

// key returns the key of the file itself.
func (n *file) key() string {
	n.fsys.tree.RLock()
	defer n.fsys.tree.RUnlock()
	if n.aside != "" {
		return n.aside
	}
	return n.place.parent.prefixLocked() + n.place.name
}

// parent returns the directory that n is in.
func (n *file) parent() (*dir, string) {
	n.fsys.tree.RLock()
	defer n.fsys.tree.RUnlock()
	return n.place.parent, n.place.name
}

// parent returns the directory that d is in, nil at the top.
func (d *dir) parent() (*dir, string) {
	d.fsys.tree.RLock()
	defer d.fsys.tree.RUnlock()
	return d.place.parent, d.place.name
}

// path returns what the log calls a key of a bucket.
func path(b objstore.Bucket, key string) string { return b.Name() + "/" + key }

// validName reports whether a part of a key can be a name in a directory.
func validName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= nameMax &&
		!strings.ContainsAny(name, "/\x00")
}

// checkKey returns NameTooLong for a key that no store takes.
func checkKey(key string) error {
	if len(key) > keyMax {
		return objstore.NameTooLong
	}
	return nil
}

// checkName is checkKey for the key of a name in a directory, and refuses what
// no directory would show: newer kernels let longer names through.
func checkName(name, key string) error {
	if len(name) > nameMax {
		return objstore.NameTooLong
	}
	return checkKey(key)
}

// isScratch reports whether a file of this name would be taken for a scratch
// object, and not be shown.
func isScratch(name string) bool { return strings.HasPrefix(name, objstore.ScratchPrefix) }

// randomName returns n random bytes in hex, for names that nobody guesses.
func randomName(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Package fs is what POSIX means over an object store.
//
// Directories at the root are buckets, files are objects, "/" in a key
// separates directories. SEMANTICS.md beside this file states every promise
// and names its test. The package is the only importer of go-fuse.
//
// # Where things are
//
//	config.go mount.go   what a mount is told, and its life
//	filesystem.go        what all inodes of one mount share
//	tree.go ino.go       names, keys and inode numbers
//	root.go dir.go       directories: the account, a bucket, a prefix
//	listing.go           pure: keys of a listing -> names of a directory
//	dirhandle.go         an open directory
//	file.go symlink.go   inodes of objects
//	handle.go            an open file
//	content.go           bytes that the store does not have yet
//	commit.go            how they get there
//	rename.go unlink.go  changes of names
//	attr.go xattr.go     pure: attributes <-> object metadata; and their inode side
//	heads.go             HEAD results, single flight, remembered
//	errno.go             one table: kinds of error -> errno
//
// # Locks
//
// Every mutex is a leaf, with one exception: file.mu may be held while
// taking nothing at all, and filesystem.tree may be taken by the holder of
// none but the turn. No mutex is held across I/O or a notification.
//
//	turn         one a file, a channel, not a mutex: whoever holds it may
//	             change the file's content and waits for I/O doing so;
//	             waiting for it can be cancelled. Taken before any mutex.
//	             One holder never waits for another file's turn, so there
//	             is no order among turns.
//	file.mu      attributes, version, counters of handles
//	dir.mu       children, hidden names, the last listing
//	handle.mu    the reader of a handle
//	fsys.tree    parent and name of every inode
//	fsys.mu      open buckets, inode numbers, dirty files
//	heads.mu     remembered HEAD results
//
// # Contexts
//
// A FUSE context ends when its request is answered: nothing in the background
// keeps it. Changes run detached from it under a deadline, so that a signal
// (Go programs send themselves SIGURG all the time) never leaves half a
// change; questions end when the caller is killed, see interrupt.go.
package fs

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
//	root.go dir.go       directories: the account; a bucket or a prefix
//	lookup.go known.go   what the store says of a name; what is remembered of it;
//	                     keptnames.go: in little room
//	marker.go            the object that keeps a directory and its attributes
//	listing.go           pure: keys of a listing -> names of a directory
//	dirhandle.go         an open directory; dirpage.go: names with attributes;
//	                     rereading.go: how it is asked for
//	walk.go              pure: whether directories are opened in some order;
//	                     listahead.go: those that follow are listed ahead
//	file.go special.go   inodes of objects
//	tmpfile.go           files without a name, and how they get one
//	handle.go            an open file
//	lifecycle.go         pure: what happens to a file that is written
//	content.go           bytes that the store does not have yet
//	commit.go            how they get there
//	rescue.go rescued.go data whose commit failed: kept by the mount; kept as a file
//	copyrange.go         bytes of one file that are those of another
//	rename.go unlink.go  changes of names; unlinkbatch.go: many at a time
//	resume.go            a directory's rename that was broken off, finished
//	gate.go              keeps changes out of a directory that is renamed
//	attr.go              pure: attributes <-> what stat shows
//	convention.go        pure: attributes <-> object metadata
//	xattr.go             extended attributes <-> object metadata, and their inode side
//	readburst.go         pure: whether look-ups are of files that are read then
//	heads.go             HEAD results, single flight, remembered, sent ahead;
//	                     kepthead.go: pure, in little room
//	interrupt.go         which signals end a question
//	errno.go             one table: kinds of error -> errno
//
// # Locks
//
// Two things are waited for with I/O under way, and neither is a mutex; both
// waits can be cancelled. A change enters the gate first, then takes the turn
// of a file, then mutexes.
//
//	gate         entered by every change, once; see gate.go
//	turn         one a file: whoever holds it may change the content. Only a
//	             rename takes two, in the order of inode numbers.
//
// Every mutex is a leaf: its holder takes no other, with the exceptions that
// are named. None is held across I/O or a notification.
//
//	gate.mu      who is inside; takes fsys.tree
//	handle.mu    the reader of a handle; takes fsys.tree
//	file.mu      attributes, version, counters of handles
//	special.mu   the stored object
//	root.mu      when a bucket was made or removed
//	dir.mu       marker, hidden names, what is remembered of names
//	unlinks.mu   batches of objects to delete
//	fsys.tree    parent and name of every inode
//	fsys.mu      open buckets, inode numbers, dirty files
//	heads.mu     remembered HEAD results
//	names.mu     directories that remember names, in the order of their listings
//	listings.mu  directories that are listed ahead
//
// # Contexts
//
// A FUSE context ends when its request is answered: nothing in the background
// keeps it. Changes run detached from it under a deadline, so that a signal
// (Go programs send themselves SIGURG all the time) never leaves half a
// change; questions end when the caller is killed, see interrupt.go.
package fs

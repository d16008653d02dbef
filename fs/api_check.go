package fs

import gofuse "github.com/hanwen/go-fuse/v2/fs"

// directory is what every directory implements.
type directory interface {
	gofuse.NodeLookuper
	gofuse.NodeGetattrer
	gofuse.NodeSetattrer
	gofuse.NodeMkdirer
	gofuse.NodeRmdirer
	gofuse.NodeUnlinker
	gofuse.NodeCreater
	gofuse.NodeMknoder
	gofuse.NodeSymlinker
	gofuse.NodeLinker
	gofuse.NodeRenamer
	gofuse.NodeOpendirHandler
	gofuse.NodeFsyncer
	gofuse.NodeStatfser
}

// Compile-time lists of what each inode and handle implements: go-fuse finds
// methods by type assertion, and a missing Unlink or Rmdir succeeds silently.
var (
	_ directory = (*root)(nil)
	_ interface {
		directory
		gofuse.NodeGetxattrer
		gofuse.NodeListxattrer
		gofuse.NodeSetxattrer
		gofuse.NodeRemovexattrer
		gofuse.NodeOnForgetter
	} = (*dir)(nil)
	_ interface {
		gofuse.NodeGetattrer
		gofuse.NodeSetattrer
		gofuse.NodeOpener
		gofuse.NodeGetxattrer
		gofuse.NodeListxattrer
		gofuse.NodeSetxattrer
		gofuse.NodeRemovexattrer
		gofuse.NodeCopyFileRanger
		gofuse.NodeOnForgetter
	} = (*file)(nil)
	_ interface {
		gofuse.NodeGetattrer
		gofuse.NodeSetattrer
		gofuse.NodeReadlinker
		gofuse.NodeSetxattrer
		gofuse.NodeOnForgetter
	} = (*special)(nil)
	_ interface {
		gofuse.FileReader
		gofuse.FileWriter
		gofuse.FileFlusher
		gofuse.FileFsyncer
		gofuse.FileReleaser
		gofuse.FileAllocater
	} = (*handle)(nil)
	_ interface {
		gofuse.FileReaddirenter
		gofuse.FileLookuper
		gofuse.FileSeekdirer
		gofuse.FileReleasedirer
		gofuse.FileFsyncdirer
	} = (*dirHandle)(nil)
	_ interface {
		gofuse.FileReaddirenter
		gofuse.FileLookuper
		gofuse.FileSeekdirer
	} = (*rootHandle)(nil)
)

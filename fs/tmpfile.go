package fs

import (
	"context"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// withTmpfile answers open(2) with O_TMPFILE, which go-fuse's tree of inodes
// does not know: such a file is one that was created and unlinked at once.
// Nothing of that reaches the store. linkat(2) may give it a name later.
type withTmpfile struct {
	fuse.RawFileSystem
	names *tmpNames
}

// tmpNames are the names that such files have while they are made. They are
// scratch names: nobody else can create or remove them.
type tmpNames struct{ sync.Map }

func (t *tmpNames) has(nm string) bool {
	_, ok := t.Load(nm)
	return ok
}

// Tmpfile implements fuse.RawFileSystem.
func (r withTmpfile) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	name := objstore.ScratchPrefix + "tmpfile-" + randomName(8)
	r.names.Store(name, nil)
	defer r.names.Delete(name)
	if status := r.Create(cancel, in, name, out); !status.Ok() {
		return status
	}
	// Only go-fuse's tree has the name; dir.Unlink leaves the rest alone.
	header := in.InHeader
	return r.Unlink(cancel, &header, name)
}

// newTmpfile returns a file without a name.
func (d *dir) newTmpfile(ctx context.Context, nm string, mode uint32) (*file, syscall.Errno) {
	key := d.prefix() + nm
	if err := d.fsys.protected(context.WithoutCancel(ctx), d.bucket, key); err != nil {
		return nil, d.fsys.errno("create", path(d.bucket, key), err)
	}
	n := d.fsys.newFile(d.bucket, place{d, nm})
	n.gone, n.nameless = true, true
	meta := map[string]string{}
	d.newAttributes(ctx, mode, syscall.S_IFREG).put(meta, d.fsys.cfg.Convention)
	n.beginNew(meta)
	return n, 0
}

// Link implements gofuse.NodeLinker: an object has one name. A file that has
// none yet gets it, and is in the store under it when this returns.
func (d *dir) Link(ctx context.Context, target gofuse.InodeEmbedder, nm string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	n, ok := target.(*file)
	if !ok || !n.isNameless() {
		return nil, syscall.EPERM
	}
	if n.bucket != d.bucket {
		return nil, syscall.EXDEV
	}
	if err := d.name(ctx, n, nm); err != nil {
		return nil, d.fsys.errno("link", path(d.bucket, d.prefix()+nm), err)
	}
	n.fillEntry(out)
	return n.EmbeddedInode(), 0
}

// isNameless reports whether the file was made without a name and has none yet.
func (n *file) isNameless() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nameless
}

// name gives a nameless file its name.
func (d *dir) name(ctx context.Context, n *file, nm string) error {
	dctx, leave, err := d.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := d.prepare(dctx, nm, d.prefix()+nm); err != nil {
		return err
	}
	if err := n.turn.take(dctx); err != nil {
		return err
	}
	defer n.turn.release()
	if !n.isNameless() {
		return syscall.EPERM // another link was faster
	}
	n.mu.Lock()
	lost := n.failed
	if n.local {
		lost = nil
	}
	n.mu.Unlock()
	if lost != nil {
		return lost // by a link before, and nothing was written since
	}
	n.call(place{d, nm}, false)
	if err := n.commit(dctx); err != nil {
		n.call(place{d, nm}, true) // the program has lost it, as with any failed commit
		return err
	}
	d.didChange(nm)
	return nil
}

// call sets the place of a file, and whether that is a name.
func (n *file) call(at place, nameless bool) {
	n.fsys.tree.Lock()
	n.place = at
	n.fsys.tree.Unlock()
	n.mu.Lock()
	n.gone, n.nameless = nameless, nameless
	n.version++
	n.mu.Unlock()
}

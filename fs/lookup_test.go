package fs

import (
	"context"
	"iter"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// onlyFiles is a bucket whose keys are files in one directory. Who creates one
// or copies one is refused.
type onlyFiles struct {
	commits
	keys map[string]bool
}

func (b *onlyFiles) List(_ context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(func(objstore.Entry, error) bool) {}
}

func (b *onlyFiles) Head(_ context.Context, r objstore.Ref) (objstore.Object, error) {
	if !b.keys[r.Key] {
		return objstore.Object{}, objstore.NotExist
	}
	return objstore.Object{Entry: objstore.Entry{Key: r.Key, ETag: "tag"}}, nil
}

func (b *onlyFiles) Create(context.Context, string, objstore.CreateOptions) (objstore.Writer, error) {
	return nil, objstore.Exist
}

func (b *onlyFiles) Copy(context.Context, string, objstore.Ref, objstore.CopyOptions) (objstore.Object, error) {
	return objstore.Object{}, objstore.Stale
}

// TestListedDirectoryIsAFileByNow: somebody else has removed a directory that a
// listing told of, and made a file of its name.
func TestListedDirectoryIsAFileByNow(t *testing.T) {
	d := &dir{fsys: newTestFilesystem(t), bucket: &onlyFiles{keys: map[string]bool{"x": true}}, complete: true}
	for _, nm := range []string{"x", "gone"} {
		d.remember(name{name: nm, isDir: true}, 0, time.Now())
	}
	if f, err := d.find(t.Context(), "x"); err != nil || f.isDir || !f.hasObj {
		t.Errorf("the file is %+v, %v", f, err)
	}
	if f, err := d.find(t.Context(), "gone"); objstore.KindOf(err) != objstore.NotExist {
		t.Errorf("what is gone is %+v, %v", f, err)
	}
}

// TestRefusedChangeIsDoubted: when a link cannot be made, or another cannot be
// changed, that is because somebody else was there, and what was known of the
// name is outdated.
func TestRefusedChangeIsDoubted(t *testing.T) {
	d := &dir{fsys: newTestFilesystem(t), bucket: &onlyFiles{}, complete: true}
	known := func() bool { _, ok := d.recall("x"); return ok }
	for what, refused := range map[string]func() syscall.Errno{
		"symlink": func() syscall.Errno {
			_, errno := d.Symlink(t.Context(), "target", "x", &fuse.EntryOut{})
			return errno
		},
		"setattr": func() syscall.Errno {
			l := &special{fsys: d.fsys, bucket: d.bucket, place: place{d, "x"}}
			return l.Setattr(t.Context(), nil, &fuse.SetAttrIn{}, &fuse.AttrOut{})
		},
	} {
		d.remember(name{name: "x", entry: objstore.Entry{Key: "x"}}, 0, time.Now())
		if !known() {
			t.Fatal("a name is not remembered")
		}
		if errno := refused(); errno == 0 {
			t.Fatal(what, "was not refused")
		}
		if known() {
			t.Error("still known after a refused", what)
		}
	}
}

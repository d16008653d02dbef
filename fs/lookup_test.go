package fs

import (
	"context"
	"iter"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
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
	known := func() bool { _, ok := d.recall("x", false); return ok }
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

// TestUnlinkNeedsNoAttributes: where one listed file after the other is unlinked,
// none is asked for, nor are those to come, unless it may be no regular file or
// its owner counts.
func TestUnlinkNeedsNoAttributes(t *testing.T) {
	for what, c := range map[string]struct {
		size   int64
		caller uint32
		mode   string
		cfg    Config
		asked  string
	}{
		"root":                  {size: 4096},
		"the owner":             {size: 4096, caller: 7, cfg: Config{UID: 7}},
		"another":               {size: 4096, caller: 8, cfg: Config{UID: 7}, asked: "1 HEAD b, 1 HEAD c, 1 HEAD d"},
		"one of many":           {size: 4096, caller: 7, cfg: Config{UID: 7, AllowOther: true}, asked: "1 HEAD b, 1 HEAD c, 1 HEAD d"},
		"a link perhaps":        {size: 4095, asked: "1 HEAD b, 1 HEAD c, 1 HEAD d"},
		"in a sticky directory": {size: 4096, mode: "17407", asked: "1 HEAD b, 1 HEAD c, 1 HEAD d"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &keysBucket{keys: map[string]bool{"a": true, "b": true, "c": true, "d": true}}
			c.cfg.MetadataTTL, c.cfg.Attributes = time.Hour, AttributesFull
			d := knownDir(t, b, c.cfg)
			d.complete = true
			if c.mode != "" {
				d.meta = map[string]string{"mode": c.mode}
			}
			ctx := fuse.NewContext(t.Context(), &fuse.Caller{Owner: fuse.Owner{Uid: c.caller}})
			list := func() {
				for _, nm := range []string{"a", "b", "c", "d"} {
					d.remember(name{name: nm, entry: objstore.Entry{Key: nm, SizeKnown: true, Size: c.size}}, 0, time.Now())
				}
			}
			list()
			for _, nm := range []string{"a", "b", "c"} {
				if f, err := d.find(ctx, nm); err != nil || f.obj.Key != nm {
					t.Errorf("%s: %+v, %v", what, f, err)
				}
				synctest.Wait()
				if nm == "a" {
					b.asked()
				}
				d.didUnlink()
				d.didChange(nm)
			}
			if got := b.asked(); got != c.asked {
				t.Errorf("%s: asked for %q, want %q", what, got, c.asked)
			}
		})
	}
}

// TestLookupAfterUnlink: one look-up after an unlink may be of another, and no
// more.
func TestLookupAfterUnlink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &keysBucket{keys: map[string]bool{"a": true, "b": true}}
		d := knownDir(t, b, Config{MetadataTTL: time.Hour, Attributes: AttributesFull})
		d.complete = true
		for nm := range b.keys {
			d.remember(name{name: nm, entry: objstore.Entry{Key: nm, SizeKnown: true, Size: 4096}}, 0, time.Now())
		}
		d.didUnlink()
		for i, complete := range []bool{false, true, true} {
			f, err := d.find(fuse.NewContext(t.Context(), &fuse.Caller{}), []string{"a", "b", "a"}[i])
			if err != nil || f.complete != complete {
				t.Errorf("%d look-ups after an unlink: %+v, %v", i+1, f, err)
			}
		}
		synctest.Wait()
	})
}

// TestChangeOfUnknownAttributes: what the kernel has checked against attributes
// that were not known, it has to check again.
func TestChangeOfUnknownAttributes(t *testing.T) {
	b := &keysBucket{keys: map[string]bool{"a": true}}
	d := knownDir(t, b, Config{MetadataTTL: time.Hour, Attributes: AttributesFull, Logger: slog.New(slog.DiscardHandler)})
	n := d.fsys.newFile(b, place{d, "a"})
	n.learn(finding{obj: objstore.Object{Entry: objstore.Entry{Key: "a", SizeKnown: true, Size: 4096}}, hasObj: true})
	var entry fuse.EntryOut
	if n.fillEntry(&entry); entry.EntryTimeout() != 0 || entry.AttrTimeout() != 0 {
		t.Errorf("the kernel may believe them for %v, and the name for %v", entry.AttrTimeout(), entry.EntryTimeout())
	}
	if errno := n.Setattr(t.Context(), nil, &fuse.SetAttrIn{}, &fuse.AttrOut{}); errno != syscall.ESTALE {
		t.Errorf("the answer is %v", errno)
	}
	if n.isGuessed() {
		t.Error("they are not known afterwards")
	}
}

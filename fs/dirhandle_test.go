package fs

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// flatBucket is a directory of so many files, whose HEADs are counted.
type flatBucket struct {
	namedBucket
	files, lists int
	takes        time.Duration // a HEAD
	without      string        // a key whose HEAD fails
	heads        atomic.Int32
}

func (b *flatBucket) entry(i int) objstore.Entry {
	return objstore.Entry{Key: fmt.Sprintf("file-%05d", i), Size: int64(5000 + i), StoredSize: int64(5000 + i), SizeKnown: true, ETag: "e", LastModified: time.Unix(1e9, 0)}
}

func (b *flatBucket) List(_ context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		b.lists++
		for i := range b.files {
			if !yield(b.entry(i), nil) {
				return
			}
		}
	}
}

func (b *flatBucket) Head(_ context.Context, r objstore.Ref) (objstore.Object, error) {
	b.heads.Add(1)
	time.Sleep(b.takes)
	var i int
	if _, err := fmt.Sscanf(r.Key, "file-%d", &i); err != nil || r.Key == b.without {
		return objstore.Object{}, objstore.NotExist
	}
	return objstore.Object{Entry: b.entry(i)}, nil
}

// kernelDir is a directory as the kernel sees it.
type kernelDir struct {
	t   *testing.T
	raw fuse.RawFileSystem
	fh  uint64
}

const rootNode = 1

func openKernelDir(t *testing.T, d *dir) *kernelDir {
	raw := rereading{gofuse.NewNodeFS(d, &gofuse.Options{})}
	k := &kernelDir{t: t, raw: raw}
	k.open()
	return k
}

func (k *kernelDir) open() {
	k.t.Helper()
	var out fuse.OpenOut
	if st := k.raw.OpenDir(nil, &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: rootNode}}, &out); !st.Ok() {
		k.t.Fatal(st)
	}
	k.fh = out.Fh
}

func (k *kernelDir) close() {
	k.raw.ReleaseDir(&fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: rootNode}, Fh: k.fh})
}

// page reads a page of so many bytes behind off, with or without attributes. The
// outs of entries that have none are zero.
func (k *kernelDir) page(off uint64, size int, plus bool) ([]fuse.DirEntry, []fuse.EntryOut) {
	k.t.Helper()
	in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: rootNode}, Fh: k.fh, Offset: off, Size: uint32(size)}
	list := fuse.NewDirEntryList(make([]byte, size), off)
	read := k.raw.ReadDir
	if plus {
		read = k.raw.ReadDirPlus
	}
	if st := read(nil, in, list); !st.Ok() {
		k.t.Fatal(st)
	}
	if plus {
		entries, outs, err := fuse.ParseDirLookupEntries(list.Bytes())
		if err != nil {
			k.t.Fatal(err)
		}
		return entries, outs
	}
	entries, err := fuse.ParseDirEntries(list.Bytes())
	if err != nil {
		k.t.Fatal(err)
	}
	return entries, make([]fuse.EntryOut, len(entries))
}

func (k *kernelDir) lookup(name string) {
	k.t.Helper()
	var out fuse.EntryOut
	if st := k.raw.Lookup(nil, &fuse.InHeader{NodeId: rootNode}, name, &out); !st.Ok() {
		k.t.Fatal(name, st)
	}
}

func listDir(t *testing.T, b objstore.Bucket, attributes Attributes) *dir {
	return knownDir(t, b, Config{MetadataTTL: time.Hour, Attributes: attributes, Logger: slog.New(slog.DiscardHandler)}.withDefaults())
}

// TestPagesLoseNoNames: whatever a page was read with, and wherever the next one
// begins, names follow on another.
func TestPagesLoseNoNames(t *testing.T) {
	const files = 500
	k := openKernelDir(t, listDir(t, &flatBucket{files: files}, AttributesList))
	defer k.close()
	rnd := rand.New(rand.NewPCG(1, 2))
	var off uint64
	for range 3000 {
		page, outs := k.page(off, 300<<rnd.IntN(7), rnd.IntN(2) == 0)
		for i, e := range page {
			want := fmt.Sprintf("file-%05d", int(off)+i-2)
			if n := int(off) + i; n < 2 {
				want = [...]string{".", ".."}[n]
			}
			if e.Name != want || e.Off != off+uint64(i)+1 {
				t.Fatalf("behind %d, %d: %q at %d, want %q", off, i, e.Name, e.Off, want)
			}
			if outs[i].NodeId != 0 && outs[i].Size != uint64(5000+int(off)+i-2) {
				t.Fatalf("%q has size %d", e.Name, outs[i].Size)
			}
		}
		if len(page) == 0 && off < files+2 {
			t.Fatalf("the end after %d entries", off)
		}
		switch rnd.IntN(8) {
		case 0: // all of it was taken, and the rest is read over
			off = uint64(rnd.IntN(files + 3))
		case 1:
			off = 0
		case 2, 3: // a part of it was taken
			off += uint64(rnd.IntN(len(page) + 1))
		default:
			off += uint64(len(page))
		}
		if len(page) > 0 && rnd.IntN(3) == 0 && page[0].Name[0] != '.' {
			k.lookup(page[0].Name)
		}
	}
}

// TestPagesInOrderAreListedOnce: neither a page that is taken in part nor one that
// ends before a name that did not fit has the directory listed again.
func TestPagesInOrderAreListedOnce(t *testing.T) {
	b := &flatBucket{files: 500}
	k := openKernelDir(t, listDir(t, b, AttributesList))
	defer k.close()
	for off := uint64(0); ; {
		page, _ := k.page(off, 4096, true)
		if len(page) == 0 {
			break
		}
		off = page[len(page)/2].Off
	}
	if b.lists != 1 {
		t.Errorf("listed %d times", b.lists)
	}
}

// TestAttributesGoOutWhereWanted: who looks up what was read, as ls -l does, gets
// attributes with the names that follow, and who does not, as find, gets none.
func TestAttributesGoOutWhereWanted(t *testing.T) {
	b := &flatBucket{files: 2000}
	d := listDir(t, b, AttributesList)
	k := openKernelDir(t, d)
	// read reads the directory, with a look-up of every file that came without
	// attributes if those are wanted, and returns how many did and did not.
	read := func(wanted func(page int) bool) (with, without int) {
		t.Helper()
		k.open()
		defer k.close()
		for off, n := uint64(0), 0; ; n++ {
			page, outs := k.page(off, 64<<10, true)
			if len(page) == 0 {
				return with, without
			}
			for i, e := range page {
				off = e.Off
				switch {
				case e.Name == "." || e.Name == "..":
				case outs[i].NodeId != 0:
					with++
				default:
					without++
					if wanted(n) {
						k.lookup(e.Name)
					}
				}
			}
		}
	}
	always := func(int) bool { return true }
	never := func(int) bool { return false }
	if with, without := read(never); with > 0 || without != 2000 {
		t.Errorf("not wanted: %d names with attributes, %d without", with, without)
	}
	if with, without := read(always); with+without != 2000 || without > 25 {
		t.Errorf("wanted: %d names with attributes, %d without", with, without)
	}
	if with, without := read(always); with+without != 2000 || without > 10 {
		t.Errorf("wanted again: %d names with attributes, %d without", with, without)
	}
	if with, without := read(never); with+without != 2000 || with > 500 {
		t.Errorf("not wanted any more: %d names with attributes, %d without", with, without)
	}
	if with, without := read(func(page int) bool { return page >= 3 }); with+without != 2000 || with < 500 || with > 1500 {
		t.Errorf("wanted in the middle: %d names with attributes, %d without", with, without)
	}
	d.didUnlink()
	if with, _ := read(never); with > 0 {
		t.Errorf("after unlinks %d names with attributes", with)
	}
	if b.heads.Load() > 0 {
		t.Errorf("%d HEADs", b.heads.Load())
	}
}

// TestAttributesAreNotGuessed: where they cost HEADs these are sent, many at a time,
// when names were looked up, and not before. Names that are outdated by an own
// change, or whose HEAD fails, go out alone.
func TestAttributesAreNotGuessed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &flatBucket{files: 1000, takes: 30 * time.Millisecond, without: "file-00020"}
		d := listDir(t, b, AttributesFull)
		d.fsys.attributesWanted.Store(true)
		k := openKernelDir(t, d)
		defer k.close()
		page, _ := k.page(0, 1<<20, true)
		if b.heads.Load() > 0 {
			t.Errorf("%d HEADs before a look-up", b.heads.Load())
		}
		k.lookup(page[2].Name)
		const known = 10
		for i := 50; i < 50+known; i++ {
			d.fsys.heads.remember("bucket", objstore.Object{Entry: b.entry(i)})
		}
		d.didChange("file-00015")
		off := page[len(page)-1].Off
		before, began := b.heads.Load(), time.Now()
		page, outs := k.page(off, 1<<20, true)
		took := time.Since(began)
		var alone []string
		for i, e := range page {
			if outs[i].NodeId == 0 {
				alone = append(alone, e.Name)
			}
		}
		if want := []string{page[0].Name, "file-00015", "file-00020"}; !slices.Equal(alone, want) {
			t.Errorf("without attributes: %q, want %q", alone, want)
		}
		if asked := int(b.heads.Load() - before); asked > len(page)+headsInFlight {
			t.Errorf("%d HEADs for %d names", asked, len(page))
		}
		if limit := 2 * b.takes * time.Duration(len(page)/headsInFlight); took > limit {
			t.Errorf("%d names took %v, want %v", len(page), took, limit)
		}
		k.lookup(page[0].Name)
		d.didUnlink() // it was looked up for that
		before = b.heads.Load()
		if _, outs := k.page(page[len(page)/2].Off, 1<<20, true); b.heads.Load() != before || outs[1].NodeId != 0 {
			t.Errorf("%d HEADs after an unlink", b.heads.Load()-before)
		}
	})
}

// TestSlowReadersGetAttributes: HEADs take longer than the listing of a long directory,
// whose names are not believed any more when their turn comes; they are asked for, once,
// many at a time.
func TestSlowReadersGetAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &flatBucket{files: 3000, takes: 30 * time.Millisecond}
		d := listDir(t, b, AttributesFull)
		d.fsys.attributesWanted.Store(true)
		k := openKernelDir(t, d)
		defer k.close()
		page, _ := k.page(0, 1<<20, true)
		k.lookup(page[2].Name)
		off := page[len(page)-1].Off
		for range 3 {
			time.Sleep(d.fsys.cfg.MetadataTTL)
			before, began := b.heads.Load(), time.Now()
			page, outs := k.page(off, 64<<10, true)
			took := time.Since(began)
			off = page[len(page)-1].Off
			for i, e := range page[1:] {
				if outs[i+1].NodeId == 0 {
					t.Fatalf("%s goes out alone", e.Name)
				}
			}
			if asked := int(b.heads.Load() - before); asked > len(page)+2*headsInFlight {
				t.Errorf("%d HEADs for %d names", asked, len(page))
			}
			if limit := 2 * b.takes * time.Duration(len(page)/headsInFlight+1); took > limit {
				t.Errorf("%d names took %v, want %v", len(page), took, limit)
			}
			k.lookup(page[0].Name)
		}
	})
}

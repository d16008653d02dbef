package fs

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"coffer/objstore"
)

// treeBucket has keys, and takes so long for each listing, unless who asks gives up.
type treeBucket struct {
	namedBucket
	takes time.Duration

	mu     sync.Mutex
	keys   []string // sorted
	lists  []objstore.Query
	most   int   // listings under way at a time
	now    int   // of them
	failed error // of those that are asked for ahead
}

func (b *treeBucket) put(keys ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys = append(slices.Clone(b.keys), keys...)
	slices.Sort(b.keys)
}

// asked returns how many listings there were since it was called last: by a look-up,
// by an open, and ahead.
func (b *treeBucket) asked() (lookups, opens, ahead int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range b.lists {
		switch {
		case q.Limit == 1:
			lookups++
		case q.Limit == 0:
			opens++
		case q.Prefix != "": // else it is for look-ups, see listWhole
			ahead++
		}
	}
	b.lists = nil
	return lookups, opens, ahead
}

func (b *treeBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		b.mu.Lock()
		b.lists = append(b.lists, q)
		b.now++
		b.most = max(b.most, b.now)
		keys, failed := b.keys, b.failed
		b.mu.Unlock()
		var err error
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
			err = ctx.Err()
		}
		if q.Limit == aheadPages && failed != nil {
			err = failed
		}
		b.mu.Lock()
		b.now--
		b.mu.Unlock()
		if err != nil {
			yield(objstore.Entry{}, err)
			return
		}
		told, n := "", 0
		for _, k := range keys[sort.SearchStrings(keys, q.Prefix):] {
			rest, ok := strings.CutPrefix(k, q.Prefix)
			if !ok {
				return
			}
			e := objstore.Entry{Key: k}
			if dir, _, below := strings.Cut(rest, "/"); below && q.Delimiter != "" && rest != "" {
				e = objstore.Entry{Key: q.Prefix + dir + "/", IsPrefix: true}
			}
			if e.Key == told || e.Key <= q.StartAfter {
				continue
			}
			if told = e.Key; !yield(e, nil) {
				return
			}
			if n++; n == q.Limit {
				return
			}
		}
	}
}

func (b *treeBucket) Head(context.Context, objstore.Ref) (objstore.Object, error) {
	return objstore.Object{}, objstore.NotExist
}

func (b *treeBucket) Protection(context.Context, string) (objstore.Encryption, error) {
	return objstore.Encryption{}, nil
}

// Create fails when nobody can know any more whether it has.
func (b *treeBucket) Create(context.Context, string, objstore.CreateOptions) (objstore.Writer, error) {
	return nil, objstore.Unavailable
}

// kernelTree is a tree as the kernel sees it.
type kernelTree struct {
	t    *testing.T
	top  *dir
	raw  fuse.RawFileSystem
	ids  map[string]uint64 // nodes that were looked up, by path
	wait time.Duration     // of the walker, at each directory
	// byNumber has the walker go in the order of inode numbers.
	byNumber bool
}

func newKernelTree(t *testing.T, b objstore.Bucket, cfg Config) *kernelTree {
	cfg.Attributes, cfg.Logger = AttributesList, slog.New(slog.DiscardHandler)
	d := knownDir(t, b, cfg.withDefaults())
	return &kernelTree{t: t, top: d, raw: rereading{gofuse.NewNodeFS(d, &gofuse.Options{})}, ids: map[string]uint64{"": rootNode}}
}

// node looks path up.
func (k *kernelTree) node(path string) uint64 {
	k.t.Helper()
	if id := k.ids[path]; id != 0 {
		return id
	}
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	var out fuse.EntryOut
	if st := k.raw.Lookup(nil, &fuse.InHeader{NodeId: k.node(parent)}, name, &out); !st.Ok() {
		k.t.Fatalf("%s: %v", path, st)
	}
	k.ids[path] = out.NodeId
	return out.NodeId
}

// dir returns the directory at path.
func (k *kernelTree) dir(path string) *dir {
	k.node(path)
	d := k.top
	for _, nm := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		d = d.GetChild(nm).Operations().(*dir)
	}
	return d
}

// list returns the names in the directory at path, a slash behind those of directories.
func (k *kernelTree) list(path string) (names []string) {
	k.t.Helper()
	in := fuse.InHeader{NodeId: k.node(path)}
	var out fuse.OpenOut
	if st := k.raw.OpenDir(nil, &fuse.OpenIn{InHeader: in}, &out); !st.Ok() {
		k.t.Fatal(st)
	}
	defer k.raw.ReleaseDir(&fuse.ReleaseIn{InHeader: in, Fh: out.Fh})
	for off := uint64(0); ; {
		list := fuse.NewDirEntryList(make([]byte, 32<<10), off)
		if st := k.raw.ReadDir(nil, &fuse.ReadIn{InHeader: in, Fh: out.Fh, Offset: off, Size: 32 << 10}, list); !st.Ok() {
			k.t.Fatal(st)
		}
		entries, err := fuse.ParseDirEntries(list.Bytes())
		if err != nil {
			k.t.Fatal(err)
		}
		if len(entries) == 0 {
			return names
		}
		for _, e := range entries {
			off = e.Off
			switch {
			case e.Name == "." || e.Name == "..":
			case e.Mode == syscall.S_IFDIR:
				names = append(names, e.Name+"/")
			default:
				names = append(names, e.Name)
			}
		}
	}
}

// dirs returns the names of the directories in the directory at path.
func (k *kernelTree) dirs(path string) (names []string) {
	k.t.Helper()
	for _, nm := range k.list(path) {
		if nm, isDir := strings.CutSuffix(nm, "/"); isDir {
			names = append(names, nm)
		}
	}
	return names
}

// walk lists path and all below it, as deep as levels, and returns how many names
// there are.
func (k *kernelTree) walk(path string, levels int) int {
	k.t.Helper()
	time.Sleep(k.wait)
	if levels == 0 {
		return len(k.list(path))
	}
	names := k.list(path)
	if k.byNumber {
		number := k.dir(path).numbers()
		slices.SortFunc(names, func(a, b string) int {
			return cmp.Compare(number(strings.TrimSuffix(a, "/")), number(strings.TrimSuffix(b, "/")))
		})
	}
	n := 0
	for _, nm := range names {
		if n++; strings.HasSuffix(nm, "/") {
			n += k.walk(strings.TrimPrefix(path+"/"+nm[:len(nm)-1], "/"), levels-1)
		}
	}
	return n
}

// tree returns the keys of a tree: fan directories in each, and so many files.
func tree(prefix string, fan, levels, files int) (keys []string) {
	for i := range files {
		keys = append(keys, fmt.Sprintf("%sf%04d", prefix, i))
	}
	for i := range fan {
		if levels > 0 {
			keys = append(keys, tree(fmt.Sprintf("%sd%04d/", prefix, i), fan, levels-1, files)...)
		}
	}
	return keys
}

const anyDepth = 100

// TestWalkIsListedAhead: a walk costs a listing for each directory, and waits for few.
func TestWalkIsListedAhead(t *testing.T) {
	for name, c := range map[string]struct {
		keys     []string
		levels   int // that are walked
		byNumber bool
		dirs     int
		extra    int // listings that are allowed beyond one a directory
		waits    int // listings that the walker may wait for
	}{
		"wide":                  {tree("", 300, 1, 3), anyDepth, false, 301, 2, 20},
		"wide, by number":       {tree("", 300, 1, 3), anyDepth, true, 301, 3, 24},
		"a thousand":            {tree("", 30, 2, 1), anyDepth, false, 931, 8, 100},
		"a thousand, by number": {tree("", 30, 2, 1), anyDepth, true, 931, 40, 320},
		"narrow and deep":       {tree("", 3, 5, 1), anyDepth, false, 364, 12, 140},
		"the upper levels":      {tree("", 10, 3, 1), 1, false, 11, 2, 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &treeBucket{takes: 20 * time.Millisecond}
				b.put(c.keys...)
				k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
				began := time.Now()
				k.byNumber = c.byNumber
				k.walk("", c.levels)
				waits := int(time.Since(began) / b.takes)
				lookups, opens, ahead := b.asked()
				t.Logf("%d directories: listed %d when looked up, %d when opened, %d ahead; %d waits, %d at a time", c.dirs, lookups, opens, ahead, waits, b.most)
				if n := lookups + opens + ahead; n > c.dirs+c.extra {
					t.Errorf("%d listings for %d directories", n, c.dirs)
				}
				if waits > c.waits {
					t.Errorf("the walker waited for %d listings", waits)
				}
				if b.most > aheadMax {
					t.Errorf("%d listings at a time", b.most)
				}
				time.Sleep(2 * aheadFor)
				if n := k.top.fsys.listings.names.Load(); n != 0 || len(k.top.fsys.listings.ahead) != 0 {
					t.Errorf("%d names are kept", n)
				}
			})
		})
	}
}

// TestNothingIsListedAhead of who does not walk: each open costs its own listing.
func TestNothingIsListedAhead(t *testing.T) {
	const dirs = 200
	path := func(i int) string { return fmt.Sprintf("d%04d", i) }
	for name, c := range map[string]struct {
		ttl time.Duration
		do  func(k *kernelTree)
	}{
		"one listing": {time.Minute, func(k *kernelTree) { k.list("") }},
		"a listing of one below": {time.Minute, func(k *kernelTree) {
			k.list("")
			k.list(path(0))
			k.list(path(0))
		}},
		"opened in any order": {time.Minute, func(k *kernelTree) {
			k.list("")
			for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(dirs) {
				k.list(path(i))
			}
		}},
		"never listed": {time.Minute, func(k *kernelTree) {
			for i := range dirs {
				k.list(path(i))
			}
		}},
		"one by one, with time between": {time.Minute, func(k *kernelTree) {
			k.wait = aheadFor + time.Millisecond
			k.walk("", 1)
		}},
		"looked up only": {time.Minute, func(k *kernelTree) {
			k.list("")
			for i := range dirs {
				k.node(path(i))
			}
		}},
		"always asked": {0, func(k *kernelTree) { k.walk("", anyDepth) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &treeBucket{takes: 20 * time.Millisecond}
				b.put(tree("", dirs, 1, 1)...)
				c.do(newKernelTree(t, b, Config{MetadataTTL: c.ttl}))
				if _, _, ahead := b.asked(); ahead > 0 {
					t.Errorf("%d listings ahead", ahead)
				}
				synctest.Wait()
			})
		})
	}
}

// TestWalkThatEnds, slows down, or goes less deep than before costs few listings
// that nobody wants.
func TestWalkThatEnds(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(k *kernelTree)
		most int // listings that are of no use
	}{
		"ends": {func(k *kernelTree) {
			for _, nm := range k.dirs("")[:40] {
				k.list(nm)
			}
		}, aheadMax},
		"slows down": {func(k *kernelTree) {
			for i, nm := range k.dirs("") {
				if i > 40 {
					time.Sleep(aheadFor / 3)
				}
				k.list(nm)
			}
		}, aheadMax + 8},
		"goes less deep": {func(k *kernelTree) {
			k.walk("d0000", anyDepth)
			k.walk("", 1)
		}, 2 * aheadMax},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &treeBucket{takes: 20 * time.Millisecond}
				b.put(tree("", 60, 2, 1)...)
				k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
				c.do(k)
				time.Sleep(2 * aheadFor)
				b.mu.Lock()
				lists := slices.Clone(b.lists)
				b.mu.Unlock()
				_, _, ahead := b.asked()
				opened := map[string]bool{}
				for path := range k.ids {
					opened[path+"/"] = true
				}
				useless := 0
				seen := map[string]int{}
				for _, q := range lists {
					if q.Limit != 1 {
						if seen[q.Prefix]++; seen[q.Prefix] > 1 && q.Limit == 0 || !opened[q.Prefix] {
							useless++
						}
					}
				}
				if t.Logf("%d listings ahead, %d useless", ahead, useless); useless > c.most || ahead == 0 {
					t.Errorf("%d listings ahead, %d of no use", ahead, useless)
				}
			})
		})
	}
}

// TestListedAheadIsCoherent: a directory that was listed ahead shows what this mount
// changed since, and what others changed more than a second ago.
func TestListedAheadIsCoherent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(k *kernelTree, b *treeBucket)
		want   string // in the directory that was listed ahead
		ahead  bool   // as it was then
	}{
		"nothing": {func(*kernelTree, *treeBucket) {}, "f0000", true},
		"another's, --metadata-ttl ago": {func(k *kernelTree, b *treeBucket) {
			k.top.fsys.listings.goodFor = aheadFor / 4
			k.top.fsys.listings.forget("bucket", "d0002")
			k.top.listAhead("d0002", &k.top.known.walk, 2)
			synctest.Wait()
			b.put("d0002/theirs")
			time.Sleep(aheadFor / 4)
		}, "f0000 theirs", false},
		"own file": {func(k *kernelTree, b *treeBucket) {
			b.put("d0002/own")
			k.dir("d0002").didChange("own")
		}, "f0000 own", false},
		"own directory": {func(k *kernelTree, b *treeBucket) {
			b.put("d0002/own/f")
			k.dir("d0002").didChange("own")
		}, "f0000 own/", false},
		"own, in another": {func(k *kernelTree, b *treeBucket) {
			b.put("d0001/own")
			k.dir("d0001").didChange("own")
		}, "f0000", true},
		"own, while it is listed": {func(k *kernelTree, b *treeBucket) {
			k.top.fsys.listings.forget("bucket", "d0002")
			b.takes = 500 * time.Millisecond
			k.top.listAhead("d0002", &k.top.known.walk, 2)
			time.Sleep(100 * time.Millisecond)
			b.put("d0002/own")
			k.dir("d0002").didChange("own")
		}, "f0000 own", false},
		"the directory itself": {func(k *kernelTree, b *treeBucket) {
			b.put("d0002/d/theirs", "d0002/own")
			k.top.didChange("d0002")
		}, "d/ f0000 own", false},
		"its own attributes": {func(k *kernelTree, b *treeBucket) {
			b.put("d0002/own") // seen by who lists anew
			_ = k.dir("d0002").putMarker(k.t.Context(), nil, objstore.Condition{})
		}, "f0000 own", false},
		"another's, a moment ago": {func(k *kernelTree, b *treeBucket) {
			time.Sleep(aheadFor - time.Millisecond)
			b.put("d0002/theirs")
		}, "f0000", true},
		"another's, a second ago": {func(k *kernelTree, b *treeBucket) {
			b.put("d0002/theirs")
			time.Sleep(aheadFor)
		}, "f0000 theirs", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &treeBucket{}
				b.put(tree("", 100, 1, 1)...)
				k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
				k.list("")
				k.list("d0000")
				k.list("d0001")
				synctest.Wait()
				if b.asked(); k.top.fsys.listings.look(dirKey{"bucket", "d0002/"}, false) == nil {
					t.Fatal("it is not listed ahead")
				}
				c.change(k, b)
				b.asked()
				slices.Sort(b.keys)
				if got := strings.Join(k.list("d0002"), " "); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				if _, opens, _ := b.asked(); (opens == 0) != c.ahead {
					t.Errorf("%d listings", opens)
				}
				time.Sleep(2 * aheadFor)
			})
		})
	}
}

// TestRemovedDirectoryIsNotListedAhead: a directory that is empty in a listing
// that was asked for ahead may be made since; only the store says that it is gone.
func TestRemovedDirectoryIsNotListedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &treeBucket{}
		b.put(tree("", 100, 1, 1)...)
		k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
		k.list("")
		b.keys = slices.DeleteFunc(b.keys, func(key string) bool { return strings.HasPrefix(key, "d0002/") })
		k.list("d0000")
		k.list("d0001")
		synctest.Wait()
		b.put("d0002/theirs")
		k.node("d0002")
		time.Sleep(2 * aheadFor)
	})
}

// TestLongDirectoriesAheadOfAWalk: what is listed ahead is bounded, and the rest of
// a directory follows without a gap.
func TestLongDirectoriesAheadOfAWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const files = aheadPages + 50
		b := &treeBucket{takes: 20 * time.Millisecond}
		b.put(tree("", 24, 1, files)...)
		k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
		for _, nm := range k.dirs("") {
			got := k.list(nm)
			if len(got) != files || !slices.IsSorted(got) || len(slices.Compact(got)) != files {
				t.Fatalf("%s has %d names", nm, len(got))
			}
			if n := k.top.fsys.listings.names.Load(); n > aheadNames+aheadMax {
				t.Fatalf("%d names are listed ahead", n)
			}
		}
		if _, _, ahead := b.asked(); ahead < 15 {
			t.Errorf("%d are listed ahead", ahead)
		}
		time.Sleep(2 * aheadFor)
	})
}

// TestListingAheadThatFails is as if there was none.
func TestListingAheadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &treeBucket{takes: 20 * time.Millisecond, failed: objstore.Unavailable}
		b.put(tree("", 50, 1, 1)...)
		k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
		if n := k.walk("", anyDepth); n != 101 {
			t.Errorf("%d names", n)
		}
		if _, _, ahead := b.asked(); ahead == 0 {
			t.Error("nothing was listed ahead")
		}
		time.Sleep(2 * aheadFor)
	})
}

// TestMountEndsWithListingsAhead: nothing is waited for that nobody asked for.
func TestMountEndsWithListingsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &treeBucket{}
		b.put(tree("", 50, 1, 1)...)
		k := newKernelTree(t, b, Config{MetadataTTL: time.Minute})
		k.list("")
		k.list("d0000")
		b.takes = time.Hour
		k.top.listAhead("d0030", &k.top.known.walk, 30)
		k.top.listAhead("d0031", &k.top.known.walk, 31)
		synctest.Wait()
		if b.now != 2 {
			t.Fatalf("%d listings are under way", b.now)
		}
		began := time.Now()
		k.top.fsys.endAhead()
		if k.top.fsys.background.Wait(); time.Since(began) > 0 {
			t.Errorf("the end took %v", time.Since(began))
		}
	})
}

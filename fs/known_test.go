package fs

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"

	"coffer/objstore"
)

func TestRate(t *testing.T) {
	var r rate
	begin := time.Unix(1000, 0)
	for _, c := range []struct {
		at   time.Duration
		want int
	}{
		{0, 1}, {900 * time.Millisecond, 2}, {999 * time.Millisecond, 3},
		{time.Second, 3}, {1500 * time.Millisecond, 3}, // the second before had more
		{2 * time.Second, 2}, {4 * time.Second, 1}, {3 * time.Second, 1},
	} {
		if got := r.add(begin.Add(c.at)); got != c.want {
			t.Errorf("at %v: %d, want %d", c.at, got, c.want)
		}
	}
}

// TestWholeListing: what was changed while or after a directory was listed is
// asked for, and nothing else.
func TestWholeListing(t *testing.T) {
	d := knownDir(t, namedBucket{}, Config{MetadataTTL: time.Hour, AbsentTTL: time.Second})
	file := func(nm string) name { return name{name: nm, entry: objstore.Entry{Key: nm}} }
	since := d.ask()
	d.didChange("a")
	d.takeWholeLocked([]name{file("a"), file("b"), file("c")}, since, time.Now())
	d.answered()
	d.didChange("c")
	d.didChange("new")
	for nm, want := range map[string]struct{ known, absent bool }{
		"a": {}, "b": {known: true}, "c": {}, "new": {}, "never": {absent: true},
	} {
		if _, ok := d.recall(nm, false); ok != want.known {
			t.Errorf("%q is known: %v", nm, ok)
		}
		if got := d.believes(nm); got == absent != want.absent {
			t.Errorf("%q is absent: %v", nm, got)
		}
	}
	d.known.whole = time.Now().Add(-2 * time.Second)
	if d.believes("never") != nothing {
		t.Error("an old listing says what is absent")
	}
	d.known.whole = time.Now()
	if d.beginListing(); d.believes("never") != nothing {
		t.Error("a listing that begins knows what is absent")
	}
}

// TestListingIsWorthItsPages: a long directory is listed in full only when as
// many look-ups come as its pages would cost.
func TestListingIsWorthItsPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &longBucket{names: 2500}
		d := knownDir(t, b, Config{MetadataTTL: time.Hour, AbsentTTL: time.Second})
		lookUp := func(n int) {
			for range n {
				d.foundNoFile()
				synctest.Wait()
			}
		}
		for _, step := range []struct {
			more int
			want string
		}{{7, "[]"}, {1, "[1000]"}, {7, "[1000]"}, {1, "[1000 2000]"}, {8, "[1000 2000]"}, {8, "[1000 2000 4000]"}} {
			if lookUp(step.more); fmt.Sprint(b.limits) != step.want {
				t.Fatalf("after %d more look-ups: listed %v, want %v", step.more, b.limits, step.want)
			}
		}
		if d.believes("absent") != absent {
			t.Error("what was not listed is not absent")
		}
		if _, ok := d.recall("f2499", false); !ok {
			t.Error("what was listed is not known")
		}
		time.Sleep(time.Second)
		if d.believes("absent") != nothing {
			t.Error("a listing is believed for longer than it is told to be")
		}
	})
}

// TestAbsenceIsNotBelieved, unless the mount is told to; what a listing has told
// is, and so it is not done again and again.
func TestAbsenceIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &longBucket{names: 10}
		d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second})
		for range 100 {
			if d.believes("absent") == absent {
				t.Fatal("a name is believed to be absent")
			}
			d.foundNoFile()
			synctest.Wait()
			time.Sleep(90 * time.Millisecond)
		}
		if len(b.limits) != 1 {
			t.Errorf("listed %d times", len(b.limits))
		}
		if _, ok := d.recall("f0009", false); !ok {
			t.Error("what was listed is not known")
		}
	})
}

// TestDoubtsEndWithTheListing: own changes leave nothing behind once the listing
// is not believed any more, and are bounded while it is.
func TestDoubtsEndWithTheListing(t *testing.T) {
	d := knownDir(t, namedBucket{}, Config{MetadataTTL: time.Hour, AbsentTTL: time.Minute})
	d.takeWholeLocked(nil, 0, time.Now())
	for i := range 3 * listedMax {
		d.didChange(fmt.Sprint(i))
		if n := len(d.known.listed.names); n > listedMax {
			t.Fatalf("%d names are doubted", n)
		}
		if i == 0 && d.believes("0") != nothing {
			t.Fatal("a name is absent that was made")
		}
	}
	for ttl, age := range map[time.Duration]time.Duration{time.Minute: time.Minute, 0: 0} {
		d = knownDir(t, namedBucket{}, Config{MetadataTTL: time.Hour, AbsentTTL: ttl})
		d.takeWholeLocked(nil, 0, time.Now().Add(-age))
		if d.didChange("new"); len(d.known.listed.names) != 0 {
			t.Errorf("with an absent-ttl of %v a doubt is kept that says nothing", ttl)
		}
	}
}

// TestListingThatDoesNotCome in time, or fails, is not asked for again at once.
func TestListingThatDoesNotCome(t *testing.T) {
	for name, b := range map[string]*longBucket{
		"slow": {names: 10, takes: 2 * time.Second}, "failing": {failed: objstore.Permission},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := knownDir(t, b, Config{MetadataTTL: time.Hour, AbsentTTL: time.Second})
			for range 100 { // in 9 seconds
				d.foundNoFile()
				time.Sleep(90 * time.Millisecond)
			}
			if len(b.limits) != 1 {
				t.Errorf("%s: listed %d times", name, len(b.limits))
			}
			time.Sleep(5 * time.Second)
			for range 10 {
				d.foundNoFile()
			}
			if synctest.Wait(); len(b.limits) != 2 {
				t.Errorf("%s: listed %d times after a while", name, len(b.limits))
			}
			time.Sleep(5 * time.Second) // its end
		})
	}
}

// TestOwnListingIsKept: what a program's listing told is all that stat needs,
// whatever is listed for the names it did not tell.
func TestOwnListingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, attributes := range []Attributes{AttributesList, AttributesFull} {
			b := &longBucket{names: 100}
			d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second, Attributes: attributes})
			for i := range 99 {
				nm := fmt.Sprintf("f%04d", i)
				d.remember(name{name: nm, entry: objstore.Entry{Key: nm}}, 0, time.Now())
			}
			d.recall("f0000", false)
			d.unlist("f0050")
			d.listWhole(1000)
			for nm, unasked := range map[string]bool{"f0010": false, "f0050": true, "f0099": true} {
				if l, ok := d.recall(nm, false); !ok || l.unasked != unasked {
					t.Errorf("%s: %q is known: %v, and listed by nobody: %v", attributes, nm, ok, l.unasked)
				}
			}
			d.recall("f0011", false)
			if synctest.Wait(); attributes == AttributesFull && b.heads.Load() != headsInFlight {
				t.Errorf("%d HEADs were sent ahead", b.heads.Load())
			}
			time.Sleep(10 * time.Second)
			if d.listWhole(1000); !d.known.listed.names["f0010"].isUnasked {
				t.Errorf("%s: an old listing is kept", attributes)
			}
		}
	})
}

// TestCloseWaitsForNothingAhead: what was asked for in advance ends with the mount.
func TestCloseWaitsForNothingAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &longBucket{names: 10, takes: time.Hour}
		fsys := newFilesystem(Config{MetadataTTL: 10 * time.Second})
		d := &dir{fsys: fsys, bucket: b}
		for range manyLookups {
			d.foundNoFile()
		}
		fsys.heads.askAhead(fsys.ahead, &fsys.background, b, objstore.Entry{Key: "f0000"})
		synctest.Wait()
		if len(b.limits) != 1 || b.heads.Load() != 1 {
			t.Fatalf("%d listings and %d HEADs are under way", len(b.limits), b.heads.Load())
		}
		start := time.Now()
		if fsys.close(); time.Since(start) > 0 {
			t.Errorf("close took %v", time.Since(start))
		}
		time.Sleep(questionTimeout) // the HEAD goes on, as others could wait for it
	})
}

// knownDir is a directory of b that no kernel knows.
func knownDir(t *testing.T, b objstore.Bucket, cfg Config) *dir {
	fsys := newFilesystem(cfg)
	t.Cleanup(func() { fsys.endAhead(); fsys.notes.close() })
	return &dir{fsys: fsys, bucket: b}
}

// longBucket lists names, and notes how many it may tell. Each answer takes so
// long, unless who asks gives up.
type longBucket struct {
	namedBucket
	names  int
	takes  time.Duration
	failed error
	limits []int
	heads  atomic.Int32
}

func (b *longBucket) wait(ctx context.Context) error {
	select {
	case <-time.After(b.takes):
		return b.failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *longBucket) Head(ctx context.Context, r objstore.Ref) (objstore.Object, error) {
	b.heads.Add(1)
	return objstore.Object{Entry: objstore.Entry{Key: r.Key}}, b.wait(ctx)
}

func (b *longBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	b.limits = append(b.limits, q.Limit)
	return func(yield func(objstore.Entry, error) bool) {
		if err := b.wait(ctx); err != nil {
			yield(objstore.Entry{}, err)
			return
		}
		for i := range min(b.names, q.Limit) {
			if !yield(objstore.Entry{Key: fmt.Sprintf("f%04d", i)}, nil) {
				return
			}
		}
	}
}

// namedBucket is asked nothing but its name.
type namedBucket struct{ objstore.Bucket }

func (namedBucket) Name() string { return "bucket" }

// TestBurstOfLookups: in a directory of which many names are asked for, a name
// that is not there costs two HEADs; what another mount made is found at once,
// and what lies below no marker when the listing is not believed any more.
func TestBurstOfLookups(t *testing.T) {
	for _, attributes := range []Attributes{AttributesFull, AttributesList} {
		synctest.Test(t, func(t *testing.T) {
			b := &keysBucket{keys: map[string]bool{"implicit/f": true, "marked/": true, "file": true}}
			d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second, Attributes: attributes, Logger: slog.New(slog.DiscardHandler)})
			find := finder(t, d)
			for range manyLookups {
				find("none", "nothing")
			}
			synctest.Wait()
			if got := b.asked(); got != "8 HEAD none, 1 LIST , 8 LIST none/" {
				t.Errorf("before the listing: %s", got)
			}
			for i := range 100 {
				find(fmt.Sprint("none", i%2), "nothing")
			}
			if got := b.asked(); got != "50 HEAD none0, 50 HEAD none0/, 50 HEAD none1, 50 HEAD none1/" {
				t.Errorf("after it: %s", got)
			}
			for _, nm := range []string{"implicit", "marked"} {
				find(nm, "directory")
			}
			find("file", "file")
			b.put("theirs", "made/", "both", "both/", "late/f")
			b.asked()
			find("theirs", "file")
			find("made", "directory")
			if got := b.asked(); got != "1 HEAD made, 1 HEAD made/, 1 HEAD theirs, 1 HEAD theirs/" {
				t.Errorf("what others made: %s", got)
			}
			find("both", "directory")
			find("late", "nothing")
			b.put("none0/f")
			d.didChange("none0")
			find("none0", "nothing")
			time.Sleep(10 * time.Second)
			find("late", "directory")
		})
	}
}

// finder returns what looks a name up in d, and says what it has to be.
func finder(t *testing.T, d *dir) func(nm, want string) {
	return func(nm, want string) {
		t.Helper()
		f, err := d.find(t.Context(), nm)
		got := "file"
		if f.isDir {
			got = "directory"
		}
		if objstore.KindOf(err) == objstore.NotExist {
			got = "nothing"
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %q is %s, want %s", d.fsys.cfg.Attributes, nm, got, want)
		}
	}
}

// TestFilesInARow: where files are looked up one after the other, the next costs one
// HEAD, and what is none is found all the same.
func TestFilesInARow(t *testing.T) {
	for _, attributes := range []Attributes{AttributesFull, AttributesList} {
		synctest.Test(t, func(t *testing.T) {
			b := &keysBucket{keys: map[string]bool{"dir/f": true, "both": true, "both/f": true}}
			for i := range 10 * manyLookups {
				b.put(fmt.Sprint("f", i))
			}
			d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second, Attributes: attributes, Logger: slog.New(slog.DiscardHandler)})
			find, next := finder(t, d), 0
			files := func(n int, heads, lists int) {
				t.Helper()
				for range n {
					find(fmt.Sprint("f", next), "file")
					next++
				}
				asked := b.asked()
				if h, l := strings.Count(asked, "HEAD"), strings.Count(asked, "LIST"); h != heads || l != lists {
					t.Errorf("%s: %d files cost %s", attributes, n, asked)
				}
			}
			files(manyLookups, manyLookups, manyLookups)
			files(manyLookups, manyLookups, 0)
			find("none", "nothing")
			b.asked()
			files(manyLookups, manyLookups, manyLookups)
			find("dir", "directory")
			if got := b.asked(); got != "1 HEAD dir, 1 LIST dir/" {
				t.Errorf("%s: a directory among them cost %s", attributes, got)
			}
			files(manyLookups+1, manyLookups+1, manyLookups)
			find("both", "file")
			time.Sleep(time.Second)
			find("both", "directory")
			b.asked()
			files(1, 1, 1)
		})
	}
}

// TestDirectoryThatLostItsMarker: what this mount knows to be a directory is asked
// for in full, in a burst too; somebody may have removed its marker alone.
func TestDirectoryThatLostItsMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &keysBucket{keys: map[string]bool{}}
		d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)})
		gofuse.NewNodeFS(d, &gofuse.Options{})
		for range manyLookups {
			_, _ = d.find(t.Context(), "none")
		}
		synctest.Wait()
		b.put("known/f", "unknown/f")
		d.AddChild("known", d.newInode(t.Context(), "known", d.fsys.newDir(b, place{d, "known"}, ""), syscall.S_IFDIR), false)
		if f, err := d.find(t.Context(), "known"); err != nil || !f.isDir {
			t.Errorf("%+v, %v", f, err)
		}
		if _, err := d.find(t.Context(), "unknown"); objstore.KindOf(err) != objstore.NotExist {
			t.Errorf("there is no burst: %v", err)
		}
	})
}

// TestHiddenObjectIsAskedForOnce: an object beside a directory of the same name
// makes no second listing, outside of bursts.
func TestHiddenObjectIsAskedForOnce(t *testing.T) {
	b := &keysBucket{keys: map[string]bool{"both": true, "both/f": true}}
	d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	if f, err := d.find(t.Context(), "both"); err != nil || !f.isDir {
		t.Errorf("%+v, %v", f, err)
	}
	if got := b.asked(); got != "1 HEAD both, 1 LIST both/" {
		t.Error(got)
	}
}

// TestListingIsRenewedBeforeItEnds, as long as that takes less than half of the
// time for which it is believed.
func TestListingIsRenewedBeforeItEnds(t *testing.T) {
	for takes, want := range map[time.Duration]int{0: 7, 100 * time.Millisecond: 7, time.Second: 8, 2 * time.Second: 10, 4 * time.Second: 12} {
		synctest.Test(t, func(t *testing.T) {
			b := &longBucket{names: 10, takes: takes}
			d := knownDir(t, b, Config{MetadataTTL: 10 * time.Second})
			for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
				d.foundNoFile()
				got := d.believes("absent")
				if at := time.Since(start); at > 5*time.Second && got != unmarked {
					t.Fatalf("with listings of %v nothing is believed after %v", takes, at)
				}
			}
			if n := len(b.limits); n < want-1 || n > want+1 {
				t.Errorf("%d listings of %v in a minute, want about %d", n, takes, want)
			}
			time.Sleep(5 * time.Second) // the end of the last
		})
	}
}

// TestDirectoryOfDoubtfulListing: a directory that a listing told of may be
// there still, after an own change of that name, because of what lies below.
func TestDirectoryOfDoubtfulListing(t *testing.T) {
	d := knownDir(t, namedBucket{}, Config{MetadataTTL: time.Hour})
	since := d.ask()
	d.didChange("meanwhile")
	d.takeWholeLocked([]name{{name: "d", isDir: true}, {name: "f"}}, since, time.Now())
	d.answered()
	for range 2 {
		d.didChange("d")
		d.didChange("f")
	}
	for nm, want := range map[string]belief{"d": nothing, "meanwhile": nothing, "f": unmarked, "none": unmarked} {
		if got := d.believes(nm); got != want {
			t.Errorf("of %q is believed: %v, want %v", nm, got, want)
		}
	}
}

// keysBucket has keys, and notes what it is asked.
type keysBucket struct {
	namedBucket
	mu       sync.Mutex
	keys     map[string]bool
	requests []string
}

func (b *keysBucket) put(keys ...string) {
	for _, k := range keys {
		b.keys[k] = true
	}
}

// asked counts the requests since it was called last.
func (b *keysBucket) asked() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.Sort(b.requests)
	var parts []string
	for len(b.requests) > 0 {
		n := len(b.requests)
		first := b.requests[0]
		b.requests = slices.DeleteFunc(b.requests, func(r string) bool { return r == first })
		parts = append(parts, fmt.Sprint(n-len(b.requests), " ", first))
	}
	return strings.Join(parts, ", ")
}

func (b *keysBucket) note(request string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests = append(b.requests, request)
}

func (b *keysBucket) Head(_ context.Context, r objstore.Ref) (objstore.Object, error) {
	b.note("HEAD " + r.Key)
	if !b.keys[r.Key] {
		return objstore.Object{}, objstore.NotExist
	}
	o := objstore.Object{Entry: objstore.Entry{Key: r.Key, SizeKnown: true}}
	if !strings.HasSuffix(r.Key, "/") {
		o.Size = 1
	}
	return o, nil
}

func (b *keysBucket) List(_ context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	b.note("LIST " + q.Prefix)
	return func(yield func(objstore.Entry, error) bool) {
		told := ""
		for _, k := range slices.Sorted(maps.Keys(b.keys)) {
			rest, ok := strings.CutPrefix(k, q.Prefix)
			e := objstore.Entry{Key: k}
			if dir, _, below := strings.Cut(rest, "/"); below && q.Delimiter == "/" {
				e = objstore.Entry{Key: q.Prefix + dir + "/", IsPrefix: true}
			}
			if ok && e.Key != told && !yield(e, nil) {
				return
			}
			told = e.Key
		}
	}
}

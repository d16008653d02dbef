package fs

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

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
	fsys := &filesystem{cfg: Config{MetadataTTL: time.Hour, AbsentTTL: time.Second}, heads: newHeads()}
	d := &dir{fsys: fsys, bucket: namedBucket{}}
	file := func(nm string) name { return name{name: nm, entry: objstore.Entry{Key: nm}} }
	since := d.ask()
	d.didChange("a")
	d.known.takeWhole([]name{file("a"), file("b"), file("c")}, since, time.Now())
	d.answered()
	d.didChange("c")
	d.didChange("new")
	for nm, want := range map[string]struct{ known, absent bool }{
		"a": {}, "b": {known: true}, "c": {}, "new": {}, "never": {absent: true},
	} {
		if _, ok := d.recall(nm); ok != want.known {
			t.Errorf("%q is known: %v", nm, ok)
		}
		if got := d.lacks(nm); got != want.absent {
			t.Errorf("%q is absent: %v", nm, got)
		}
	}
	d.known.whole = time.Now().Add(-2 * time.Second)
	if d.lacks("never") {
		t.Error("an old listing says what is absent")
	}
	d.known.whole = time.Now()
	if d.beginListing(); d.lacks("never") {
		t.Error("a listing that begins knows what is absent")
	}
}

// TestListingIsWorthItsPages: a long directory is listed in full only when as
// many look-ups come as its pages would cost.
func TestListingIsWorthItsPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &longBucket{names: 2500}
		d := &dir{fsys: &filesystem{cfg: Config{MetadataTTL: time.Hour, AbsentTTL: time.Second}, heads: newHeads()}, bucket: b}
		lookUp := func(n int) {
			for range n {
				d.lacks("absent")
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
		if !d.lacks("absent") {
			t.Error("what was not listed is not absent")
		}
		if _, ok := d.recall("f2499"); !ok {
			t.Error("what was listed is not known")
		}
		time.Sleep(time.Second)
		if d.lacks("absent") {
			t.Error("a listing is believed for longer than it is told to be")
		}
	})
}

// TestAbsenceIsNotBelieved, unless the mount is told to; what a listing has told
// is, and so it is not done again and again.
func TestAbsenceIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &longBucket{names: 10}
		d := &dir{fsys: &filesystem{cfg: Config{MetadataTTL: 10 * time.Second}, heads: newHeads()}, bucket: b}
		for range 100 {
			if d.lacks("absent") {
				t.Fatal("a name is believed to be absent")
			}
			synctest.Wait()
			time.Sleep(90 * time.Millisecond)
		}
		if len(b.limits) != 1 {
			t.Errorf("listed %d times", len(b.limits))
		}
		if _, ok := d.recall("f0009"); !ok {
			t.Error("what was listed is not known")
		}
	})
}

// longBucket lists names, and notes how many it may tell.
type longBucket struct {
	namedBucket
	names  int
	limits []int
}

func (b *longBucket) List(_ context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	b.limits = append(b.limits, q.Limit)
	return func(yield func(objstore.Entry, error) bool) {
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

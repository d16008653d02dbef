package fs

import (
	"testing"
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
	fsys := &filesystem{cfg: Config{MetadataTTL: time.Hour}, heads: newHeads()}
	d := &dir{fsys: fsys, bucket: namedBucket{}}
	file := func(nm string) name { return name{name: nm, entry: objstore.Entry{Key: nm}} }
	since := d.ask()
	d.didChange("a")
	d.known.takeWhole([]name{file("a"), file("b"), file("c")}, since, time.Now(), true)
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
	d.known.whole = time.Now().Add(-2 * revalidateAfter)
	if d.lacks("never") {
		t.Error("an old listing says what is absent")
	}
	d.known.whole = time.Now()
	if d.beginListing(); d.lacks("never") {
		t.Error("a listing that begins knows what is absent")
	}
}

// namedBucket is asked nothing but its name.
type namedBucket struct{ objstore.Bucket }

func (namedBucket) Name() string { return "bucket" }

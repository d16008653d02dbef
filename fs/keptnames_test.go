package fs

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"coffer/objstore"
)

// TestKeptNames come back as they were told.
func TestKeptNames(t *testing.T) {
	var k keptNames
	at := time.Now().Add(-time.Minute)
	for _, l := range []listedName{
		{name: name{name: "dir", isDir: true}, at: at, pos: -1},
		{name: name{name: "empty", entry: objstore.Entry{Key: "p/empty"}}, at: at.Add(time.Second), pos: 0},
		{name: name{name: "full", entry: objstore.Entry{Key: "p/full", Size: 5, SizeKnown: true, StoredSize: 7, ETag: "e", StorageClass: "GLACIER",
			LastModified: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)}}, at: at, pos: 70_000},
		{name: name{name: "unasked", entry: objstore.Entry{Key: "p/unasked"}}, at: time.Now(), pos: -1, unasked: true},
		{name: name{name: "doubtful", isDir: true}, at: at, pos: -1, doubtful: true},
	} {
		k.put(l)
		got, ok := k.get(l.name.name, "p/"+l.name.name)
		if !ok || !got.at.Equal(l.at) {
			t.Errorf("%q was told at %v, not %v", l.name.name, got.at, l.at)
		}
		if got.at = l.at; got != l {
			t.Errorf("got %+v, want %+v", got, l)
		}
	}
	if _, ok := k.get("never", "p/never"); ok {
		t.Error("what was not told is known")
	}
}

// TestNamesAreBounded over all directories of a mount, and those that were listed
// last are remembered.
func TestNamesAreBounded(t *testing.T) {
	first := listDir(t, namedBucket{}, AttributesList)
	fsys := first.fsys
	fsys.names.most = 1000
	told := func(d *dir, n int) {
		t.Helper()
		since := d.ask()
		defer d.answered()
		d.beginListing()
		for i := range n {
			d.remember(name{name: fmt.Sprint(i), entry: objstore.Entry{Key: fmt.Sprint(i)}}, since, time.Now())
			if kept := fsys.names.kept.Load(); kept > 1000 {
				t.Fatalf("%d names are remembered", kept)
			}
		}
	}
	knows := func(d *dir) bool { _, ok := d.recall("0", false); return ok }
	dirs := []*dir{first}
	for range 11 {
		dirs = append(dirs, &dir{fsys: fsys, bucket: first.bucket})
	}
	for _, d := range dirs[:10] {
		told(d, 100)
	}
	told(first, 100)
	told(dirs[10], 100)
	if !knows(first) || knows(dirs[1]) || !knows(dirs[2]) || !knows(dirs[10]) {
		t.Error("not the directory that was listed longest ago has forgotten its names")
	}
	told(dirs[11], 950)
	if knows(first) || knows(dirs[10]) || !knows(dirs[11]) {
		t.Error("the names of a long directory are not those that are remembered")
	}
	told(dirs[11], 3000)
	told(dirs[3], 10)
	fsys.names.forgotten(dirs[3])
	fsys.names.forgotten(dirs[11])
	if kept := fsys.names.kept.Load(); kept != 0 {
		t.Errorf("%d names of directories that are forgotten are remembered", kept)
	}
}

// BenchmarkKeptNames reports what a remembered name costs.
func BenchmarkKeptNames(b *testing.B) {
	const n = 200_000
	for _, full := range []bool{false, true} {
		b.Run(fmt.Sprintf("full=%v", full), func(b *testing.B) {
			var k *knownNames
			var bytes float64
			for b.Loop() {
				k = &knownNames{}
				before := heapInUse()
				for i := range n {
					k.add(name{name: fmt.Sprintf("file-%07d.jpg", i), entry: objstore.Entry{
						Key: fmt.Sprintf("data/set/file-%07d.jpg", i), ETag: objstore.ETag(fmt.Sprintf("%032x", i)), Size: 1, SizeKnown: true, LastModified: time.Now(),
					}}, time.Now(), full)
				}
				bytes = float64(heapInUse()-before) / n
			}
			runtime.KeepAlive(k)
			b.ReportMetric(bytes, "bytes/name")
		})
	}
}

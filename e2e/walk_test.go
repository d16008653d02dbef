package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// putTree stores files in directories that have no marker, by another client.
func putTree(t testing.TB, m *mount, top string, dirs, files int) {
	t.Helper()
	other := client(t, m.env)
	for i := range dirs {
		for k := range files {
			other.put(t, "bucket", fmt.Sprintf("%s/d%04d/f%d", top, i, k), "x")
		}
	}
}

// TestTreesAreListedAhead: programs that walk a tree in order have many directories
// listed at a time, each once.
func TestTreesAreListedAhead(t *testing.T) {
	const dirs, files = 300, 2
	m, s := bucketMount(t)
	putTree(t, m, "tree", dirs, files)
	const delay = 100 * time.Millisecond // so long that a busy machine is not taken for it
	for _, c := range []struct {
		attributes, program string
		lines               int
		inARow              int // listings, at most
	}{
		{"list", "find tree", dirs*(files+1) + 1, 60},
		{"full", "find tree", dirs*(files+1) + 1, 60},
		{"list", "du -a tree", dirs*(files+1) + 1, 60},
		{"list", "ls -R tree | grep f", dirs * files, 60},
		{"list", "cp -rv tree " + t.TempDir(), dirs*(files+1) + 1, 150}, // it reads the files, too
	} {
		m.stop()
		m.start("--attributes", c.attributes)
		s.ClearFaults()
		s.Inject(emulator.Fault{Verb: "ListObjectsV2", Delay: delay})
		s.ResetRequests()
		cmd := exec.Command("sh", "-c", c.program)
		cmd.Dir = m.path("bucket")
		out, err := cmd.Output()
		if n := bytes.Count(out, []byte("\n")); err != nil || n != c.lines {
			t.Errorf("%s: %v, %d lines, want %d\n%.300s", c.program, err, n, c.lines, out)
		}
		var lists []time.Time
		for _, r := range s.Requests() {
			if r.Verb == "ListObjectsV2" {
				lists = append(lists, r.Time)
			}
		}
		if n := len(lists); n > dirs+20 {
			t.Errorf("%s: %d listings of %d directories", c.program, n, dirs)
		}
		// Those that cannot have been asked for before another had come.
		slices.SortFunc(lists, time.Time.Compare)
		inARow, last := 0, time.Time{}
		for _, at := range lists {
			if at.Sub(last) >= delay {
				inARow, last = inARow+1, at
			}
		}
		if t.Logf("%s: %d listings, %d in a row", c.program, len(lists), inARow); inARow > c.inARow {
			t.Errorf("%s: %d listings in a row for %d directories", c.program, inARow, dirs)
		}
	}
}

// TestWalkSeesChanges: what was listed ahead of a walk hides nothing that this mount
// has done since, nor what others did a second ago.
func TestWalkSeesChanges(t *testing.T) {
	m, _ := bucketMount(t)
	putTree(t, m, "tree", 50, 1)
	other := client(t, m.env)
	names := func(path string) string {
		t.Helper()
		return strings.Join(list(t, m.path("bucket", path)), " ")
	}
	walk := func(top string) {
		t.Helper()
		if n := len(list(t, m.path("bucket", top))); n != 50 {
			t.Fatalf("%d directories", n)
		}
		names(top + "/d0000")
		names(top + "/d0001")
		names(top + "/d0002")
		time.Sleep(50 * time.Millisecond) // so that those that follow have come
	}
	expect := func(path, want string) {
		t.Helper()
		if got := names(path); got != want {
			t.Errorf("%s has %q, want %q", path, got, want)
		}
	}
	walk("tree")
	write(t, m.path("bucket", "tree/d0003/new"), "x")
	expect("tree/d0003", "f0 new")
	walk("tree")
	must(t, os.Remove(m.path("bucket", "tree/d0003/f0")))
	expect("tree/d0003", "new")
	walk("tree")
	must(t, os.Mkdir(m.path("bucket", "tree/d0003/sub"), 0o755))
	write(t, m.path("bucket", "tree/d0003/sub/f"), "x")
	expect("tree/d0003", "new sub")
	expect("tree/d0003/sub", "f")
	walk("tree")
	must(t, os.Rename(m.path("bucket", "tree/d0003/new"), m.path("bucket", "tree/d0004/new")))
	expect("tree/d0003", "sub")
	expect("tree/d0004", "f0 new")
	walk("tree")
	must(t, os.Rename(m.path("bucket", "tree"), m.path("bucket", "moved")))
	must(t, os.MkdirAll(m.path("bucket", "tree/d0003"), 0o755))
	expect("tree/d0003", "")
	expect("moved/d0003", "sub")
	walk("moved")
	must(t, os.Rename(m.path("bucket", "moved/d0003"), m.path("bucket", "moved/e")))
	must(t, os.Rename(m.path("bucket", "moved/d0005"), m.path("bucket", "moved/d0003")))
	expect("moved/d0003", "f0")
	walk("moved")
	other.put(t, "bucket", "moved/d0003/theirs", "x")
	time.Sleep(time.Second)
	expect("moved/d0003", "f0 theirs")
}

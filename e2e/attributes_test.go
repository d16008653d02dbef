package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestAttributesSurviveRemount(t *testing.T) {
	m, _ := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "data")
	when := time.Unix(1_600_000_000, 123_456_789)
	must(t, os.Chmod(p, 0o640))
	must(t, os.Chtimes(p, when, when))
	must(t, os.Mkdir(m.path("bucket", "d"), 0o750))
	must(t, os.Chtimes(m.path("bucket", "d"), when, when))
	m.stop()
	m.start()
	st, err := os.Stat(p)
	must(t, err)
	if st.Mode() != 0o640 || !st.ModTime().Equal(when) || st.Size() != 4 {
		t.Errorf("after a remount: mode %v, mtime %v, size %d", st.Mode(), st.ModTime(), st.Size())
	}
	if sys := st.Sys().(*syscall.Stat_t); int(sys.Uid) != os.Getuid() || int(sys.Gid) != os.Getgid() {
		t.Errorf("owner %d:%d", sys.Uid, sys.Gid)
	}
	st, err = os.Stat(m.path("bucket", "d"))
	must(t, err)
	if st.Mode() != fs.ModeDir|0o750 || !st.ModTime().Equal(when) {
		t.Errorf("directory after a remount: mode %v, mtime %v", st.Mode(), st.ModTime())
	}
	if meta := client(t, m.env).meta(t, "bucket", "f"); meta["mtime"] != "1600000000.123456789" {
		t.Errorf("metadata: %v", meta)
	}
}

func TestListAttributesCostNoHead(t *testing.T) {
	m, s := bucketMount(t)
	for i := range 300 {
		write(t, m.path("bucket", fmt.Sprint(i)), "x")
	}
	m.stop()
	m.start("--attributes", "list")
	s.ResetRequests()
	out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput()
	if err != nil || bytes.Count(out, []byte("\n")) != 301 {
		t.Errorf("ls -l: %v\n%.500s", err, out)
	}
	if n := count(s, "HeadObject", ""); n != 0 {
		t.Errorf("ls -l of 300 files cost %d HEADs", n)
	}
}

func TestMtimeIsLastModified(t *testing.T) {
	m, _ := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "data")
	st, err := os.Stat(p)
	must(t, err)
	want := client(t, m.env).modified(t, "bucket", "f")
	if !st.ModTime().Equal(want) {
		t.Errorf("mtime %v, LastModified %v", st.ModTime(), want)
	}
	list(t, m.path("bucket")) // a listing knows milliseconds
	again, err := os.Stat(p)
	must(t, err)
	if !again.ModTime().Equal(want) {
		t.Errorf("after a listing mtime is %v", again.ModTime())
	}
	must(t, os.Chtimes(p, longAgo, longAgo))
	m.stop()
	m.start("--attributes", "list")
	st, err = os.Stat(p)
	must(t, err)
	if want := client(t, m.env).modified(t, "bucket", "f"); !st.ModTime().Equal(want) {
		t.Errorf("with --attributes list mtime is %v, LastModified %v", st.ModTime(), want)
	}
}

func TestAttributesRideAlong(t *testing.T) {
	m, s := bucketMount(t)
	s.ResetRequests()
	f, err := os.Create(m.path("bucket", "f"))
	must(t, err)
	_, err = f.Write([]byte("data"))
	must(t, err)
	must(t, f.Chmod(0o600))
	when := time.Unix(1_500_000_000, 0)
	must(t, os.Chtimes(f.Name(), when, when))
	must(t, f.Close())
	if puts, copies := count(s, "PutObject", "f"), count(s, "CopyObject", "f"); puts != 1 || copies != 0 {
		t.Errorf("%d PUTs and %d copies, want 1 and 0", puts, copies)
	}
	must(t, os.Chmod(f.Name(), 0o640))
	if copies := count(s, "CopyObject", "f"); copies != 1 {
		t.Errorf("a later chmod cost %d copies", copies)
	}
	st, err := os.Stat(f.Name())
	must(t, err)
	if st.Mode() != 0o640 || !st.ModTime().Equal(when) {
		t.Errorf("mode %v, mtime %v", st.Mode(), st.ModTime())
	}
	s.ResetRequests()
	must(t, os.Chmod(f.Name(), 0o640))
	if copies := count(s, "CopyObject", "f"); copies != 0 {
		t.Errorf("a chmod that changes nothing cost %d copies", copies)
	}
}

func TestBucketAttributesAreLocal(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.Chmod(m.path("bucket"), 0o700))
	st, err := os.Stat(m.path("bucket"))
	must(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v after chmod", st.Mode())
	}
	m.stop()
	m.start()
	st, err = os.Stat(m.path("bucket"))
	must(t, err)
	if st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v after a remount", st.Mode())
	}
}

func TestDirectoryTimesAreLocal(t *testing.T) {
	m, _ := bucketMount(t)
	d := m.path("bucket", "d")
	must(t, os.Mkdir(d, 0o755))
	must(t, os.Chtimes(d, longAgo, longAgo))
	must(t, os.Mkdir(m.path("bucket", "d", "sub"), 0o755))
	st, err := os.Stat(d)
	must(t, err)
	if time.Since(st.ModTime()) > time.Minute {
		t.Errorf("mtime %v after mkdir in it", st.ModTime())
	}
	if links := st.Sys().(*syscall.Stat_t).Nlink; links != 1 {
		t.Errorf("%d links", links)
	}
	m.stop()
	m.start()
	st, err = os.Stat(d)
	must(t, err)
	if !st.ModTime().Equal(longAgo) {
		t.Errorf("mtime %v after a remount", st.ModTime())
	}
}

func TestInodeNumbers(t *testing.T) {
	m, _ := bucketMount(t)
	ino := func(p string) uint64 {
		t.Helper()
		var st syscall.Stat_t
		must(t, syscall.Lstat(p, &st))
		return st.Ino
	}
	a, b := m.path("bucket", "a"), m.path("bucket", "b")
	write(t, a, "data")
	must(t, os.Chmod(a, 0o600))
	first := ino(a)
	if first == 0 {
		t.Fatal("no inode number")
	}
	must(t, os.Rename(a, b))
	if got := ino(b); got != first {
		t.Errorf("after a rename %d, before %d", got, first)
	}
	write(t, a, "another")
	if got := ino(a); got == first {
		t.Error("a new file has the number of the one that was renamed")
	}
	m.stop()
	m.start()
	x := ino(b)
	m.stop()
	m.start()
	if got := ino(b); got != x {
		t.Errorf("after a remount %d, before %d", got, x)
	}
}

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"coffer/objstore/emulator"
)

func TestMountWithoutListBuckets(t *testing.T) {
	s := startEmulator(t, "aws")
	m := mountStore(t, s.Env())
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	s.Inject(emulator.Fault{Verb: "ListBuckets", Status: 403, Code: "AccessDenied"})
	m.stop()
	m.start()
	write(t, m.path("bucket", "f"), "data")
	want(t, m.path("bucket", "f"), "data")
	if got := list(t, m.dir); !slices.Equal(got, []string{"bucket"}) {
		t.Errorf("the root shows %q, want the bucket in use", got)
	}
	_, err := os.Stat(m.path("no-such-bucket"))
	wantErrno(t, "a bucket that does not exist", err, syscall.ENOENT)
}

func TestBucketRmdir(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	wantErrno(t, "rmdir", os.Remove(m.path("bucket")), syscall.ENOTEMPTY)
	must(t, os.Remove(m.path("bucket", "f")))
	must(t, os.Remove(m.path("bucket")))
	absent(t, m.path("bucket"))
	if count(s, "DeleteBucket", "") == 0 {
		t.Error("no bucket was deleted")
	}
}

func TestDirectoryLivesUntilRmdir(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	other.put(t, "bucket", "implicit/deep/file", "data") // made by a program without markers
	must(t, os.Remove(m.path("bucket", "implicit", "deep", "file")))
	if got := list(t, m.path("bucket", "implicit")); !slices.Equal(got, []string{"deep"}) {
		t.Errorf("after the last file went: %q", got)
	}
	must(t, os.Remove(m.path("bucket", "implicit", "deep")))
	if got := list(t, m.path("bucket", "implicit")); len(got) != 0 {
		t.Errorf("after rmdir: %q", got)
	}
	must(t, os.Mkdir(m.path("bucket", "made"), 0o755))
	m.stop()
	m.start()
	if got := list(t, m.path("bucket")); !slices.Equal(got, []string{"implicit", "made"}) {
		t.Errorf("after a remount: %q", got)
	}
	write(t, m.path("bucket", "made", "f"), "x")
	wantErrno(t, "rmdir of a directory with a file", os.Remove(m.path("bucket", "made")), syscall.ENOTEMPTY)
}

func TestShadowedObject(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	other.put(t, "bucket", "x", "object")
	other.put(t, "bucket", "x/y", "below")
	if got := list(t, m.path("bucket")); !slices.Equal(got, []string{"x"}) {
		t.Errorf("names: %q, want x once", got)
	}
	want(t, m.path("bucket", "x", "y"), "below")
	if n := strings.Count(m.log.String(), "hidden"); n != 1 {
		t.Errorf("%d log lines about the hidden object, want 1", n)
	}
}

func TestHardLink(t *testing.T) {
	m, _ := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	wantErrno(t, "link", os.Link(m.path("bucket", "f"), m.path("bucket", "g")), syscall.EPERM)
}

func TestSymlink(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.Symlink("../some/where", m.path("bucket", "ln")))
	m.stop()
	m.start()
	if got, err := os.Readlink(m.path("bucket", "ln")); err != nil || got != "../some/where" {
		t.Errorf("readlink after a remount: %q, %v", got, err)
	}
	entries, err := os.ReadDir(m.path("bucket"))
	must(t, err)
	if len(entries) != 1 || entries[0].Type() != fs.ModeSymlink {
		t.Errorf("the directory shows %v", entries)
	}
	must(t, os.Rename(m.path("bucket", "ln"), m.path("bucket", "ln2")))
	if got, err := os.Readlink(m.path("bucket", "ln2")); err != nil || got != "../some/where" {
		t.Errorf("readlink after a rename: %q, %v", got, err)
	}
	meta := client(t, m.env).meta(t, "bucket", "ln2")
	if meta["mode"] != fmt.Sprint(syscall.S_IFLNK|0o777) {
		t.Errorf("mode in the metadata: %q", meta["mode"])
	}
}

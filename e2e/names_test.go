package e2e

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// TestTmpfile: a file without a name is nowhere, and linkat(2) stores it.
func TestTmpfile(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, m.env)
	open := func() *os.File {
		t.Helper()
		f, err := os.OpenFile(m.path("bucket"), unix.O_TMPFILE|os.O_RDWR, 0o640)
		must(t, err)
		return f
	}
	link := func(f *os.File, name string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, m.path("bucket", name), unix.AT_SYMLINK_FOLLOW)
	}
	for _, size := range []int{0, 1000, 9 << 20} {
		data := random(t, size)
		f := open()
		if names := list(t, m.path("bucket")); size == 0 && len(names) != 0 {
			t.Errorf("it has a name: %v", names)
		}
		_, err := f.Write(data)
		must(t, err)
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		must(t, err)
		if !bytes.Equal(got, data) {
			t.Errorf("%d other bytes are read back", len(got))
		}
		must(t, f.Sync())
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink != 0 || st.Size != int64(size) || st.Mode&0o777 != 0o640 {
			t.Errorf("nlink %d, size %d, mode %o", st.Nlink, st.Size, st.Mode)
		}
		if keys := other.keys(t, "bucket"); size == 0 && len(keys) != 0 {
			t.Errorf("the store has %v", keys)
		}
		name := fmt.Sprint("linked-", size)
		must(t, link(f, name))
		if other.get(t, "bucket", name) != string(data) {
			t.Error("the store has other bytes")
		}
		wantErrno(t, "a second link", link(f, "again"), syscall.EPERM)
		_, err = f.WriteAt([]byte("more"), int64(size))
		must(t, err)
		must(t, f.Close())
		if other.get(t, "bucket", name) != string(data)+"more" {
			t.Error("what was written after the link is not stored")
		}
	}
	f := open()
	wantErrno(t, "a link over another file", link(f, "linked-0"), syscall.EEXIST)
	other.put(t, "bucket", "theirs", "x")
	_, err := f.WriteString("mine")
	must(t, err)
	if err := link(f, "theirs"); err == nil {
		t.Error("a link over what another client has just made succeeded")
	}
	s.Inject(emulator.Fault{Verb: "PutObject", Count: 1, Code: "AccessDenied"})
	wantErrno(t, "a link that cannot be stored", link(f, "refused"), syscall.EACCES)
	wantErrno(t, "a link of what the first could not store", link(f, "another"), syscall.EACCES)
	absent(t, m.path("bucket", "another"))
	must(t, open().Close())
	_ = f.Close()
	if got := other.get(t, "bucket", "theirs"); got != "x" {
		t.Errorf("the store has %q", got)
	}
	for _, r := range s.Requests() {
		if strings.Contains(r.Key, "tmpfile-") {
			t.Errorf("%s of %s", r.Verb, r.Key)
		}
	}
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

// TestSymlinkIsReadOnce: a path that goes through a link costs no request each time;
// what somebody else made of the link is met all the same.
func TestSymlinkIsReadOnce(t *testing.T) {
	m, s := bucketMount(t, "--metadata-ttl", "1s")
	other := mountStore(t, s.Env())
	ln := m.path("bucket", "ln")
	must(t, os.Symlink("one", ln))
	want := func(target string) {
		t.Helper()
		if got, err := os.Readlink(ln); err != nil || got != target {
			t.Errorf("readlink: %q, %v, want %q", got, err, target)
		}
	}
	want("one")
	if n := count(s, "GetObject", "ln"); n != 0 {
		t.Errorf("a link of one's own was asked for %d times", n)
	}
	for _, target := range []string{"two", "the third"} {
		must(t, os.Remove(other.path("bucket", "ln")))
		must(t, os.Symlink(target, other.path("bucket", "ln")))
		time.Sleep(1100 * time.Millisecond)
		s.ResetRequests()
		for range 10 {
			want(target)
		}
		if n := count(s, "GetObject", "ln"); n != 1 {
			t.Errorf("the target was asked for %d times", n)
		}
	}

	// It is replaced between a look-up and the first reading.
	must(t, os.Remove(other.path("bucket", "ln")))
	must(t, os.Symlink("four", other.path("bucket", "ln")))
	time.Sleep(1100 * time.Millisecond)
	if _, err := os.Lstat(ln); err != nil {
		t.Fatal(err)
	}
	must(t, os.Remove(other.path("bucket", "ln")))
	must(t, os.Symlink("five", other.path("bucket", "ln")))
	want("five")
}

// TestSpecialFiles makes what is no regular file, uses it, and finds it again
// after a remount.
func TestSpecialFiles(t *testing.T) {
	m, _ := bucketMount(t)
	d := m.path("bucket")
	must(t, syscall.Mkfifo(d+"/fifo", 0o640))
	l, err := net.Listen("unix", d+"/socket")
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	defer l.Close()

	talk := func(what string) {
		t.Helper()
		got := make(chan string, 1)
		go func() {
			data, _ := os.ReadFile(d + "/fifo")
			got <- string(data)
		}()
		must(t, os.WriteFile(d+"/fifo", []byte(what), 0))
		if g := <-got; g != what {
			t.Errorf("the fifo gave %q, want %q", g, what)
		}
	}
	talk("through a fifo")
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	c, err := net.Dial("unix", d+"/socket")
	must(t, err)
	c.Close()
	must(t, <-accepted)
	must(t, l.Close()) // who listens keeps the mount busy
	want := map[string]fs.FileMode{"fifo2": fs.ModeNamedPipe | 0o600, "socket": fs.ModeSocket | 0o755}
	if os.Getuid() == 0 { // as everywhere, only root makes device nodes
		must(t, syscall.Mknod(d+"/null", syscall.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, syscall.Mknod(d+"/disk", syscall.S_IFBLK|0o600, int(unix.Mkdev(259, 1000))))
		want["null"], want["disk"] = fs.ModeDevice|fs.ModeCharDevice|0o644, fs.ModeDevice|0o600
	}
	must(t, os.Chmod(d+"/fifo", 0o600))
	must(t, os.Rename(d+"/fifo", d+"/fifo2"))
	old := time.Unix(1e9, 0)
	must(t, os.Chtimes(d+"/fifo2", old, old))
	m.stop()
	m.start()
	entries, err := os.ReadDir(d)
	must(t, err)
	if len(entries) != len(want) {
		t.Errorf("the directory shows %v, want %v", entries, want)
	}
	for _, e := range entries {
		st, err := e.Info()
		must(t, err)
		if st.Mode() != want[e.Name()] || st.Size() != 0 {
			t.Errorf("%s has mode %v and size %d, want %v", e.Name(), st.Mode(), st.Size(), want[e.Name()])
		}
	}
	for name, rdev := range map[string]uint64{"null": unix.Mkdev(1, 3), "disk": unix.Mkdev(259, 1000)} {
		if _, made := want[name]; made {
			st, err := os.Stat(d + "/" + name)
			must(t, err)
			if got := st.Sys().(*syscall.Stat_t).Rdev; got != rdev {
				t.Errorf("%s is device %#x, want %#x", name, got, rdev)
			}
		}
	}
	must(t, os.Rename(d+"/fifo2", d+"/fifo"))
	if st, err := os.Stat(d + "/fifo"); err != nil || !st.ModTime().Equal(old) {
		t.Errorf("time of the fifo: %v, %v", st.ModTime(), err)
	}
	talk("and after a remount")
	copied := t.TempDir()
	shell(t, nil, `cp -a "$SRC/." "$DST/" && cp -a "$DST/fifo" "$SRC/copy"`, d, copied)
	if st, err := os.Lstat(d + "/copy"); err != nil || st.Mode() != fs.ModeNamedPipe|0o600 {
		t.Errorf("cp -a made %v (%v)", st.Mode(), err)
	}
	for _, name := range []string{"fifo", "copy", "socket"} {
		must(t, os.Remove(d+"/"+name))
	}
	m.stop()
	m.start("--attributes", "list")
	if err := syscall.Mkfifo(d+"/fifo", 0o600); err != syscall.EPERM {
		t.Errorf("mkfifo on a mount without metadata: %v", err)
	}
}

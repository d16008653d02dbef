package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

// What a mount knows, what the kernel has cached, and what the store has, when
// they come apart.

func TestFailedCommitLeavesNoPages(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	old := bytes.Repeat([]byte("old."), 2048)
	must(t, os.WriteFile(p, old, 0o644))
	want(t, p, string(old)) // now in the page cache
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Status: 403, Code: "AccessDenied"})
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(bytes.Repeat([]byte("new!"), 2048)) // whole pages, same length
	must(t, err)
	wantErrno(t, "close", f.Close(), syscall.EACCES)
	s.ClearFaults()
	want(t, p, string(old))
}

func TestOpenLearnsSizeOfOthersVersion(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	p := m.path("bucket", "f")
	other.put(t, "bucket", "f", "0123456789")
	want(t, p, "0123456789") // and the kernel knows the size
	longer := "0123456789abcdefghij"
	other.put(t, "bucket", "f", longer)
	time.Sleep(1100 * time.Millisecond)
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write([]byte("+"))
	must(t, err)
	must(t, f.Close())
	if got := other.get(t, "bucket", "f"); got != longer+"+" {
		t.Errorf("after an append the store has %q", got)
	}
	other.put(t, "bucket", "f", longer+longer)
	time.Sleep(1100 * time.Millisecond)
	want(t, p, longer+longer)
}

func TestListingDoesNotHideNewVersion(t *testing.T) {
	for _, mode := range []string{"full", "list"} {
		t.Run(mode, func(t *testing.T) {
			m, _ := bucketMount(t, "--attributes", mode, "--metadata-ttl", "1h")
			other := client(t, m.env)
			other.put(t, "bucket", "f", "old")
			list(t, m.path("bucket")) // names and versions are remembered
			other.put(t, "bucket", "f", "new version")
			time.Sleep(1100 * time.Millisecond)
			want(t, m.path("bucket", "f"), "new version")
		})
	}
}

func TestCreateOverRemotelyRemoved(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	p := m.path("bucket", "f")
	write(t, p, "old")
	want(t, p, "old")
	must(t, other.c.RemoveObject(t.Context(), "bucket", "f", minio.RemoveObjectOptions{}))
	time.Sleep(1100 * time.Millisecond)
	write(t, p, "new") // the kernel still has the name
	want(t, p, "new")
	if got := other.get(t, "bucket", "f"); got != "new" {
		t.Errorf("the store has %q", got)
	}
}

func TestFailedTruncateIsNotForEver(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "0123456789")
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Status: 403, Code: "AccessDenied"})
	wantErrno(t, "truncate", os.Truncate(p, 5), syscall.EACCES)
	s.ClearFaults()
	want(t, p, "0123456789")
	must(t, os.Truncate(p, 5))
	want(t, p, "01234")
}

func TestAttributesOfFailedFile(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Status: 403, Code: "AccessDenied"})
	wantErrno(t, "create", os.WriteFile(p, []byte("data"), 0o644), syscall.EACCES)
	s.ClearFaults()
	if err := os.Chmod(p, 0o600); err == nil {
		t.Error("chmod of a file that was never stored succeeds")
	}
	absent(t, p)
	if got := list(t, m.path("bucket")); len(got) != 0 {
		t.Errorf("the directory shows %q", got)
	}
	write(t, p, "data")
	want(t, p, "data")
}

func TestCloseOfIdleHandlePublishesNothing(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	f, err := os.Create(p)
	must(t, err)
	data := random(t, 9<<20)
	_, err = f.Write(data[:5<<20])
	must(t, err)
	idle, err := os.OpenFile(p, os.O_WRONLY, 0)
	must(t, err)
	must(t, idle.Close())
	for _, r := range s.Requests() {
		if r.Key == "f" && (r.Verb == "PutObject" || r.Verb == "CompleteMultipartUpload") {
			t.Errorf("%s by the close of a handle that wrote nothing", r.Verb)
		}
	}
	_, err = f.Write(data[5<<20:])
	must(t, err)
	must(t, f.Close())
	want(t, p, string(data))
}

func TestRenameWithoutDelete(t *testing.T) {
	m, s := bucketMount(t)
	a, b := m.path("bucket", "a"), m.path("bucket", "b")
	write(t, a, "data")
	deny := emulator.Fault{Verb: "DeleteObject", KeyPattern: "a", Status: 403, Code: "AccessDenied"}
	s.Inject(deny)
	wantErrno(t, "rename", os.Rename(a, b), syscall.EACCES)
	want(t, a, "data")
	absent(t, b)
	write(t, a, "still a")
	if got := client(t, m.env).get(t, "bucket", "a"); got != "still a" {
		t.Errorf("what was written to a after the failure: %q", got)
	}
	write(t, b, "target")
	wantErrno(t, "rename over a file", os.Rename(a, b), syscall.EACCES)
	want(t, a, "still a")
	want(t, b, "still a") // the copy was made; nothing is lost but the target
	write(t, b, "b again")
	if got := client(t, m.env).get(t, "bucket", "b"); got != "b again" {
		t.Errorf("what was written to b after the failure: %q", got)
	}
}

func TestFailedDirectoryRenameKeepsTarget(t *testing.T) {
	m, s := bucketMount(t)
	for _, d := range []string{"a", "b"} {
		must(t, os.Mkdir(m.path("bucket", d), 0o755))
	}
	for i := range 5 {
		write(t, m.path("bucket", "a", fmt.Sprint(i)), "x")
	}
	s.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: "b/3", Status: 403, Code: "AccessDenied"})
	wantErrno(t, "rename", syscall.Rename(m.path("bucket", "a"), m.path("bucket", "b")), syscall.EACCES)
	s.ClearFaults()
	m.stop()
	m.start()
	if got := list(t, m.path("bucket")); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("after the failure: %q", got)
	}
	if got := list(t, m.path("bucket", "b")); len(got) != 0 {
		t.Errorf("copies were left: %q", got)
	}
}

func TestRmdirOfDirectoryWithUnlinkedFile(t *testing.T) {
	m, _ := bucketMount(t)
	d := m.path("bucket", "d")
	must(t, os.Mkdir(d, 0o755))
	write(t, d+"/f", "data")
	write(t, d+"/g", "data")
	f, err := os.Open(d + "/f")
	must(t, err)
	defer f.Close()
	must(t, os.Remove(d+"/f"))
	wantErrno(t, "rmdir with another file", syscall.Rmdir(d), syscall.ENOTEMPTY)
	buf := make([]byte, 4)
	if n, err := f.ReadAt(buf, 0); err != nil || string(buf[:n]) != "data" {
		t.Errorf("the unlinked file after a refused rmdir: %q, %v", buf[:n], err)
	}
	must(t, os.Remove(d+"/g"))
	must(t, os.Remove(d))
	absent(t, d)
}

func TestUnlinkRacesWithClose(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, m.env)
	for i := range 200 {
		p := m.path("bucket", fmt.Sprint(i))
		write(t, p, "data")
		f, err := os.Open(p)
		must(t, err)
		must(t, f.Close()) // its RELEASE comes when it comes
		must(t, os.Remove(p))
		if n := count(s, "DeleteObject", fmt.Sprint(i)); n != 1 {
			t.Fatalf("%d DELETEs when unlink number %d returned", n, i)
		}
		// Nor does a rename find open what it replaces.
		write(t, p, "old")
		write(t, p+".new", "new")
		must(t, os.Rename(p+".new", p))
		must(t, os.Remove(p))
	}
	for _, r := range s.Requests() {
		if strings.Contains(r.Key, "gone-") {
			t.Fatalf("%s of %s: nobody had it open", r.Verb, r.Key)
		}
	}
	if keys := other.keys(t, "bucket"); len(keys) > 0 {
		t.Errorf("objects of unlinked files stay: %v", keys)
	}
}

func TestFullScratchLosesNothingUnsaid(t *testing.T) {
	needRoot(t, "only root can mount a small tmpfs as scratch directory")
	scratch := t.TempDir()
	must(t, syscall.Mount("tmpfs", scratch, "tmpfs", 0, "size=8m"))
	defer syscall.Unmount(scratch, syscall.MNT_DETACH)
	m, _ := bucketMount(t, "--scratch-dir", scratch)
	p := m.path("bucket", "f")
	write(t, p, "old")
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	data := random(t, 1<<20)
	var wrote int64
	for off := int64(1 << 20); ; off += 1 << 20 { // not in order: staged
		if off > 64<<20 {
			t.Fatal("64 MiB fit into a scratch directory of 8")
		}
		n, err := f.WriteAt(data, off)
		if err != nil {
			wantErrno(t, "write", err, syscall.ENOSPC)
			break
		}
		wrote = off + int64(n)
	}
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, wrote-1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was written before: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("close: %v, want what did fit to be stored", err)
	}
	st, err := os.Stat(p)
	must(t, err)
	if st.Size() < wrote {
		t.Errorf("%d bytes are stored of %d that were written", st.Size(), wrote)
	}
	g, err := os.Open(p)
	must(t, err)
	defer g.Close()
	if _, err := g.ReadAt(got, wrote-1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after close: %v", err)
	}
	if _, err := g.ReadAt(got[:3], 0); err != nil || string(got[:3]) != "old" {
		t.Errorf("what was there before: %q, %v", got[:3], err)
	}
}

// TestRemovedElsewhere: an open file that somebody else removes is stale, as one
// that somebody else replaces.
func TestRemovedElsewhere(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	p := m.path("bucket", "f")
	write(t, p, "0123456789")
	m.stop() // nothing of it is cached
	m.start()
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	g, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	must(t, other.c.RemoveObject(t.Context(), "bucket", "f", minio.RemoveObjectOptions{}))
	_, err = f.Read(make([]byte, 1))
	wantErrno(t, "read", err, syscall.ESTALE)
	_, err = f.WriteAt([]byte("X"), 5)
	must(t, err)
	wantErrno(t, "close of a part", f.Close(), syscall.ESTALE)
	wantErrno(t, "close of what had a part in it", g.Close(), syscall.ESTALE)
	if keys := other.keys(t, "bucket"); len(keys) != 0 {
		t.Errorf("the bucket has %v", keys)
	}
}

// TestStaleFileIsNotChanged: once the mount knows that there is another version
// every change of the old one is refused, not only its commit.
func TestStaleFileIsNotChanged(t *testing.T) {
	m, _ := bucketMount(t, "--metadata-ttl", "0s")
	p := m.path("bucket", "f")
	write(t, p, "0123456789")
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	client(t, m.env).put(t, "bucket", "f", "theirs")
	want(t, p, "theirs")
	_, err = f.Write([]byte("ours"))
	wantErrno(t, "write", err, syscall.ESTALE)
	wantErrno(t, "ftruncate", f.Truncate(3), syscall.ESTALE)
	wantErrno(t, "fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 100), syscall.ESTALE)
	must(t, f.Close())
	want(t, p, "theirs")
}

// TestUnlinkSparesOthersVersion: the object of a file that was unlinked and is
// open is deleted later; by then the name may be somebody else's.
func TestUnlinkSparesOthersVersion(t *testing.T) {
	for _, what := range []string{"at the last close", "when the name is used again"} {
		t.Run(what, func(t *testing.T) {
			m, _ := bucketMount(t)
			other := client(t, m.env)
			p := m.path("bucket", "f")
			write(t, p, "ours")
			f, err := os.Open(p)
			must(t, err)
			defer f.Close()
			must(t, os.Remove(p))
			other.put(t, "bucket", "f", "theirs")
			if what == "at the last close" {
				must(t, f.Close())
				for deadline := time.Now().Add(10 * time.Second); len(list(t, m.path("bucket"))) == 0 && time.Now().Before(deadline); {
					time.Sleep(10 * time.Millisecond)
				}
				want(t, p, "theirs")
			} else {
				wantErrno(t, "a new file", os.WriteFile(p, []byte("new"), 0o644), syscall.EEXIST)
			}
			if got := other.get(t, "bucket", "f"); got != "theirs" {
				t.Errorf("the store has %q", got)
			}
		})
	}
}

// TestFailedCreateIsNotOthersFile: who could not create a file does not find
// that of the winner under the same descriptor.
func TestFailedCreateIsNotOthersFile(t *testing.T) {
	m, _ := bucketMount(t, "--metadata-ttl", "0s")
	p := m.path("bucket", "f")
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("ours")
	must(t, err)
	client(t, m.env).put(t, "bucket", "f", "theirs")
	wantErrno(t, "fsync", f.Sync(), syscall.EEXIST)
	want(t, p, "theirs")
	_, err = f.ReadAt(make([]byte, 10), 0)
	wantErrno(t, "read", err, syscall.ESTALE)
}

// TestManyLookupsAreOneListing unpacks an archive, so to say, and reads it
// again after a remount.
func TestManyLookupsAreOneListing(t *testing.T) {
	m, s := bucketMount(t, "--absent-ttl", "1s")
	must(t, os.Mkdir(m.path("bucket", "d"), 0o755))
	const files = 300
	name := func(i int) string { return m.path("bucket", "d", fmt.Sprint("f", i)) }
	questions := func() int {
		return count(s, "HeadObject", "") + count(s, "ListObjectsV2", "") + count(s, "ListObjects", "")
	}
	s.ResetRequests()
	for i := range files {
		write(t, name(i), fmt.Sprint(i))
	}
	if n := count(s, "PutObject", ""); n != files {
		t.Errorf("%d new files cost %d PUTs", files, n)
	}
	if n := questions(); n > files/2 {
		t.Errorf("%d new files cost %d questions", files, n)
	}
	m.stop()
	m.start("--absent-ttl", "1s")
	s.ResetRequests()
	for i := range files {
		want(t, name(i), fmt.Sprint(i))
	}
	if n := questions(); n > files+files/2 {
		t.Errorf("reading %d files cost %d questions, where a HEAD each is due", files, n)
	}
}

// TestAbsentNamesAreBelieved as long as the mount is told to: a directory is
// changed, here and elsewhere, while its absent names are asked for all the time.
func TestAbsentNamesAreBelieved(t *testing.T) {
	m, s := bucketMount(t, "--absent-ttl", "1s")
	other := client(t, m.env)
	must(t, os.Mkdir(m.path("bucket", "d"), 0o755))
	ask := func() {
		for i := range 50 {
			absent(t, m.path("bucket", "d", fmt.Sprint("none", i)))
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		ask()
		s.ResetRequests()
		if ask(); len(s.Requests()) == 0 {
			break // a listing answers by now
		}
		if time.Now().After(deadline) {
			t.Fatal("no listing ever answers")
		}
	}
	for i := range 20 {
		p, q := m.path("bucket", "d", fmt.Sprint("own", i)), m.path("bucket", "d", fmt.Sprint("moved", i))
		absent(t, p)
		write(t, p, "own")
		ask()
		want(t, p, "own")
		must(t, os.Rename(p, q))
		absent(t, p)
		want(t, q, "own")
		must(t, os.Remove(q))
		absent(t, q)
		must(t, os.Mkdir(p, 0o755))
		ask()
		if _, err := os.Stat(p); err != nil {
			t.Errorf("a directory made here: %v", err)
		}
	}
	ask()
	other.put(t, "bucket", "d/theirs", "theirs")
	for until := time.Now().Add(1100 * time.Millisecond); time.Now().Before(until); {
		ask()
	}
	want(t, m.path("bucket", "d", "theirs"), "theirs")
}

// TestOthersNewFilesAreThere at once, and what they make of directories and
// links, in a directory in which this mount makes thousands of files; and so is
// what it does itself.
func TestOthersNewFilesAreThere(t *testing.T) {
	m, s := bucketMount(t)
	must(t, os.Mkdir(m.path("bucket", "d"), 0o755))
	b := mountStore(t, s.Env())
	here := func(nm ...string) string { return m.path(append([]string{"bucket", "d"}, nm...)...) }
	there := func(nm ...string) string { return b.path(append([]string{"bucket", "d"}, nm...)...) }
	other := client(t, s.Env())
	for i := range 8 {
		other.put(t, "bucket", fmt.Sprintf("d/implicit%d/f", i), "theirs") // before the first listing
	}
	s.ResetRequests()
	var made atomic.Int32
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 20_000 {
			select {
			case <-stop:
				return
			default:
			}
			if err := os.WriteFile(here(fmt.Sprint("own", i)), []byte("own"), 0o644); err != nil {
				t.Error(err)
				return
			}
			made.Add(1)
		}
	}()
	for made.Load() < 300 { // it is a burst by now
		time.Sleep(time.Millisecond)
	}
	s.ResetRequests()
	before := made.Load()
	for i := range 8 {
		f, d, l, r, mine := fmt.Sprint("file", i), fmt.Sprint("dir", i), fmt.Sprint("link", i), fmt.Sprint("renamed", i), fmt.Sprint("mine", i)
		implicit, moved := fmt.Sprint("implicit", i), fmt.Sprint("moved", i)
		for _, nm := range []string{f, d, l, r, mine, moved} {
			absent(t, here(nm))
		}
		write(t, there(f), "theirs")
		want(t, here(f), "theirs")
		must(t, os.Mkdir(there(d), 0o755))
		if st, err := os.Stat(here(d)); err != nil || !st.IsDir() {
			t.Errorf("a directory of the other mount: %v", err)
		}
		must(t, os.Symlink(f, there(l)))
		want(t, here(l), "theirs")
		must(t, os.Rename(there(d), there(r)))
		if _, err := os.Stat(here(r)); err != nil {
			t.Errorf("a directory that the other mount renamed: %v", err)
		}
		must(t, os.Rename(there(implicit), there(moved)))
		want(t, here(moved, "f"), "theirs")
		must(t, os.Mkdir(here(mine), 0o755))
		write(t, here(mine, "f"), "own")
		must(t, os.Rename(here(mine), here(mine+"b")))
		absent(t, here(mine))
		want(t, here(mine+"b", "f"), "own")
		must(t, os.Remove(here(mine+"b", "f")))
		must(t, os.Remove(here(mine+"b")))
		absent(t, here(mine+"b"))
		write(t, here(mine+"b"), "a file by now")
		want(t, here(mine+"b"), "a file by now")
	}
	files := int(made.Load() - before)
	markers := 0
	for _, r := range s.Requests() {
		if r.Verb == "HeadObject" && strings.HasPrefix(r.Key, "d/own") && strings.HasSuffix(r.Key, "/") {
			markers++
		}
	}
	close(stop)
	<-done
	if files < 20 || markers < files*9/10 {
		t.Errorf("%d files meanwhile, and %d markers asked for: this was no burst", files, markers)
	}
}

// TestUnmarkedDirectoriesOfOthers, which come to be because a key is stored below
// their name, are there after metadata-ttl at the latest, however many names are
// looked up beside them, and at once where few are.
func TestUnmarkedDirectoriesOfOthers(t *testing.T) {
	m, _ := bucketMount(t, "--metadata-ttl", "2s")
	other := client(t, m.env)
	absent(t, m.path("bucket", "few"))
	other.put(t, "bucket", "few/f", "theirs")
	want(t, m.path("bucket", "few", "f"), "theirs")
	ask := func() {
		for i := range 50 {
			absent(t, m.path("bucket", fmt.Sprint("none", i)))
		}
	}
	ask()
	for i := range 3 {
		d := fmt.Sprint("dir", i)
		stored := time.Now()
		other.put(t, "bucket", d+"/f", "theirs")
		for {
			if _, err := os.Stat(m.path("bucket", d)); err == nil {
				break
			}
			if time.Since(stored) > 2*time.Second+500*time.Millisecond {
				t.Fatalf("not there after %v", time.Since(stored))
			}
			ask()
		}
		want(t, m.path("bucket", d, "f"), "theirs")
	}
}

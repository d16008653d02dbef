package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

func TestUnlink(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	must(t, os.Remove(m.path("bucket", "f")))
	absent(t, m.path("bucket", "f"))
	if count(s, "DeleteObject", "f") != 1 {
		t.Error("the object was not deleted")
	}
	wantErrno(t, "unlink of what is absent", syscall.Unlink(m.path("bucket", "f")), syscall.ENOENT)
}

// TestRemovalAsksForNoAttributes of files that no metadata could make anything
// else.
func TestRemovalAsksForNoAttributes(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, m.env)
	const files = 300
	for i := range files {
		other.put(t, "bucket", fmt.Sprint("dir/", i), strings.Repeat("x", 4096))
	}
	s.ResetRequests()
	must(t, os.RemoveAll(m.path("bucket", "dir")))
	if n := count(s, "DeleteObject", ""); n < files {
		t.Errorf("%d requests to delete %d files", n, files)
	}
	if n := count(s, "HeadObject", ""); n > 5 {
		t.Errorf("%d HEADs to delete %d files", n, files)
	}
	absent(t, m.path("bucket", "dir"))
}

// TestAttributesAfterUnlink: a file that is looked up where the last one was
// unlinked is what it is, whatever is done to it.
func TestAttributesAfterUnlink(t *testing.T) {
	needRoot(t, "files of others are changed")
	m, _ := bucketMount(t)
	other := client(t, m.env)
	data := strings.Repeat("x", 5000)
	uses := map[string]func(p string) error{
		"stat":     func(string) error { return nil },
		"chmod":    func(p string) error { return os.Chmod(p, 0o640) },
		"chown":    func(p string) error { return os.Chown(p, 5, 7) },
		"utimes":   func(p string) error { return os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)) },
		"truncate": func(p string) error { return os.Truncate(p, 5000) },
		"open":     func(p string) error { want(t, p, data); return nil },
		"append":   func(p string) error { return change(p, os.O_WRONLY|os.O_APPEND, 0, -1) },
		"rename":   func(p string) error { return errors.Join(os.Rename(p, p+"2"), os.Rename(p+"2", p)) },
		"getxattr": func(p string) error {
			_, err := unix.Getxattr(p, "user.s3.etag", make([]byte, 100))
			return err
		},
		"setxattr": func(p string) error { return unix.Setxattr(p, "user.own", []byte("x"), 0) },
	}
	for use := range uses {
		other.put(t, "bucket", "d/"+use+"-before", data)
		other.putWith(t, "bucket", "d/"+use, data, "text/plain", map[string]string{"mode": "33184", "uid": "5", "gid": "7"})
	}
	list(t, m.path("bucket", "d"))
	for use, do := range uses {
		p := m.path("bucket", "d", use)
		must(t, os.Remove(p+"-before"))
		if err := do(p); err != nil {
			t.Errorf("%s: %v", use, err)
		}
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		if st.Mode != syscall.S_IFREG|0o640 || st.Uid != 5 || st.Gid != 7 || st.Size != 5000 {
			t.Errorf("after %s: mode %o, owner %d:%d, %d bytes", use, st.Mode, st.Uid, st.Gid, st.Size)
		}
		if o := other.stat(t, "bucket", "d/"+use); o.ContentType != "text/plain" {
			t.Errorf("after %s its type is %q", use, o.ContentType)
		}
	}
}

// TestUnlinkBatched: few requests, and nobody who asks finds what is gone.
func TestUnlinkBatched(t *testing.T) {
	m, s := bucketMount(t, "--unlink", "batched")
	other := client(t, m.env)
	const files = 1500
	dir := m.path("bucket", "dir")
	must(t, os.Mkdir(dir, 0o755))
	for i := range files {
		other.put(t, "bucket", fmt.Sprint("dir/", i), "x")
	}
	write(t, filepath.Join(dir, "own"), "x")
	must(t, os.RemoveAll(dir))
	if keys := other.keys(t, "bucket"); len(keys) != 0 {
		t.Errorf("after rmdir the store has %d objects", len(keys))
	}
	if n, most := count(s, "DeleteObject", "")+count(s, "DeleteObjects", ""), files/10; n > most {
		t.Errorf("%d requests to delete %d files", n, files)
	}

	// A name is gone at once, for listings too, and can be used again at once.
	must(t, os.Mkdir(dir, 0o755))
	f := filepath.Join(dir, "f")
	for i := range 20 {
		text := fmt.Sprint("version ", i)
		write(t, f, text)
		want(t, f, text)
		must(t, os.Remove(f))
		absent(t, f)
		if names := list(t, dir); len(names) != 0 {
			t.Errorf("the directory shows %v", names)
		}
	}
	// A file that is open stays readable, batch or not.
	write(t, f, "open")
	o, err := os.Open(f)
	must(t, err)
	must(t, os.Remove(f))
	time.Sleep(150 * time.Millisecond)
	got, err := io.ReadAll(o)
	must(t, err)
	must(t, o.Close())
	if string(got) != "open" {
		t.Errorf("read back %q", got)
	}
	// Renaming a directory does not bring back what was removed from it.
	write(t, f, "gone")
	write(t, filepath.Join(dir, "stays"), "x")
	must(t, os.Remove(f))
	must(t, os.Rename(dir, dir+"2"))
	if names := list(t, dir+"2"); !slices.Equal(names, []string{"stays"}) {
		t.Errorf("the renamed directory shows %v", names)
	}
	// fsync of the directory is the moment when all others know.
	write(t, filepath.Join(dir+"2", "f"), "x")
	must(t, os.Remove(filepath.Join(dir+"2", "f")))
	d, err := os.Open(dir + "2")
	must(t, err)
	defer d.Close()
	must(t, d.Sync())
	if _, there := other.keys(t, "bucket")["dir2/f"]; there {
		t.Error("after fsync the store has the file")
	}
	// What cannot be deleted shows again, and is told: by fsync, rmdir, umount.
	for _, verb := range []string{"DeleteObject", "DeleteObjects"} {
		s.Inject(emulator.Fault{Verb: verb, Code: "AccessDenied"})
	}
	must(t, os.Remove(filepath.Join(dir+"2", "stays")))
	wantErrno(t, "fsync of the directory", d.Sync(), syscall.EACCES)
	if names := list(t, dir+"2"); !slices.Equal(names, []string{"stays"}) {
		t.Errorf("after a refused unlink the directory shows %v", names)
	}
	must(t, os.Remove(filepath.Join(dir+"2", "stays")))
	wantErrno(t, "rmdir", syscall.Rmdir(dir+"2"), syscall.EACCES)
	must(t, d.Close())
	out, err := m.run("umount", m.dir)
	if err == nil || !strings.Contains(out, "AccessDenied") {
		t.Errorf("umount: %v, %s", err, out)
	}
	s.ClearFaults()
}

// TestUnlinkBatchedEndsWithMount: unmounting waits for what is to be deleted.
func TestUnlinkBatchedEndsWithMount(t *testing.T) {
	m, _ := bucketMount(t, "--unlink", "batched")
	for i := range 10 {
		write(t, m.path("bucket", fmt.Sprint(i)), "x")
	}
	for i := range 10 {
		must(t, os.Remove(m.path("bucket", fmt.Sprint(i))))
	}
	m.stop()
	if keys := client(t, m.env).keys(t, "bucket"); len(keys) != 0 {
		t.Errorf("the store has %v", keys)
	}
}

func TestUnlinkedFileStaysReadable(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "data")
	f, err := os.Open(p)
	must(t, err)
	must(t, os.Remove(p))
	absent(t, p)
	if got := list(t, m.path("bucket")); len(got) != 0 {
		t.Errorf("the directory shows %q", got)
	}
	if data, err := io.ReadAll(f); err != nil || string(data) != "data" {
		t.Errorf("read after unlink: %q, %v", data, err)
	}
	must(t, f.Close())
	deadline := time.Now().Add(10 * time.Second)
	for count(s, "DeleteObject", "f") == 0 { // RELEASE is not waited for by close
		if time.Now().After(deadline) {
			t.Fatal("the object was not deleted after the last close")
		}
		time.Sleep(10 * time.Millisecond)
	}
	// The name can be used again while the old file is open.
	write(t, p, "one")
	f, err = os.Open(p)
	must(t, err)
	must(t, os.Remove(p))
	write(t, p, "two")
	must(t, f.Close())
	time.Sleep(100 * time.Millisecond)
	want(t, p, "two")
	// A file that is unlinked before it is written never reaches the store.
	f, err = os.OpenFile(m.path("bucket", "tmp"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	must(t, os.Remove(f.Name()))
	data := random(t, 6<<20)
	_, err = f.Write(data)
	must(t, err)
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back of an unlinked file: %v", err)
	}
	must(t, f.Close())
	for _, r := range s.Requests() {
		if r.Key == "tmp" && r.Method == "PUT" {
			t.Error("an unlinked file was uploaded")
		}
	}
}

func TestRenameKeepsAttributes(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	other.putWith(t, "bucket", "f", "data", "text/x-special", map[string]string{"color": "blue"})
	must(t, os.Rename(m.path("bucket", "f"), m.path("bucket", "g")))
	absent(t, m.path("bucket", "f"))
	want(t, m.path("bucket", "g"), "data")
	for name, v := range map[string]string{"user.s3.content-type": "text/x-special", "user.color": "blue", "user.s3.encryption": encryption(t, "SSE-S3")} {
		if got := xattr(t, m.path("bucket", "g"), name); got != v {
			t.Errorf("%s = %q, want %q", name, got, v)
		}
	}
}

func TestRenameOver(t *testing.T) {
	m, _ := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "old")
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			data, err := os.ReadFile(p)
			if err != nil && !errors.Is(err, syscall.ESTALE) || err == nil && string(data) != "old" && string(data) != "new" {
				done <- fmt.Errorf("a reader of the target got %q, %v", data, err)
				return
			}
		}
		done <- nil
	}()
	write(t, m.path("bucket", "tmp"), "new")
	must(t, os.Rename(m.path("bucket", "tmp"), p))
	want(t, p, "new")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	absent(t, m.path("bucket", "tmp"))
}

func TestRenameWhileWriting(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.Create(m.path("bucket", "f"))
	must(t, err)
	_, err = f.Write([]byte("before "))
	must(t, err)
	must(t, os.Rename(m.path("bucket", "f"), m.path("bucket", "g")))
	_, err = f.Write([]byte("after"))
	must(t, err)
	must(t, f.Close())
	want(t, m.path("bucket", "g"), "before after")
	absent(t, m.path("bucket", "f"))
}

func TestRenameDirectoryMarksIt(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	other.put(t, "bucket", "implicit/f", "data")
	must(t, os.Rename(m.path("bucket", "implicit"), m.path("bucket", "b")))
	if got, want := other.keys(t, "bucket"), map[string]int64{"b/": 0, "b/f": 4}; !maps.Equal(got, want) {
		t.Errorf("the bucket has %v, want %v", got, want)
	}
}

func TestRenameDirectory(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.MkdirAll(m.path("bucket", "a", "sub"), 0o755))
	for i := range 50 {
		write(t, m.path("bucket", "a", "sub", fmt.Sprint(i)), fmt.Sprint("data ", i))
	}
	r, err := os.Open(m.path("bucket", "a", "sub", "7"))
	must(t, err)
	defer r.Close()
	w, err := os.Create(m.path("bucket", "a", "sub", "open"))
	must(t, err)
	_, err = w.Write([]byte("12"))
	must(t, err)
	must(t, os.Rename(m.path("bucket", "a"), m.path("bucket", "b")))
	absent(t, m.path("bucket", "a"))
	if got := len(list(t, m.path("bucket", "b", "sub"))); got != 51 {
		t.Errorf("%d names after the rename, want 51", got)
	}
	for i := range 50 {
		want(t, m.path("bucket", "b", "sub", fmt.Sprint(i)), fmt.Sprint("data ", i))
	}
	if data, err := io.ReadAll(r); err != nil || string(data) != "data 7" {
		t.Errorf("a file that was open: %q, %v", data, err)
	}
	_, err = w.Write([]byte("34"))
	must(t, err)
	must(t, w.Close())
	want(t, m.path("bucket", "b", "sub", "open"), "1234")
	must(t, os.Mkdir(m.path("bucket", "full"), 0o755))
	write(t, m.path("bucket", "full", "f"), "x")
	// Not os.Rename, which never asks the system about a directory that is there.
	wantErrno(t, "over a directory that is not empty", syscall.Rename(m.path("bucket", "b"), m.path("bucket", "full")), syscall.ENOTEMPTY)
	must(t, os.Mkdir(m.path("bucket", "empty"), 0o755))
	must(t, syscall.Rename(m.path("bucket", "b"), m.path("bucket", "empty")))
	want(t, m.path("bucket", "empty", "sub", "3"), "data 3")
}

// TestRenameDirectoryOfOpenFiles changes attributes through descriptors, for
// which nobody looks a path up again.
func TestRenameDirectoryOfOpenFiles(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.Mkdir(m.path("bucket", "a"), 0o755))
	for name, change := range map[string]func(f *os.File) error{
		"chmod":    func(f *os.File) error { return f.Chmod(0o640) },
		"truncate": func(f *os.File) error { return f.Truncate(2) },
		"times":    func(f *os.File) error { return unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1}, {Sec: 2}}) },
	} {
		write(t, m.path("bucket", "a", "f"), "data")
		f, err := os.OpenFile(m.path("bucket", "a", "f"), os.O_RDWR, 0)
		must(t, err)
		must(t, os.Rename(m.path("bucket", "a"), m.path("bucket", "b")))
		if err := change(f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, f.Close())
		must(t, os.Rename(m.path("bucket", "b"), m.path("bucket", "a")))
	}
	st, err := os.Stat(m.path("bucket", "a", "f"))
	must(t, err)
	if st.Mode() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestRenameDirectoryFailure(t *testing.T) {
	m, s := bucketMount(t)
	must(t, os.Mkdir(m.path("bucket", "a"), 0o755))
	for i := range 20 {
		write(t, m.path("bucket", "a", fmt.Sprint(i)), fmt.Sprint(i))
	}
	s.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: "b/13", Status: 403, Code: "AccessDenied"})
	wantErrno(t, "rename", os.Rename(m.path("bucket", "a"), m.path("bucket", "b")), syscall.EACCES)
	s.ClearFaults()
	for i := range 20 {
		want(t, m.path("bucket", "a", fmt.Sprint(i)), fmt.Sprint(i))
	}
	absent(t, m.path("bucket", "b"))
	must(t, os.Rename(m.path("bucket", "a"), m.path("bucket", "b")))
	want(t, m.path("bucket", "b", "13"), "13")
}

func TestRenameAcrossBuckets(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.Mkdir(m.path("second"), 0o755))
	write(t, m.path("bucket", "f"), "data")
	wantErrno(t, "rename", os.Rename(m.path("bucket", "f"), m.path("second", "f")), syscall.EXDEV)
	wantErrno(t, "rename of a bucket", os.Rename(m.path("bucket"), m.path("third")), syscall.EXDEV)
	out, err := exec.Command("mv", m.path("bucket", "f"), m.path("second", "f")).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("mv: %v\n%s", err, out)
	}
	want(t, m.path("second", "f"), "data")
	absent(t, m.path("bucket", "f"))
}

func TestRenameFlags(t *testing.T) {
	m, _ := bucketMount(t)
	a, b := m.path("bucket", "a"), m.path("bucket", "b")
	write(t, a, "a")
	write(t, b, "b")
	rename := func(what, from, to string, flags uint, want error) {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags); err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	rename("no replace", a, b, unix.RENAME_NOREPLACE, unix.EEXIST)
	rename("exchange", a, b, unix.RENAME_EXCHANGE, unix.EINVAL)
	rename("whiteout", a, b, unix.RENAME_WHITEOUT, unix.EINVAL)
	want(t, a, "a")
	want(t, b, "b")
	rename("no replace of what is not there", a, m.path("bucket", "c"), unix.RENAME_NOREPLACE, nil)
	want(t, m.path("bucket", "c"), "a")
	must(t, os.MkdirAll(m.path("bucket", "dir", "sub"), 0o755))
	rename("into itself", m.path("bucket", "dir"), m.path("bucket", "dir", "sub", "dir"), 0, unix.EINVAL)
}

// TestOpenFileOutlivesItsName: a file whose name is another's by now goes on
// for those who have it open, whatever took the name, and leaves nothing.
func TestOpenFileOutlivesItsName(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, s.Env())
	data := random(t, 12<<20)
	name := m.path("bucket", "f")
	for what, take := range map[string]func(){
		"rename over it": func() {
			write(t, m.path("bucket", "new"), "new")
			must(t, os.Rename(m.path("bucket", "new"), name))
		},
		"a file of that name": func() {
			must(t, os.Remove(name))
			write(t, name, "new")
		},
		"a link of that name": func() {
			must(t, os.Remove(name))
			write(t, m.path("bucket", "elsewhere"), "new")
			must(t, os.Symlink("elsewhere", name))
		},
	} {
		t.Run(what, func(t *testing.T) {
			must(t, os.WriteFile(name, data, 0o644))
			reader, err := os.Open(name)
			must(t, err)
			defer reader.Close()
			writer, err := os.OpenFile(name, os.O_RDWR, 0)
			must(t, err)
			defer writer.Close()
			buf := make([]byte, 1<<20)
			_, err = reader.ReadAt(buf, 0)
			must(t, err)
			_, err = writer.WriteAt([]byte("changed"), 3<<20)
			must(t, err)
			take()
			model := bytes.Clone(data)
			copy(model[3<<20:], "changed")
			_, err = writer.WriteAt([]byte("and more"), 5<<20)
			must(t, err)
			copy(model[5<<20:], "and more")
			for _, f := range []*os.File{reader, writer} {
				got := make([]byte, len(data)+1)
				if n, err := f.ReadAt(got, 0); err != io.EOF || !bytes.Equal(got[:n], model) {
					t.Errorf("the open file reads as something else: %d bytes, %v", n, err)
				}
			}
			want(t, name, "new")
			must(t, reader.Close())
			must(t, writer.Close())
			want(t, name, "new")
			must(t, os.Remove(name))
			os.Remove(m.path("bucket", "elsewhere"))
			deadline := time.Now().Add(10 * time.Second) // the kernel tells of the last close late
			for len(other.keys(t, "bucket")) > 0 && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond)
			}
			if keys := other.keys(t, "bucket"); len(keys) != 0 {
				t.Errorf("left in the bucket: %v", keys)
			}
		})
	}
}

// TestScratchNameIsEncryptedAsTheFile: what is kept of an open file under a
// scratch name is not under the policy of that name, and does not stay.
func TestScratchNameIsEncryptedAsTheFile(t *testing.T) {
	s := startEmulator(t, "aws")
	_, err := s.CreateKMSKey("alias/mine")
	must(t, err)
	conf := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(conf, []byte("encryption:\n  - match: bucket/secret/\n    sse: kms\n    kms-key-id: alias/mine\n"), 0o600))
	m := mountStore(t, s.Env(), "--config", conf, "--sse", "aes256")
	must(t, os.MkdirAll(m.path("bucket", "secret"), 0o755))
	name := m.path("bucket", "secret") + "/f"
	write(t, name, "old")
	write(t, name+".new", "new")
	f, err := os.Open(name)
	must(t, err)
	must(t, os.Rename(name+".new", name))
	other := client(t, s.Env())
	scratch := ""
	for key := range other.keys(t, "bucket") {
		if strings.HasPrefix(key, ".coffer-probe-gone-") {
			scratch = key
		}
	}
	if scratch == "" {
		t.Fatalf("no scratch object in %v", other.keys(t, "bucket"))
	}
	if got := other.stat(t, "bucket", scratch).Metadata.Get("x-amz-server-side-encryption"); got != "aws:kms" {
		t.Errorf("the scratch object is under %q", got)
	}
	got, err := io.ReadAll(f)
	if err != nil || string(got) != "old" {
		t.Errorf("the open file reads as %q, %v", got, err)
	}
	must(t, f.Close())

	// Closed while it is moved: nobody comes back to remove it.
	f, err = os.Open(name)
	must(t, err)
	write(t, name+".new", "newer")
	s.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: ".coffer-probe-*", Delay: 500 * time.Millisecond})
	done := make(chan error, 1)
	go func() { done <- os.Rename(name+".new", name) }()
	time.Sleep(250 * time.Millisecond)
	must(t, f.Close())
	must(t, <-done)
	want(t, name, "newer")
	deadline := time.Now().Add(10 * time.Second)
	gone := func() bool {
		for key := range other.keys(t, "bucket") {
			if strings.HasPrefix(key, ".coffer-probe-") {
				return false
			}
		}
		return true
	}
	for !gone() && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if !gone() {
		t.Errorf("left: %v", other.keys(t, "bucket"))
	}
}

// TestRenameOfManyFails renames a directory with more objects than a listing's
// page or a batch of deletes holds, and has the store refuse one copy late, or
// one batch: nothing is lost, and renaming again finishes it.
func TestRenameOfManyFails(t *testing.T) {
	const many = 1100
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	var g errgroup.Group
	g.SetLimit(16)
	for i := range many {
		g.Go(func() error {
			other.put(t, "bucket", fmt.Sprintf("from/%d/%d", i%7, i), fmt.Sprint("data ", i))
			return nil
		})
	}
	must(t, g.Wait())
	m := mountWith(t, plainCoffer(t), s.Env()) // as users get it: its memory is looked at
	from, to := m.path("bucket", "from"), m.path("bucket", "to")
	// below counts the objects below a prefix, and fails when one is another's.
	below := func(prefix string) int {
		t.Helper()
		n := 0
		for o := range other.c.ListObjects(t.Context(), "bucket", minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
			must(t, o.Err)
			if strings.HasSuffix(o.Key, "/") {
				continue // the marker
			}
			n++
			if i := path.Base(o.Key); other.size(o.Key, o.Size) != int64(len("data "+i)) {
				t.Errorf("%s has %d bytes", o.Key, o.Size)
			}
		}
		return n
	}

	s.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: "to/*/*", Nth: 1050, Code: "AccessDenied"})
	wantErrno(t, "rename with a copy refused", os.Rename(from, to), syscall.EACCES)
	s.ClearFaults()
	if f, o := below("from/"), below("to/"); f != many || o != 0 {
		t.Fatalf("after a refused copy %d objects are there and %d copies, want %d and none", f, o, many)
	}
	want(t, filepath.Join(from, "1", "1"), "data 1")
	absent(t, to)

	s.Inject(emulator.Fault{Verb: "DeleteObjects", Nth: 2, Code: "AccessDenied"})
	wantErrno(t, "rename with a delete refused", os.Rename(from, to), syscall.EACCES)
	s.ClearFaults()
	f, o := below("from/"), below("to/")
	if o != many || f != many%1000 {
		t.Fatalf("after a refused delete %d objects are there and %d copies, want %d and %d", f, o, many%1000, many)
	}
	must(t, syscall.Rename(from, to))
	absent(t, from)
	if f, o := below("from/"), below("to/"); f != 0 || o != many {
		t.Errorf("at the end %d objects are behind and %d there, want none and %d", f, o, many)
	}

	peak := m.peakRSS()
	t.Logf("the daemon had %.0f MiB of memory at most", peak)
	if peak == 0 || peak > 300 {
		t.Errorf("the daemon took %.0f MiB of memory for names", peak)
	}
}

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// TestSemanticsPageNamesRealTests holds ../fs/SEMANTICS.md to its word: every
// promise names a test, and every test that it names is there.
func TestSemanticsPageNamesRealTests(t *testing.T) {
	page, err := os.ReadFile("../fs/SEMANTICS.md")
	must(t, err)
	tests := map[string]bool{}
	for _, dir := range []string{".", "../fs"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		must(t, err)
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
			must(t, err)
			for _, d := range parsed.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					tests[fn.Name.Name] = true
				}
			}
		}
	}
	promises, _, _ := strings.Cut(string(page), "## What is not here yet")
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	count := 0
	for line := range strings.Lines(promises) {
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		count++
		names := named.FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("a promise without a test: %s", line)
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("%s is named and does not exist: %s", n[1], line)
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d promises found: has the page another form now?", count)
	}
}

// write makes a file in one go.
func write(t testing.TB, path, data string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

// want fails unless the file holds data.
func want(t testing.TB, path, data string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != data {
		t.Errorf("%s: %.60q, %v, want %.60q", filepath.Base(path), got, err, data)
	}
}

// absent fails when the path exists.
func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", path, err)
	}
}

// list returns the names in a directory.
func list(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// count returns how many logged requests have the verb and, if not empty, the key.
func count(s *emulator.Server, verb, key string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Verb == verb && (key == "" || r.Key == key) {
			n++
		}
	}
	return n
}

// random returns bytes that nothing compresses.
func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := rand.Read(b)
	must(t, err)
	return b
}

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

func TestHandleReadsOneVersion(t *testing.T) {
	m, _ := bucketMount(t, "--metadata-ttl", "0s")
	other := client(t, m.env)
	old, fresh := bytes.Repeat([]byte("old."), 3<<20), bytes.Repeat([]byte("new!"), 3<<20)
	other.put(t, "bucket", "f", string(old))
	f, err := os.Open(m.path("bucket", "f"))
	must(t, err)
	defer f.Close()
	buf := make([]byte, 4096)
	if _, err := f.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, old[:4096]) {
		t.Fatalf("first read: %v", err)
	}
	other.put(t, "bucket", "f", string(fresh))
	// Before the mount has met the new version, the old one may still be
	// read, or be refused; it is never mixed.
	for off := int64(0); off < int64(len(old)); off += 1 << 20 {
		n, err := f.ReadAt(buf, off)
		if err == nil && !bytes.Equal(buf[:n], old[off:off+int64(n)]) {
			t.Fatalf("at %d: bytes of another version", off)
		}
		if err != nil && !errors.Is(err, syscall.ESTALE) {
			t.Errorf("at %d: %v, want ESTALE", off, err)
		}
	}
	got, err := os.ReadFile(m.path("bucket", "f"))
	if err != nil || !bytes.Equal(got, fresh) {
		t.Errorf("a new open: %d bytes, %v", len(got), err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err = f.ReadAt(buf, 0) // was in the page cache
		if errors.Is(err, syscall.ESTALE) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the old handle still answers %v, want ESTALE", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCloseToOpen(t *testing.T) {
	s := startEmulator(t, "aws")
	a := mountStore(t, s.Env())
	must(t, os.Mkdir(a.path("bucket"), 0o755))
	b := mountStore(t, s.Env())
	for i := range 3 {
		data := fmt.Sprintf("version %d", i)
		write(t, a.path("bucket", "f"), data)
		time.Sleep(1100 * time.Millisecond)
		want(t, b.path("bucket", "f"), data)
	}
}

func TestMetadataTTL(t *testing.T) {
	m, s := bucketMount(t, "--metadata-ttl", "1h")
	write(t, m.path("bucket", "f"), "data")
	_, err := os.Stat(m.path("bucket", "f"))
	must(t, err)
	s.ResetRequests()
	for range 10 {
		_, err := os.Stat(m.path("bucket", "f"))
		must(t, err)
	}
	if n := len(s.Requests()); n != 0 {
		t.Errorf("10 stats within the TTL cost %d requests", n)
	}
	m2, s2 := bucketMount(t, "--metadata-ttl", "0s")
	write(t, m2.path("bucket", "f"), "data")
	s2.ResetRequests()
	_, err = os.Stat(m2.path("bucket", "f"))
	must(t, err)
	if len(s2.Requests()) == 0 {
		t.Error("a TTL of 0 asks every time, and did not")
	}
}

func TestPageCacheKeptWhileUnchanged(t *testing.T) {
	m, s := bucketMount(t)
	data := random(t, 3<<20)
	must(t, os.WriteFile(m.path("bucket", "f"), data, 0o644))
	m.stop()
	m.start()
	read := func() {
		got, err := os.ReadFile(m.path("bucket", "f"))
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	read()
	before := m.status().Cache.reads()
	s.ResetRequests()
	read()
	if n := count(s, "GetObject", ""); n != 0 {
		t.Errorf("reading again cost %d GETs", n)
	}
	if after := m.status().Cache.reads(); after != before {
		t.Errorf("reading again reached the daemon %d times", after-before)
	}
	time.Sleep(1100 * time.Millisecond)
	client(t, m.env).put(t, "bucket", "f", "changed")
	want(t, m.path("bucket", "f"), "changed")
}

func TestOldVersionUntilCommit(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	write(t, m.path("bucket", "f"), "old")
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	for range 6 { // 12 MiB: parts are on their way
		_, err := f.Write(bytes.Repeat([]byte("n"), 2<<20))
		must(t, err)
		if got := other.get(t, "bucket", "f"); got != "old" {
			t.Fatalf("before the close others read %d bytes", len(got))
		}
	}
	must(t, f.Close())
	if got := other.get(t, "bucket", "f"); len(got) != 12<<20 {
		t.Errorf("after the close others read %d bytes", len(got))
	}
}

func TestCommitAtClose(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	for _, size := range []int{0, 1, 100_000, 9 << 20, 40 << 20} {
		data := random(t, size)
		must(t, os.WriteFile(m.path("bucket", "f"), data, 0o644))
		if got := other.get(t, "bucket", "f"); got != string(data) {
			t.Errorf("%d bytes: others read %d after close", size, len(got))
		}
	}
}

func TestFsync(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	f, err := os.Create(m.path("bucket", "f"))
	must(t, err)
	data := random(t, 9<<20)
	_, err = f.Write(data)
	must(t, err)
	must(t, f.Sync())
	if got := other.get(t, "bucket", "f"); got != string(data) {
		t.Errorf("after fsync others read %d bytes", len(got))
	}
	_, err = f.Write([]byte("tail"))
	must(t, err)
	must(t, f.Close())
	if got := other.get(t, "bucket", "f"); got != string(data)+"tail" {
		t.Errorf("after close others read %d bytes", len(got))
	}
	d, err := os.Open(m.path("bucket"))
	must(t, err)
	defer d.Close()
	must(t, d.Sync())
}

func TestSubshellsShareOneFile(t *testing.T) {
	m, s := bucketMount(t)
	out, err := exec.Command("sh", "-c", "(echo a; (echo b); echo c) > "+m.path("bucket", "f")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want(t, m.path("bucket", "f"), "a\nb\nc\n")
	_ = s
}

func TestDup(t *testing.T) {
	m, s := bucketMount(t)
	f, err := os.Create(m.path("bucket", "f"))
	must(t, err)
	fd, err := syscall.Dup(int(f.Fd()))
	must(t, err)
	_, err = f.Write([]byte("1"))
	must(t, err)
	must(t, f.Close())
	g := os.NewFile(uintptr(fd), "dup")
	_, err = g.Write([]byte("2"))
	must(t, err)
	must(t, g.Close())
	want(t, m.path("bucket", "f"), "12")
	if n := count(s, "PutObject", "f"); n != 2 {
		t.Errorf("%d PUTs for two closes of the opener", n)
	}
}

func TestLostUpdateRefused(t *testing.T) {
	m, _ := bucketMount(t)
	other := client(t, m.env)
	write(t, m.path("bucket", "f"), "old")
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("X"), 0)
	must(t, err)
	other.put(t, "bucket", "f", "theirs")
	wantErrno(t, "close over somebody else's version", f.Close(), syscall.ESTALE)
	if got := other.get(t, "bucket", "f"); got != "theirs" {
		t.Errorf("the store has %q", got)
	}
	f, err = os.Create(m.path("bucket", "new"))
	must(t, err)
	_, err = f.Write([]byte("ours"))
	must(t, err)
	other.put(t, "bucket", "new", "theirs")
	wantErrno(t, "close over a file that was absent", f.Close(), syscall.EEXIST)
	if got := other.get(t, "bucket", "new"); got != "theirs" {
		t.Errorf("the store has %q", got)
	}
}

func TestWriteErrorIsSticky(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "old")
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Status: 403, Code: "AccessDenied"})
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = f.Write([]byte("new"))
	must(t, err)
	wantErrno(t, "fsync", f.Sync(), syscall.EACCES)
	s.ClearFaults()
	_, err = f.Write([]byte("more"))
	wantErrno(t, "write after the failure", err, syscall.EACCES)
	wantErrno(t, "fsync after the failure", f.Sync(), syscall.EACCES)
	wantErrno(t, "close", f.Close(), syscall.EACCES)
	want(t, m.path("bucket", "f"), "old")
	write(t, m.path("bucket", "f"), "again")
	want(t, m.path("bucket", "f"), "again")
}

func TestReadBack(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	data := random(t, 1<<20)
	_, err = f.Write(data)
	must(t, err)
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(data)) {
		t.Errorf("size before the commit: %v, %v", st.Size(), err)
	}
}

func TestSecondOpenSeesUncommitted(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.Create(m.path("bucket", "f"))
	must(t, err)
	defer f.Close()
	_, err = f.Write([]byte("seen"))
	must(t, err)
	want(t, m.path("bucket", "f"), "seen")
	if got := list(t, m.path("bucket")); !slices.Equal(got, []string{"f"}) {
		t.Errorf("the directory shows %q", got)
	}
}

// TestRandomWritesMatchModel does the same operations on the mount and on a
// local file and compares all along.
func TestRandomWritesMatchModel(t *testing.T) {
	m, _ := bucketMount(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	paths := []string{m.path("bucket", "f"), filepath.Join(t.TempDir(), "model")}
	const maxSize = 12 << 20
	content := func() string {
		a, err := os.ReadFile(paths[0])
		must(t, err)
		b, err := os.ReadFile(paths[1])
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Fatalf("the mount has %d bytes, the model %d, and they differ", len(a), len(b))
		}
		return string(a)
	}
	for round := range 12 {
		flags := os.O_RDWR | os.O_CREATE
		if r.IntN(4) == 0 {
			flags |= os.O_TRUNC
		}
		if r.IntN(5) == 0 {
			flags |= os.O_APPEND
		}
		var files [2]*os.File
		for i, p := range paths {
			f, err := os.OpenFile(p, flags, 0o644)
			must(t, err)
			files[i] = f
		}
		for op := range 12 {
			off, n := r.Int64N(maxSize), r.IntN(1<<20)+1
			data := random(t, n)
			kind := r.IntN(6)
			var results [2]string
			for i, f := range files {
				switch {
				case kind == 0:
					must(t, f.Truncate(off))
				case kind == 1:
					buf := make([]byte, n)
					got, err := f.ReadAt(buf, off)
					if err != nil && err != io.EOF {
						t.Fatalf("round %d op %d: read: %v", round, op, err)
					}
					results[i] = string(buf[:got])
				case kind == 2:
					must(t, f.Sync())
				case kind == 3 || flags&os.O_APPEND != 0:
					if flags&os.O_APPEND == 0 {
						_, err := f.Seek(0, io.SeekEnd)
						must(t, err)
					}
					_, err := f.Write(data)
					must(t, err)
				default:
					_, err := f.WriteAt(data, off)
					must(t, err)
				}
				st, err := f.Stat()
				must(t, err)
				results[i] += fmt.Sprint(st.Size())
			}
			if results[0] != results[1] {
				t.Fatalf("round %d op %d kind %d off %d len %d flags %#x: the mount and the model differ", round, op, kind, off, n, flags)
			}
		}
		for _, f := range files {
			must(t, f.Close())
		}
		content()
	}
	before := content()
	m.stop()
	m.start()
	if after := content(); after != before {
		t.Error("another content after a remount")
	}
}

func TestTruncateAtOpenIsPartOfCommit(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "old")
	s.ResetRequests()
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = f.Write([]byte("new content"))
	must(t, err)
	if n := count(s, "PutObject", "f"); n != 0 {
		t.Errorf("%d PUTs before the close", n)
	}
	m.kill()
	f.Close()
	if got := client(t, m.env).get(t, "bucket", "f"); got != "old" {
		t.Errorf("after a kill between open and close: %q", got)
	}
}

func TestKilledProgramsDataIsCommitted(t *testing.T) {
	m, _ := bucketMount(t)
	cmd := exec.Command("sh", "-c", "exec > "+m.path("bucket", "f")+"; echo written; kill -9 $$")
	if err := cmd.Run(); err == nil {
		t.Fatal("the program was not killed")
	}
	deadline := time.Now().Add(10 * time.Second)
	for client(t, m.env).get(t, "bucket", "f") != "written\n" {
		if time.Now().After(deadline) {
			t.Fatalf("the store has %q", client(t, m.env).get(t, "bucket", "f"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestReadBackOfStreamPublishes(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	data := random(t, 20<<20)
	_, err = f.Write(data)
	must(t, err)
	copy(data, "HEAD")
	_, err = f.WriteAt([]byte("HEAD"), 0)
	must(t, err)
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("read back: %v", err)
	}
	must(t, f.Close())
	if got := client(t, m.env).get(t, "bucket", "f"); got != string(data) {
		t.Errorf("the store has %d bytes, want %d, or others", len(got), len(data))
	}
}

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
	for name, v := range map[string]string{"user.s3.content-type": "text/x-special", "user.color": "blue", "user.s3.encryption": "SSE-S3"} {
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

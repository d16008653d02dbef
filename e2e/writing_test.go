package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

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
	// The shell that opens the file closes that descriptor once it has moved
	// it to its standard output, and the output when it ends: two commits. What
	// the inner shell closes is not the file's end.
	if n := count(s, "PutObject", "f"); n != 2 {
		t.Errorf("%d PUTs, want the opener's two", n)
	}
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
	// An overwrite of the whole reads nothing of the old version, so only the
	// condition of the commit stands between it and the new one; likewise in
	// several parts.
	for _, size := range []int{4, 9 << 20} {
		f, err = os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_TRUNC, 0)
		must(t, err)
		_, err = f.Write(random(t, size))
		must(t, err)
		theirs := fmt.Sprintf("theirs, against %d bytes", size)
		other.put(t, "bucket", "f", theirs)
		wantErrno(t, "close of an overwrite", f.Close(), syscall.ESTALE)
		if got := other.get(t, "bucket", "f"); got != theirs {
			t.Errorf("the store has %.60q", got)
		}
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
	// Who opens it now has nothing to do with that.
	want(t, m.path("bucket", "f"), "old")
	write(t, m.path("bucket", "f"), "again")
	want(t, m.path("bucket", "f"), "again")
	_, err = f.Write([]byte("more"))
	wantErrno(t, "write after somebody else's success", err, syscall.EACCES)
	wantErrno(t, "truncate after the failure", f.Truncate(1), syscall.EACCES)
	wantErrno(t, "close", f.Close(), syscall.EACCES)
	want(t, m.path("bucket", "f"), "again")
}

// TestFailureIsToldToAllWhoWrote: two handles have written, and one commit of
// both fails.
func TestFailureIsToldToAllWhoWrote(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "old")
	var files []*os.File
	for range 2 {
		f, err := os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("more")
		must(t, err)
		files = append(files, f)
	}
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Code: "AccessDenied"})
	wantErrno(t, "close of the one", files[0].Close(), syscall.EACCES)
	s.ClearFaults()
	wantErrno(t, "close of the other", files[1].Close(), syscall.EACCES)
	want(t, m.path("bucket", "f"), "old")
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

// writeAndMore writes the first n bytes of data to a file, does more while that is
// open, and wants the store to have data, as it is by then, after the close.
func writeAndMore(t *testing.T, m *mount, data []byte, n int, more func(f *os.File)) {
	t.Helper()
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	must(t, err)
	_, err = f.Write(data[:n])
	must(t, err)
	more(f)
	must(t, f.Close())
	if got := client(t, m.env).get(t, "bucket", "f"); got != string(data) {
		t.Errorf("the store has %d bytes, want %d, or others", len(got), len(data))
	}
}

// readBack wants f to begin with data, by the daemon: the kernel has its pages
// and would ask for none of them.
func readBack(t *testing.T, f *os.File, data []byte) {
	t.Helper()
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v", err)
	}
}

func TestReadBackOfStreamPublishes(t *testing.T) {
	m, _ := bucketMount(t)
	data := random(t, 20<<20)
	writeAndMore(t, m, data, len(data), func(f *os.File) {
		published := string(data)
		readBack(t, f, data[:1<<20])
		if got := client(t, m.env).get(t, "bucket", "f"); got != published {
			t.Errorf("the store has %d bytes before the close, want %d, or others", len(got), len(data))
		}
		copy(data, "HEAD")
		_, err := f.WriteAt([]byte("HEAD"), 0)
		must(t, err)
		readBack(t, f, data[:1<<20])
	})
}

// TestReadBackOfStreamCommitsOnce: what was read back and not changed is in the
// store, and a close has nothing to add; what is written after it is added.
func TestReadBackOfStreamCommitsOnce(t *testing.T) {
	m, s := bucketMount(t)
	data := random(t, 20<<20)
	var before int
	writeAndMore(t, m, data, len(data), func(f *os.File) {
		readBack(t, f, data)
		before = len(s.Requests())
	})
	for _, r := range s.Requests()[before:] {
		if r.Verb != "HeadObject" && r.Verb != "GetObject" { // of the comparison
			t.Errorf("the close sent a %s", r.Verb)
		}
	}
	writeAndMore(t, m, data, 10<<20, func(f *os.File) {
		readBack(t, f, data[:10<<20])
		_, err := f.Write(data[10<<20:])
		must(t, err)
	})
}

// TestPartialRewriteMovesLittle changes some bytes of a large file: what stays
// as it was is copied inside the store, and what comes out is the file.
func TestPartialRewriteMovesLittle(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, s.Env())
	name := m.path("bucket", "large")
	model := random(t, 96<<20+123)
	must(t, os.WriteFile(name, model, 0o644))
	writeAt := func(p []byte, off int64) {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt(p, off)
		must(t, err)
		must(t, f.Close())
		if end := off + int64(len(p)); end > int64(len(model)) {
			model = append(model, make([]byte, end-int64(len(model)))...)
		}
		copy(model[off:], p)
	}
	for _, step := range []struct {
		name string
		most int64 // bytes moved
		do   func()
	}{
		{"4 KiB in the middle", 11 << 20, func() { writeAt(random(t, 4<<10), 50<<20+17) }},
		{"1 MiB at the end", 3 << 20, func() { writeAt(random(t, 1<<20), int64(len(model))) }},
		{"the first byte", 11 << 20, func() { writeAt([]byte{1}, 0) }},
		{"the last byte", 11 << 20, func() { writeAt([]byte{1}, int64(len(model))-1) }},
		{"a part of its own size", 30 << 20, func() { writeAt(random(t, 9<<20), 30<<20) }},
		{"here and there", 34 << 20, func() {
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			must(t, err)
			for _, off := range []int64{3, 20 << 20, 20<<20 + 100, 70 << 20} {
				_, err := f.WriteAt([]byte("changed"), off)
				must(t, err)
				copy(model[off:], "changed")
			}
			must(t, f.Close())
		}},
		{"some bytes less", 11 << 20, func() {
			model = model[:len(model)-1000]
			must(t, os.Truncate(name, int64(len(model))))
		}},
		{"some bytes more", 11 << 20, func() {
			model = append(model, make([]byte, 5000)...)
			must(t, os.Truncate(name, int64(len(model))))
		}},
		{"appended by a stream that is synced", 12 << 20, func() {
			f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			for range 3 {
				more := random(t, 1<<20)
				_, err := f.Write(more)
				must(t, err)
				must(t, f.Sync())
				model = append(model, more...)
			}
			must(t, f.Close())
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.ResetRequests()
			step.do()
			moved := int64(0)
			for _, r := range s.Requests() {
				moved += r.BodyBytes + r.RespBytes
			}
			t.Logf("%d bytes moved for a file of %d", moved, len(model))
			if moved > step.most {
				t.Errorf("%d bytes moved, want at most %d", moved, step.most)
			}
			if sum, err := other.sum("bucket", "large"); err != nil || sum != sha256.Sum256(model) {
				t.Errorf("the object is not the file (%v)", err)
			}
			got, err := os.ReadFile(name)
			must(t, err)
			if !bytes.Equal(got, model) {
				t.Error("the mount shows other bytes")
			}
		})
	}
}

// TestExclusiveCreate: of 32 programs on two mounts that create the same file
// with O_EXCL, one has made it, whenever that is decided.
func TestExclusiveCreate(t *testing.T) {
	for _, mode := range []string{"close", "open"} {
		t.Run(mode, func(t *testing.T) {
			a, s := bucketMount(t, "--exclusive", mode)
			b := mountStore(t, s.Env(), "--exclusive", mode)
			for round := range 5 {
				name := fmt.Sprintf("lock-%d", round)
				var wg sync.WaitGroup
				var mu sync.Mutex
				opened, winners := 0, []string{}
				start := make(chan struct{})
				for i := range 32 {
					m := []*mount{a, b}[i%2]
					text := fmt.Sprintf("writer %d", i)
					wg.Go(func() {
						<-start
						f, err := os.OpenFile(m.path("bucket", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
						if err != nil {
							wantErrno(t, "open", err, syscall.EEXIST)
							return
						}
						_, werr := f.WriteString(text)
						cerr := f.Close()
						mu.Lock()
						defer mu.Unlock()
						opened++
						if werr == nil && cerr == nil {
							winners = append(winners, text)
							return
						}
						wantErrno(t, "close", errors.Join(werr, cerr), syscall.EEXIST)
					})
				}
				close(start)
				wg.Wait()
				if len(winners) != 1 || mode == "open" && opened != 1 {
					t.Fatalf("%d have opened the file and %q have closed it", opened, winners)
				}
				if got := client(t, s.Env()).get(t, "bucket", name); got != winners[0] {
					t.Errorf("the object is %q, want %q", got, winners[0])
				}
				want(t, a.path("bucket", name), winners[0])
			}
		})
	}
}

// TestCreatedForReadingIsStored: flock(1) and others make a file that they do
// not mean to write.
func TestCreatedForReadingIsStored(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDONLY|os.O_CREATE, 0o644)
	must(t, err)
	must(t, f.Close())
	if keys := client(t, m.env).keys(t, "bucket"); len(keys) != 1 {
		t.Errorf("after close the bucket has %v", keys)
	}
}

func TestFallocate(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = f.WriteString("0123456789")
	must(t, err)
	fd := int(f.Fd())
	must(t, unix.Fallocate(fd, 0, 2, 3))                          // within
	must(t, unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 100)) // there is nothing to reserve
	must(t, unix.Fallocate(fd, 0, 8, 4))                          // two bytes longer
	for what, mode := range map[string]uint32{
		"punch": unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, "zero": unix.FALLOC_FL_ZERO_RANGE,
		"collapse": unix.FALLOC_FL_COLLAPSE_RANGE, "insert": unix.FALLOC_FL_INSERT_RANGE,
	} {
		wantErrno(t, what, unix.Fallocate(fd, mode, 0, 4096), unix.EOPNOTSUPP)
	}
	must(t, f.Close())
	want(t, m.path("bucket", "f"), "0123456789\x00\x00")
}

func TestSeekHole(t *testing.T) {
	m, _ := bucketMount(t)
	f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	defer f.Close()
	for _, off := range []int64{0, 8 << 20} {
		_, err := f.WriteAt([]byte("data"), off)
		must(t, err)
	}
	seek := func(off int64, whence int, wanted int64, errno error) {
		t.Helper()
		if got, err := unix.Seek(int(f.Fd()), off, whence); err != errno || err == nil && got != wanted {
			t.Errorf("seek from %d: %d, %v, want %d, %v", off, got, err, wanted, errno)
		}
	}
	for range 2 {
		seek(4, unix.SEEK_DATA, 4, nil)
		seek(4, unix.SEEK_HOLE, 8<<20+4, nil)
		seek(8<<20+4, unix.SEEK_DATA, 0, unix.ENXIO)
		must(t, f.Sync())
	}
}

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// What is changed of an object that is encrypted on this side is a new object.

// A file that is longer than cse-rewrite-max is not changed, and can be everything else.
func TestRewriteMax(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, append(s.Env(), "COFFER_CSE_REWRITE_MAX=1MiB"), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	f := filepath.Join(d, "f")
	data := random(t, 3<<20)
	must(t, os.WriteFile(f, data, 0o600))
	must(t, os.WriteFile(filepath.Join(d, "limit"), data[:1<<20], 0o600))
	s.ResetRequests()

	h, err := os.OpenFile(f, os.O_RDWR, 0)
	must(t, err)
	defer h.Close()
	for what, change := range map[string]func() error{
		"write":     func() error { return second(h.WriteAt([]byte("x"), 1000)) },
		"append":    func() error { return second(h.WriteAt([]byte("x"), int64(len(data)))) },
		"ftruncate": func() error { return h.Truncate(2 << 20) },
		"longer":    func() error { return h.Truncate(4 << 20) },
		"fallocate": func() error { return syscall.Fallocate(int(h.Fd()), 0, 0, 4<<20) },
		"truncate":  func() error { return os.Truncate(f, 2<<20) },
		">>": func() error {
			a, err := os.OpenFile(f, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			return errors.Join(second(a.WriteString("x")), a.Close())
		},
	} {
		wantErrno(t, what, change(), syscall.EFBIG)
	}
	m.wantLog(t, "bucket/f", "file too large", "cse-rewrite-max")
	got := make([]byte, len(data))
	if n, err := h.ReadAt(got, 0); n != len(data) || !bytes.Equal(got, data) {
		t.Errorf("what was refused: %d bytes, right: %v, %v", n, bytes.Equal(got, data), err)
	}
	must(t, h.Sync())
	must(t, h.Close())
	must(t, os.Chmod(f, 0o640))
	must(t, os.Chtimes(f, time.Time{}, time.Unix(1_000_000_000, 0)))
	must(t, os.Rename(f, f+"2"))
	must(t, os.Rename(f+"2", f))
	if n := count(s, "PutObject", "") + count(s, "CreateMultipartUpload", ""); n != 0 {
		t.Errorf("%d objects were sent", n)
	}
	want(t, f, string(data))

	// What is left of it counts, and what was not there before does not.
	must(t, os.Truncate(f, 1<<20))
	for _, name := range []string{f, filepath.Join(d, "limit")} {
		a, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		must(t, second(a.Write(data[1<<20:])))
		must(t, a.Close())
		want(t, name, string(data))
	}
	for _, size := range []int64{0, 3 << 20} {
		must(t, os.Truncate(f, size)) // from nothing to something is no rewrite
	}
	must(t, os.WriteFile(f, data, 0o600))
	want(t, f, string(data))

	// An fsync ends an object; what was written until then is stored.
	h, err = os.OpenFile(f, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer h.Close()
	must(t, second(h.Write(data[:2<<20])))
	must(t, h.Sync())
	wantErrno(t, "writing on after fsync", second(h.Write([]byte("x"))), syscall.EFBIG)
	must(t, h.Close())
	want(t, f, string(data[:2<<20]))
	m.stop()

	m.env = append(m.env, "COFFER_CSE_REWRITE_MAX=unlimited")
	m.start("--cse-keyring", ring)
	a, err := os.OpenFile(f, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	must(t, second(a.Write(data[2<<20:])))
	must(t, a.Close())
	want(t, f, string(data))
}

// Without encryption on this side the limit means nothing.
func TestRewriteMaxIsForClientSideEncryption(t *testing.T) {
	s := startEmulator(t, "aws")
	m := mountStore(t, append(s.Env(), "COFFER_CSE_REWRITE_MAX=1KiB"))
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	write(t, m.path("bucket", "f"), strings.Repeat("x", 4<<10))
	a, err := os.OpenFile(m.path("bucket", "f"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	must(t, second(a.WriteString("y")))
	must(t, a.Close())
	want(t, m.path("bucket", "f"), strings.Repeat("x", 4<<10)+"y")
}

// A size that the metadata tells is not what a truncation goes by.
func TestTruncateProvesSize(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	data := string(random(t, 300_000))
	write(t, m.path("bucket", "f"), data)
	m.stop()
	c := client(t, m.env)
	meta := c.meta(t, "bucket", "f")
	changed := 0
	for name, value := range meta {
		if strings.HasPrefix(value, "1;h=1024;f=65536") {
			meta[name] = "1;h=1024;f=4096;s=0"
			changed++
		}
	}
	if changed != 1 {
		t.Fatalf("the metadata is %v", meta)
	}
	c.putWith(t, "bucket", "f", c.get(t, "bucket", "f"), "", meta)
	m.start("--cse-keyring", ring)
	must(t, os.Truncate(m.path("bucket", "f"), 300_010))
	want(t, m.path("bucket", "f"), data+strings.Repeat("\x00", 10))
}

// A change of a few bytes of a long file has all of it come and go, and takes little
// memory and no room on this machine.
func TestRewriteTakesLittle(t *testing.T) {
	needFUSE(t)
	const size, budget = 160 << 20, 64
	s := startEmulator(t, "nosse")
	args := []string{"--cse-keyring", keyringFile(t), "--memory", fmt.Sprint(budget, "MiB"), "--scratch-dir", t.TempDir()}
	m := mountWith(t, plainCoffer(t), s.Env(), args...)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	name := m.path("bucket", "f")
	f, err := os.Create(name)
	must(t, err)
	block := random(t, 1<<20)
	for range size >> 20 {
		must(t, second(f.Write(block)))
	}
	must(t, f.Close())
	m.stop()
	m.start(args...)
	f, err = os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, second(f.WriteAt([]byte("CHANGED"), size/2-3)))
	stored := make(chan error)
	go func() { stored <- f.Sync() }()
	scratch := int64(0)
	for done := false; !done; {
		scratch = max(scratch, m.scratchBytes())
		select {
		case err := <-stored:
			must(t, err)
			done = true
		case <-time.After(5 * time.Millisecond):
		}
	}
	peak := m.peakRSS()
	t.Logf("%.0f MiB of memory, %d KiB of scratch", peak, scratch>>10)
	if peak > budget+96 {
		t.Errorf("the daemon takes %.0f MiB, of which the budget is %d", peak, budget)
	}
	if scratch > 1<<20 {
		t.Errorf("it has %d bytes on scratch", scratch)
	}
	must(t, f.Close())
	m.stop()
	m.start(args...)
	f, err = os.Open(name)
	must(t, err)
	defer f.Close()
	got := make([]byte, 1<<20)
	for _, off := range []int64{0, size/2 - 2<<20, size/2 - 1<<20, size / 2, size/2 + 1<<20, size - 1<<20} {
		want := bytes.Clone(block)
		switch off {
		case size/2 - 1<<20:
			copy(want[1<<20-3:], "CHANGED")
		case size / 2:
			copy(want, "NGED")
		}
		if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d MiB there are other bytes, %v", off>>20, err)
		}
	}
}

// scratchBytes is what the daemon's files take on disk that have no name.
func (m *mount) scratchBytes() (n int64) {
	fds := fmt.Sprintf("/proc/%d/fd", m.cmd.Process.Pid)
	entries, err := os.ReadDir(fds)
	must(m.t, err)
	for _, e := range entries {
		link := filepath.Join(fds, e.Name())
		if to, err := os.Readlink(link); err != nil || !strings.HasSuffix(to, "(deleted)") {
			continue
		}
		if st, err := os.Stat(link); err == nil {
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return n
}

// A cold read of a page somewhere in a file brings the frame that it is in.
func TestRandomReadsFetchOneFrame(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	// The head of a file is fetched as that of a stream, and a block of 1 MiB at once
	// when more than some of it was wanted.
	const head, blocks = 16 << 20, 40
	data := random(t, head+blocks<<20)
	must(t, os.WriteFile(m.path("bucket", "f"), data, 0o600))
	m.stop()
	m.start("--cse-keyring", ring)
	f, err := os.Open(m.path("bucket", "f"))
	must(t, err)
	defer f.Close()
	const frame, page, reads = 64 << 10, 4 << 10, blocks
	s.ResetRequests()
	got := make([]byte, page)
	for i, b := range rand.New(rand.NewPCG(1, 2)).Perm(blocks) {
		off := int64(head + b<<20 + i%16*frame + i*7%16*page)
		if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, data[off:off+page]) {
			t.Fatalf("at %d: other bytes, %v", off, err)
		}
	}
	var fetched int64
	for _, r := range s.Requests() {
		fetched += r.RespBytes
	}
	gets := count(s, "GetObject", "f")
	t.Logf("%d reads: %d requests, %.1f KiB each", reads, gets, float64(fetched)/reads/1024)
	if gets != reads || fetched > reads*(frame+32) {
		t.Errorf("%d reads of a page: %d requests and %d bytes, want a frame of %d for each", reads, gets, fetched, frame+32)
	}
}

// sealedMount is a mount whose store is looked at by storetest.Sealed.
func sealedMount(t *testing.T, args ...string) (*mount, *emulator.Server, *storetest.Sealed) {
	t.Helper()
	s := startEmulator(t, "nosse")
	seals := storetest.NewSealed(s)
	front := httptest.NewServer(seals)
	t.Cleanup(front.Close)
	env := s.Env()
	for i, v := range env {
		if strings.HasPrefix(v, "AWS_ENDPOINT_URL") {
			env[i] = strings.Replace(v, s.Endpoint(), front.URL, 1)
		}
	}
	m := mountStore(t, env, args...)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	return m, s, seals
}

// Whatever programs, the store and a crash do, no two things are sealed under one key and
// IV: neither in what is stored nor in what was only sent.
func TestNoNonceIsSentTwice(t *testing.T) {
	rescueKey := filepath.Join(t.TempDir(), "rescue.key")
	must(t, os.WriteFile(rescueKey, random(t, 32), 0o600))
	ring := keyringFile(t)
	args := []string{"--cse-keyring", ring, "--rescue-key-file", rescueKey}
	m, s, seals := sealedMount(t, args...)
	f := m.path("bucket", "f")
	const size, half = 10 << 20, 5 << 20 // two parts of an upload
	long, other := random(t, size), random(t, size)
	open := func(flags int, do func(h *os.File)) {
		t.Helper()
		h, err := os.OpenFile(f, flags, 0o600)
		must(t, err)
		do(h)
		must(t, h.Close())
	}
	store := func(data []byte) {
		t.Helper()
		open(os.O_WRONLY|os.O_CREATE|os.O_TRUNC, func(h *os.File) { must(t, inOrder(data)(h)) })
	}
	rescueAfterKill := func() {
		t.Helper()
		m.kill()
		s.ClearFaults()
		r := m.onlyRescued("--rescue-key-file", rescueKey)
		if out, err := m.run("rescue", "commit", "--allow-unencrypted", "--cse-keyring", ring, "--rescue-key-file", rescueKey, r.ID); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.start(args...)
	}
	want := func(path string, data []byte) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, right: %v, %v", filepath.Base(path), len(got), bytes.Equal(got, data), err)
		}
	}
	changed := bytes.Clone(long)
	copy(changed[half:], "CHANGED")
	for _, c := range []struct {
		name string
		do   func()
		want []byte
	}{
		{"written", func() { store(long) }, long},
		{"written again", func() { store(long) }, long},
		{"changed in place", func() {
			open(os.O_RDWR, func(h *os.File) { must(t, second(h.WriteAt([]byte("CHANGED"), half))) })
		}, changed},
		{"appended to", func() {
			store(long[:half])
			open(os.O_WRONLY|os.O_APPEND, func(h *os.File) { must(t, inOrder(long[half:])(h)) })
		}, long},
		{"cut, and longer again", func() {
			store(long)
			must(t, os.Truncate(f, 7<<20+5))
			must(t, os.Truncate(f, 7<<20+10))
		}, append(bytes.Clone(long[:7<<20+5]), 0, 0, 0, 0, 0)},
		{"stored in the middle of being written", func() {
			open(os.O_WRONLY|os.O_TRUNC, func(h *os.File) {
				for _, piece := range [][]byte{long[:half], long[half : half+10], long[half+10:]} {
					must(t, inOrder(piece)(h))
					must(t, h.Sync())
				}
			})
		}, long},
		{"changed while it is written", func() {
			open(os.O_RDWR|os.O_TRUNC, func(h *os.File) {
				must(t, inOrder(long)(h))
				must(t, second(h.WriteAt([]byte("CHANGED"), half)))
			})
		}, changed},
		{"renamed, and written anew", func() {
			must(t, os.Rename(f, f+"2"))
			store(other)
			want(f+"2", changed)
		}, other},
		{"through errors of the store", func() {
			s.Inject(
				emulator.Fault{Verb: "UploadPart", Status: 500, Count: 2},
				emulator.Fault{Verb: "UploadPart", LoseReply: true, Nth: 4, Count: 1},
				emulator.Fault{Verb: "CompleteMultipartUpload", LoseReply: true, Count: 1},
			)
			seals.Cut(2)
			store(long)
		}, long},
		{"killed while it is sent", func() {
			s.Inject(emulator.Fault{Verb: "UploadPart", Delay: 2 * time.Second})
			done := make(chan error, 1)
			go func() { done <- os.WriteFile(f, other, 0o600) }()
			await(t, "a part", func() bool { return s.Strikes() > 0 })
			m.kill()
			if err := <-done; err == nil {
				t.Error("the program was told of a success that never came")
			}
			s.ClearFaults()
			m.start(args...)
			want(f, long)
			store(other)
		}, other},
		{"killed after a stream was refused, and rescued", func() {
			refuse(s)
			m.failing(os.O_WRONLY|os.O_TRUNC, inOrder(long), syscall.EACCES)
			rescueAfterKill()
		}, long},
		{"killed after something small was refused, and rescued", func() {
			refuse(s)
			m.failing(os.O_WRONLY|os.O_TRUNC, inOrder(other[:300_000]), syscall.EACCES)
			rescueAfterKill()
		}, other[:300_000]},
		{"killed after a change was refused, and rescued", func() {
			store(long)
			refuse(s)
			m.failing(os.O_RDWR, func(h *os.File) error { return second(h.WriteAt([]byte("CHANGED"), half)) }, syscall.EACCES)
			rescueAfterKill()
		}, changed},
		{"committed after a conflict", func() {
			h, err := os.OpenFile(f, os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			must(t, inOrder(long)(h))
			theirs := mountStore(t, m.env, "--cse-keyring", ring)
			must(t, os.WriteFile(theirs.path("bucket", "f"), other[:100], 0o600))
			theirs.stop()
			wantErrno(t, "close", h.Close(), syscall.ESTALE)
			r := m.onlyRescued("--rescue-key-file", rescueKey)
			if out, err := m.run("rescue", "commit", "--force", "--allow-unencrypted", "--cse-keyring", ring, "--rescue-key-file", rescueKey, r.ID); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			time.Sleep(1100 * time.Millisecond) // what is known of it is believed as long
		}, long},
	} {
		c.do()
		want(f, c.want)
		s.ClearFaults()
		if _, err := seals.Check(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	n, err := seals.Check()
	t.Logf("%+v, %v", n, err)
	if n.Messages < 25 || n.Frames < 15*size>>16 || n.Again < 4<<20 {
		t.Errorf("%+v were looked at", n)
	}
}

// A KMS that is throttled is asked again, longer than the SDK does by itself: at the
// beginning of a job all of its machines want a data key.
func TestThrottledKMS(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, "nosse")
	must(t, second(s.CreateKMSKey("mine")))
	ring := filepath.Join(t.TempDir(), "keys.yaml")
	must(t, os.WriteFile(ring, []byte("- {type: aws-kms, key_id: alias/mine}\n"), 0o600))
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	const tries = 3 // those of the SDK
	s.Inject(emulator.Fault{Verb: "kms:Encrypt", Status: 400, Code: "ThrottlingException", Count: tries})
	write(t, m.path("bucket", "f"), "data")
	if n := count(s, "kms:Encrypt", ""); n != tries+1 {
		t.Errorf("the KMS was asked %d times", n)
	}
	m.stop()
	m.start("--cse-keyring", ring)
	s.Inject(emulator.Fault{Verb: "kms:Decrypt", Status: 400, Code: "ThrottlingException", Count: tries})
	want(t, m.path("bucket", "f"), "data")
	if n := count(s, "kms:Decrypt", ""); n != tries+1 {
		t.Errorf("the KMS was asked %d times", n)
	}
}

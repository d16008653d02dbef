package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

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
	if before < int64(len(data)) {
		t.Fatalf("the daemon counts %d bytes read of %d: the count is not what it seems", before, len(data))
	}
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

// The kernel's read-ahead is for who reads in order.
func TestReadsOutOfOrderAskForNoMore(t *testing.T) {
	m, _ := bucketMount(t)
	must(t, os.WriteFile(m.path("bucket", "f"), random(t, 8<<20), 0o644))
	m.stop()
	m.start()
	f, err := os.Open(m.path("bucket", "f"))
	must(t, err)
	defer f.Close()
	const page = 4 << 10
	asked := func(offsets ...int64) int64 {
		before := m.status().Cache.reads()
		for _, off := range offsets {
			_, err := f.ReadAt(make([]byte, page), off)
			must(t, err)
		}
		return m.status().Cache.reads() - before
	}
	if n := asked(7<<20, 2<<20, 5<<20, 3<<20); n != 4*page {
		t.Errorf("4 reads of a page asked the daemon for %d bytes", n)
	}
	if n := asked(0, page, 2*page, 3*page); n <= 4*page {
		t.Errorf("4 reads of a page in order asked for %d bytes: without read-ahead the test says nothing", n)
	}
}

// A flipped bit of a range is noticed when the file has been read, also when
// the kernel has kept some of it; the next read has the right bytes.
func TestFlippedBitIsAnError(t *testing.T) {
	for _, args := range [][]string{nil, {"--read-only"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			m, s := bucketMount(t)
			data := random(t, 40<<20)
			must(t, os.WriteFile(m.path("bucket", "f"), data, 0o644))
			m.stop()
			m.start(args...)
			s.Inject(emulator.Fault{Verb: "GetObject", KeyPattern: "f", FlipBit: true, Nth: 3})
			got, err := os.ReadFile(m.path("bucket", "f"))
			says := "CRC32"
			if clientSide(t) {
				says = "damaged"
			}
			// A frame is known to be wrong when it comes, and the kernel may ask
			// again for what it wanted ahead of the program.
			if !clientSide(t) || err != nil || !bytes.Equal(got, data) {
				wantErrno(t, "reading a file with a flipped bit", err, syscall.EIO)
			}
			if !strings.Contains(m.log.String(), says) {
				t.Errorf("the log does not say what was wrong:\n%s", m.log)
			}
			got, err = os.ReadFile(m.path("bucket", "f"))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("the next read: %d bytes, right: %v, %v", len(got), bytes.Equal(got, data), err)
			}
		})
	}
}

// TestIndefiniteMetadataTTL: what was asked for once on a mount of what nobody
// changes is not asked for again, whether it was there or not.
func TestIndefiniteMetadataTTL(t *testing.T) {
	m, s := bucketMount(t)
	must(t, os.Mkdir(m.path("bucket", "dir"), 0o755))
	for i := range 100 {
		write(t, m.path("bucket", "dir", fmt.Sprint(i)), "old")
	}
	m.stop()
	if out, err := m.run("mount", "--foreground", "--metadata-ttl", "indefinite", m.dir); err == nil || !strings.Contains(out, "--read-only") {
		t.Errorf("for ever, where files can be written: %v\n%s", err, out)
	}
	m.start("--metadata-ttl", "indefinite", "--read-only")
	use := func() {
		t.Helper()
		if n := len(list(t, m.path("bucket", "dir"))); n != 100 {
			t.Errorf("%d names", n)
		}
		for i := range 100 {
			want(t, m.path("bucket", "dir", fmt.Sprint(i)), "old")
		}
		absent(t, m.path("bucket", "dir", "absent"))
	}
	use()
	other := client(t, m.env)
	other.put(t, "bucket", "dir/absent", "new")
	other.put(t, "bucket", "dir/1", "new")
	time.Sleep(1100 * time.Millisecond) // when an open asks again, as a rule
	s.ResetRequests()
	use()
	if reqs := s.Requests(); len(reqs) != 0 {
		t.Errorf("the second time cost %d requests, the first of them %v", len(reqs), reqs[0])
	}
}

// Small files that are all looked up and read cost a request each, once that has
// shown; what they are and whose is right all the same.
func TestSmallFilesCostOneRequest(t *testing.T) {
	m, s := bucketMount(t)
	const files = 120
	mode := func(i int) os.FileMode { return 0o600 + os.FileMode(i%2*0o40) }
	data := func(i int) string { return strings.Repeat(fmt.Sprintf("file %d\n", i), i+1) }
	for i := range files {
		must(t, os.WriteFile(m.path("bucket", fmt.Sprint(i)), []byte(data(i)), mode(i)))
	}
	large := strings.Repeat("0123456789abcdef", 1<<20)
	must(t, os.WriteFile(m.path("bucket", "large"), []byte(large), 0o600))
	m.stop()
	m.start()
	s.ResetRequests()
	for i := range files {
		got, err := os.ReadFile(m.path("bucket", fmt.Sprint(i)))
		if err != nil || string(got) != data(i) {
			t.Fatalf("file %d: %q, %v", i, got, err)
		}
	}
	proofs := 0
	if clientSide(t) {
		proofs = files / 10 // of sizes, before that has shown
	}
	gets, heads := count(s, "GetObject", ""), count(s, "HeadObject", "")
	t.Logf("%d GETs, %d HEADs", gets, heads)
	if gets < files || gets > files+proofs {
		t.Errorf("%d GETs for %d files", gets, files)
	}
	if heads > files/3 {
		t.Errorf("%d HEADs for %d files", heads, files)
	}
	if got, err := os.ReadFile(m.path("bucket", "large")); err != nil || string(got) != large {
		t.Errorf("a large one behind them: %d bytes, %v", len(got), err)
	}
	for i := range files {
		st, err := os.Stat(m.path("bucket", fmt.Sprint(i)))
		must(t, err)
		if st.Mode() != mode(i) || st.Size() != int64(len(data(i))) {
			t.Errorf("file %d: mode %v and %d bytes, not %v and %d", i, st.Mode(), st.Size(), mode(i), len(data(i)))
		}
	}

	// So they do when they were seen before, a moment too long ago to be believed.
	m.stop()
	m.start()
	if out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	time.Sleep(1100 * time.Millisecond)
	s.ResetRequests()
	for i := range files {
		got, err := os.ReadFile(m.path("bucket", fmt.Sprint(i)))
		if err != nil || string(got) != data(i) {
			t.Fatalf("file %d: %q, %v", i, got, err)
		}
	}
	if gets, heads := count(s, "GetObject", ""), count(s, "HeadObject", ""); gets < files || gets > files+proofs || heads > files/3 {
		t.Errorf("%d GETs and %d HEADs for %d files that were seen", gets, heads, files)
	}

	// Files that are looked at only are not fetched for long.
	m.stop()
	m.start()
	s.ResetRequests()
	for i := range files / 2 {
		if _, err := os.ReadFile(m.path("bucket", fmt.Sprint(i))); err != nil {
			t.Error(err)
		}
	}
	for i := range files / 2 {
		if _, err := os.Stat(m.path("bucket", fmt.Sprint(files/2+i))); err != nil {
			t.Error(err)
		}
	}
	if gets := count(s, "GetObject", ""); gets > files/2+40+proofs {
		t.Errorf("%d GETs where %d files were read", gets, files/2)
	}
}

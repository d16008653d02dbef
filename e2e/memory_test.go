package e2e

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"coffer/objstore/storetest"
)

// sparseMount mounts a bucket with an object of size bytes of nothing. The
// daemon is one without the race detector, which takes memory of its own.
func sparseMount(t *testing.T, size int64) (m *mount, object string) {
	t.Helper()
	needFUSE(t)
	s := storetest.StartVersityGW(t)
	must(t, os.Mkdir(filepath.Join(s.Dir, "bucket"), 0o755))
	f, err := os.Create(filepath.Join(s.Dir, "bucket", "big"))
	must(t, err)
	must(t, f.Truncate(size))
	must(t, f.Close())
	m = mountWith(t, plainCoffer(t), s.Env(), "--allow-unencrypted")
	return m, m.path("bucket", "big")
}

// What a daemon takes is taken from the job in whose cgroup it runs.
func TestStreamTakesLittleMemory(t *testing.T) {
	m, big := sparseMount(t, gib)
	if idle := m.peakRSS(); idle > 40 {
		t.Errorf("an idle daemon takes %.0f MiB", idle)
	}
	f, err := os.Open(big)
	must(t, err)
	defer f.Close()
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err != nil || n != gib {
		t.Fatalf("%d bytes, %v", n, err)
	}
	peak := m.peakRSS()
	t.Logf("%.0f MiB", peak)
	if peak*(1<<20) > 300e6 {
		t.Errorf("a stream of 1 GiB takes %.0f MiB", peak)
	}
}

// Cold random reads bring what was asked for, by one request each.
func TestRandomReadsFetchLittle(t *testing.T) {
	const size = 4 * gib
	m, big := sparseMount(t, size)
	for _, tt := range []struct {
		n       int64
		reads   int
		perRead float64 // bytes of body
		gets    float64 // requests a read
	}{
		{4 << 10, 200, 8 << 10, 1},
		{128 << 10, 100, 160 << 10, 1.1},
		{1 << 20, 40, 3 << 19, 9}, // the kernel asks for 128 KiB at a time
	} {
		f, err := os.Open(big)
		must(t, err)
		before := m.status().Cache
		rng := rand.New(rand.NewPCG(1, uint64(tt.n)))
		buf := make([]byte, tt.n)
		for range tt.reads {
			// Not at the head, which is fetched as that of a stream.
			off := 64<<20 + rng.Int64N((size-64<<20)/tt.n)*tt.n
			if _, err := f.ReadAt(buf, min(off, size-tt.n)); err != nil {
				t.Fatal(err)
			}
		}
		must(t, f.Close())
		after := m.status().Cache
		perRead := float64(after.FetchedBytes-before.FetchedBytes) / float64(tt.reads)
		gets := float64(after.Fetches-before.Fetches) / float64(tt.reads)
		t.Logf("reads of %d KiB: %.1f KiB in %.2f requests", tt.n>>10, perRead/1024, gets)
		if perRead > tt.perRead || gets > tt.gets {
			t.Errorf("reads of %d KiB: %.1f KiB in %.2f requests a read", tt.n>>10, perRead/1024, gets)
		}
	}
}

package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

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

// Parallel streams share the budget: it holds, and each byte is fetched once or
// nearly so, where there are no more than a few blocks for each.
func TestManyStreamsFetchOnce(t *testing.T) {
	needFUSE(t)
	const (
		streams = 64
		size    = 256 << 20 // more than the memory tier holds
		each    = 10 << 20  // its end is read, so that nothing is ahead when all is
		budget  = 256
	)
	s := storetest.StartVersityGW(t)
	must(t, os.Mkdir(filepath.Join(s.Dir, "bucket"), 0o755))
	for i := range streams {
		name := filepath.Join(s.Dir, "bucket", fmt.Sprint(i))
		must(t, os.WriteFile(name, nil, 0o644))
		must(t, os.Truncate(name, size))
	}
	l := startLink(t, s.Endpoint, 30*time.Millisecond, 4e6)
	m := mountWith(t, plainCoffer(t), l.env(s.Env()), "--allow-unencrypted", "--memory", fmt.Sprint(budget, "MiB"))
	before := m.status().Cache
	var readers sync.WaitGroup
	for i := range streams {
		readers.Go(func() {
			f, err := os.Open(m.path("bucket", fmt.Sprint(i)))
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.NewSectionReader(f, size-each, each)}, make([]byte, 128<<10))
			if err != nil || n != each {
				t.Errorf("stream %d: %d bytes, %v", i, n, err)
			}
		})
	}
	readers.Wait()
	after, peak := m.status().Cache, m.peakRSS()
	read, fetched := float64(after.ReadBytes-before.ReadBytes), float64(after.FetchedBytes-before.FetchedBytes)
	t.Logf("%.0f MiB read, %.0f fetched, by %d requests at a time at most; %.0f MiB", read/(1<<20), fetched/(1<<20), l.most.Load(), peak)
	if fetched > 1.08*read {
		t.Errorf("%.0f MiB were read and %.0f fetched", read/(1<<20), fetched/(1<<20))
	}
	if peak > budget+64 {
		t.Errorf("the daemon takes %.0f MiB, of which the budget is %d", peak, budget)
	}
}

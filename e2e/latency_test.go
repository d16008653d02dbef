package e2e

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"coffer/objstore/storetest"
)

// A store that is far away and slow on each connection is read by as many as it
// takes: the rate of a stream is that of all its connections. One of them is
// measured in the same run, and carries so little that no machine is the limit.
func TestStreamReachesTheSumOfItsConnections(t *testing.T) {
	const (
		size      = 512 << 20
		firstByte = 30 * time.Millisecond
		rate      = 10e6 // bytes a second
	)
	needFUSE(t)
	s := storetest.StartVersityGW(t)
	must(t, os.Mkdir(filepath.Join(s.Dir, "bucket"), 0o755))
	for name, length := range map[string]int64{"one": 8 << 20, "big": size} {
		f, err := os.Create(filepath.Join(s.Dir, "bucket", name))
		must(t, err)
		must(t, f.Truncate(length))
		must(t, f.Close())
	}
	l := startLink(t, s.Endpoint, firstByte, rate)

	begun := time.Now()
	if n := len(client(t, l.env(s.Env())).get(t, "bucket", "one")); n != 8<<20 {
		t.Fatalf("%d bytes", n)
	}
	one := float64(8<<20) / time.Since(begun).Seconds()

	m := mountWith(t, plainCoffer(t), l.env(s.Env()), "--allow-unencrypted", "--memory", "512MiB")
	f, err := os.Open(m.path("bucket", "big"))
	must(t, err)
	defer f.Close()
	l.reset()
	buf := make([]byte, 1<<20)
	var times float64
	for _, part := range []string{"first", "second"} { // in the first one it finds out
		begun = time.Now()
		n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.LimitReader(f, size/2)}, buf)
		if err != nil || n != size/2 {
			t.Fatalf("%d bytes, %v", n, err)
		}
		times = float64(n) / time.Since(begun).Seconds() / one
		t.Logf("the %s half: %.1f times the rate of one connection, %d GETs at most under way", part, times, l.most.Load())
	}
	if times < 10 || l.most.Load() < 12 {
		t.Errorf("a stream has %.1f times the rate of one connection, by %d GETs at a time", times, l.most.Load())
	}
}

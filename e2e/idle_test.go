package e2e

import (
	"fmt"
	"os"
	"testing"
)

// A mount that nobody uses is one of many daemons on a machine.
func TestIdleMountIsSmall(t *testing.T) {
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	for i := range 20 {
		other.put(t, "bucket", fmt.Sprint("f", i), "data")
	}
	m := mountWith(t, plainCoffer(t), s.Env(), "s3://bucket")
	names, err := os.ReadDir(m.path())
	must(t, err)
	if len(names) != 20 {
		t.Fatalf("%d names", len(names))
	}
	const mostMiB = 40
	got := m.peakRSS()
	t.Logf("%.1f MiB", got)
	if got > mostMiB && os.Getenv("COFFER_E2E_RACE") != "1" { // else it is the detector's
		t.Errorf("a mount and one ls take %.1f MiB, more than %d", got, mostMiB)
	}
}

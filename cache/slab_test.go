package cache

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSlabSizes(t *testing.T) {
	s := newSlabs(1 << 20)
	for n, want := range map[int]int{0: 4096, 1: 4096, 4096: 4096, 4097: 8192, 65536: 65536, 65537: 131072, 1<<20 - 1: 1 << 20, 1 << 20: 1 << 20} {
		require.Equal(t, want, s.sizeFor(n), "%d", n)
		m, err := s.get(n)
		require.NoError(t, err)
		require.Len(t, m.buf, want)
		require.Equal(t, want, cap(m.buf))
		s.put(m)
	}
	require.Panics(t, func() { _, _ = s.get(1<<20 + 1) })
	require.Zero(t, s.close())
}

// Pieces never overlap, whatever the order in which they come and go.
func TestSlabsRandom(t *testing.T) {
	s := newSlabs(64 << 10)
	rng := rand.New(rand.NewPCG(1, 2))
	type piece struct {
		m    memory
		mark byte
	}
	var live []piece
	for i := range 20_000 {
		if len(live) > 0 && (rng.IntN(2) == 0 || len(live) > 200) {
			k := rng.IntN(len(live))
			p := live[k]
			if p.m.buf[0] != p.mark || p.m.buf[len(p.m.buf)-1] != p.mark {
				t.Fatalf("piece %d was overwritten", i)
			}
			live[k] = live[len(live)-1]
			live = live[:len(live)-1]
			s.put(p.m)
			continue
		}
		m, err := s.get(1 << rng.IntN(17))
		require.NoError(t, err)
		p := piece{m, byte(i)}
		m.buf[0], m.buf[len(m.buf)-1] = p.mark, p.mark
		live = append(live, p)
	}
	for _, p := range live {
		s.put(p.m)
	}
	require.LessOrEqual(t, len(s.free), maxFreeSlabs)
	require.Zero(t, s.close(), "everything was unmapped")
}

func TestSlabsStayOutOfCoreDumps(t *testing.T) {
	s := newSlabs(1 << 20)
	m, err := s.get(1 << 20)
	require.NoError(t, err)
	copy(m.buf, "in use")
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	found := false
	inside := false
	for line := range bytes.Lines(smaps) {
		if f := strings.Fields(string(line)); len(f) > 0 && strings.Contains(f[0], "-") && !strings.HasSuffix(f[0], ":") {
			inside = contains(t, f[0], m.buf)
		} else if inside && len(f) > 0 && f[0] == "VmFlags:" {
			found = true
			require.Contains(t, f, "dd", "the mapping is not marked: %s", line)
		}
	}
	require.True(t, found, "the mapping is not in smaps")
	s.put(m)
	require.Zero(t, s.close())
}

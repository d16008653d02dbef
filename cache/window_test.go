package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
)

// Each step is one read and what the window asks for after it.
func TestWindow(t *testing.T) {
	type step struct {
		off, n int64
		want   plan
	}
	none := plan{}
	for _, tc := range []struct {
		name  string
		size  int64
		steps []step
	}{
		// |rrrrrrrr|        one read of the head asks for nothing more
		{"head only", 100 * mib, []step{{0, 128 * kib, none}}},

		// |rr......|aaaaaaaa|          the second in a row opens the window
		//  ^block 0  ^block 1
		{"sequential start", 100 * mib, []step{
			{0, 128 * kib, none},
			{128 * kib, 128 * kib, plan{mib, 2 * mib, mib}},
			{256 * kib, 128 * kib, none}, // less than a unit is open
			{384 * kib, 640 * kib, plan{2 * mib, 3 * mib, mib}},
		}},

		// Growth by reads of 1 MiB: the depth doubles with every unit that was
		// read, the unit is a quarter of it.
		{"growth", 200 * mib, []step{
			{0, mib, none},
			{1 * mib, mib, plan{2 * mib, 6 * mib, 1 * mib}},   // depth 4
			{2 * mib, mib, plan{6 * mib, 10 * mib, 2 * mib}},  // depth 8: to 11, whole units
			{3 * mib, mib, plan{10 * mib, 12 * mib, 2 * mib}}, // half a unit read
			{4 * mib, mib, plan{12 * mib, 20 * mib, 4 * mib}}, // depth 16
			{5 * mib, mib, none},
		}},

		// The kernel's requests overtake each other: no jump, nothing twice.
		//   1   3   2   4
		{"out of order", 100 * mib, []step{
			{0, 128 * kib, none},
			{256 * kib, 128 * kib, plan{mib, 2 * mib, mib}},
			{128 * kib, 128 * kib, none},
			{384 * kib, 640 * kib, plan{2 * mib, 3 * mib, mib}},
		}},
		{"the head comes second", 100 * mib, []step{
			{128 * kib, 128 * kib, none},
			{0, 128 * kib, none},
			{256 * kib, 768 * kib, plan{mib, 3 * mib, mib}},
		}},

		{"random", 1000 * mib, []step{
			{500 * mib, 4 * kib, none},
			{100 * mib, 4 * kib, none},
			{900 * mib, 4 * kib, none},
			{10 * mib, 4 * kib, none},
		}},

		// A jump closes the window; two reads in a row open it again, small.
		{"jump and on", 1000 * mib, []step{
			{0, mib, none},
			{mib, mib, plan{2 * mib, 6 * mib, mib}},
			{500 * mib, mib, none},
			{501 * mib, mib, plan{502 * mib, 504 * mib, mib}},
		}},

		// |rrrrrrrr|aaa|  the end of the file ends the last range
		{"end of file", 3*mib + 5, []step{
			{0, mib, none},
			{mib, mib, plan{2 * mib, 3*mib + 5, mib}},
			{2 * mib, mib, none},
			{3 * mib, 5, none},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := window{block: mib, size: tc.size}
			for i, s := range tc.steps {
				got := w.read(s.off, s.n)
				if got.from >= got.to {
					got = none
				}
				require.Equal(t, s.want, got, "step %d", i)
			}
		})
	}
}

func TestWindowReachesItsLimit(t *testing.T) {
	w := window{block: mib, size: 1000 * mib}
	var p plan
	for off := int64(0); off < 500*mib; off += mib {
		q := w.read(off, mib)
		require.LessOrEqual(t, w.ahead-w.hi, int64(maxDepth))
		if q.from < q.to {
			p = q
		}
	}
	require.EqualValues(t, maxRange, p.to-p.from)
	require.EqualValues(t, maxRange, p.unit)
	require.GreaterOrEqual(t, w.ahead-w.hi, int64(maxDepth-maxRange), "never less than three ranges ahead")
}

func TestWindowRefused(t *testing.T) {
	w := window{block: mib, size: 1000 * mib}
	var p plan
	off := int64(0)
	for ; p.to-p.from < maxRange; off += mib {
		p = w.read(off, mib)
	}
	depth := w.depth
	w.refused(p.from)
	require.Equal(t, depth/2, w.depth)
	require.Equal(t, p.from, w.ahead, "it will be asked for again")
	for range 10 {
		w.refused(p.from)
	}
	require.EqualValues(t, minDepth, w.depth)
	for p = (plan{}); p.from >= p.to; off += mib {
		p = w.read(off, mib)
	}
	require.Equal(t, w.roundUp(p.from), p.from)
}

// FuzzWindow: what is asked for lies within the file, in whole blocks, beyond
// the reads, not too far, and not twice unless there was a jump back.
func FuzzWindow(f *testing.F) {
	f.Add(int64(100<<20), []byte{0, 1, 0, 1, 0, 1, 0, 1, 7, 9, 0, 3, 200, 3, 5, 1})
	f.Fuzz(func(t *testing.T, size int64, moves []byte) {
		if size <= 0 || size > 1<<50 {
			return
		}
		const block = 64 << 10
		w := window{block: block, size: size}
		off := int64(0)
		for ; len(moves) >= 2; moves = moves[2:] {
			switch m := int64(moves[0]); {
			case m < 128: // in a row
			case m < 192: // near by
				off += (m - 160) * 32 << 10
			default:
				off += (m - 224) * 8 << 20
			}
			off = min(max(off, 0), size-1)
			n := min(1+int64(moves[1])*4096, size-off)
			before := w
			p := w.read(off, n)
			off += n
			if w.depth < 0 || w.depth > maxDepth {
				t.Fatalf("depth %d", w.depth)
			}
			if moves[0]%5 == 4 && p.from < p.to {
				w.refused(p.from)
			}
			if p.from >= p.to {
				continue
			}
			if p.unit <= 0 || p.unit%block != 0 || p.unit > maxRange || p.from%block != 0 || p.to > size || p.to%block != 0 && p.to != size {
				t.Fatalf("%+v: not whole blocks within %d bytes", p, size)
			}
			if p.to > off+maxDepth+block || p.from < off && p.from < before.ahead {
				t.Fatalf("%+v after a read that ended at %d", p, off)
			}
			if before.depth > 0 && before.hi <= off && p.from < before.ahead {
				t.Fatalf("%+v: asked for before (up to %d)", p, before.ahead)
			}
		}
	})
}

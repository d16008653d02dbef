package cache

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
)

// Each step is one read, for which the reader had to wait, and what the window
// asks for after it.
func TestWindow(t *testing.T) {
	type step struct {
		off, n int64
		want   plan
	}
	none, sparse := plan{}, plan{sparse: true}
	ask := func(from, to, unit int64) plan { return plan{from: from, to: to, unit: unit} }
	strides := func(from, n, step, count int64) plan {
		return plan{sparse: true, from: from, unit: n, step: step, count: count}
	}
	for _, tc := range []struct {
		name  string
		size  int64
		steps []step
	}{
		// |rrrrrrrr|        one read of the head asks for nothing more
		{"head only", 100 * mib, []step{{0, 128 * kib, none}}},

		// |rr......|aaaaaaaa|          the second in a row asks for more
		//  ^block 0  ^block 1
		{"sequential start", 100 * mib, []step{
			{0, 128 * kib, none},
			{128 * kib, 128 * kib, ask(mib, 2*mib, mib)},
			{256 * kib, 128 * kib, none}, // less than a unit is open
			{384 * kib, 640 * kib, ask(2*mib, 3*mib, mib)},
		}},

		// Growth by reads of 1 MiB: the depth doubles with every unit that was
		// read, the unit is a quarter of it.
		{"growth", 200 * mib, []step{
			{0, mib, none},
			{1 * mib, mib, ask(2*mib, 6*mib, 1*mib)},   // depth 4
			{2 * mib, mib, ask(6*mib, 10*mib, 2*mib)},  // depth 8: to 11, whole units
			{3 * mib, mib, ask(10*mib, 12*mib, 2*mib)}, // half a unit read
			{4 * mib, mib, ask(12*mib, 20*mib, 4*mib)}, // depth 16
			{5 * mib, mib, none},
		}},

		// The kernel's requests overtake each other: no jump, nothing twice.
		//   1   3   2   4
		{"out of order", 100 * mib, []step{
			{0, 128 * kib, none},
			{256 * kib, 128 * kib, ask(mib, 2*mib, mib)},
			{128 * kib, 128 * kib, none},
			{384 * kib, 640 * kib, ask(2*mib, 3*mib, mib)},
		}},
		{"the head comes second", 100 * mib, []step{
			{128 * kib, 128 * kib, none},
			{0, 128 * kib, none},
			{256 * kib, 768 * kib, ask(mib, 3*mib, mib)},
		}},

		{"random", 1000 * mib, []step{
			{500 * mib, 4 * kib, sparse},
			{100 * mib, 4 * kib, sparse},
			{900 * mib, 4 * kib, sparse},
			{10 * mib, 4 * kib, sparse},
		}},
		{"random in a file of one block", 500 * kib, []step{
			{400 * kib, 4 * kib, none},
			{300 * kib, 4 * kib, none},
		}},
		{"random, again and again in one block", 1000 * mib, []step{
			{500 * mib, 4 * kib, sparse},
			{100 * mib, 4 * kib, sparse},
			{500*mib + 600*kib, 4 * kib, sparse},
			{500*mib + 300*kib, 4 * kib, none},
		}},
		{"half of a block", 1000 * mib, []step{
			{500 * mib, 256 * kib, sparse},
			{100 * mib, 4 * kib, sparse},
			{500*mib + 700*kib, 256 * kib, none},
		}},

		// A large read comes in pieces: they need their block, and no more.
		{"random reads of 1 MiB in pieces", 1000 * mib, []step{
			{500 * mib, 256 * kib, sparse},
			{500*mib + 256*kib, 256 * kib, none},
			{500*mib + 512*kib, 256 * kib, none},
			{500*mib + 768*kib, 256 * kib, none},
			{501 * mib, 128 * kib, sparse}, // the kernel's read-ahead
			{100 * mib, 256 * kib, sparse},
			{100*mib + 512*kib, 256 * kib, none},
			{100*mib + 256*kib, 256 * kib, none},
			{100*mib + 768*kib, 256 * kib, none},
		}},

		// A jump begins another stream, small; the first one goes on.
		{"jump and on, and back", 1000 * mib, []step{
			{0, mib, none},
			{mib, mib, ask(2*mib, 6*mib, mib)},
			{500 * mib, mib, sparse},
			{501 * mib, mib, ask(502*mib, 504*mib, mib)},
			{2 * mib, mib, ask(6*mib, 10*mib, 2*mib)},
			{502 * mib, mib, ask(504*mib, 507*mib, mib)},
		}},

		//        <- 3 2 1
		{"backwards", 1000 * mib, []step{
			{500*mib + 512*kib, 256 * kib, sparse},
			{500*mib + 256*kib, 256 * kib, none},
			{500 * mib, 256 * kib, ask(498*mib, 500*mib, mib)},
			{499*mib + 768*kib, 256 * kib, none},
			{499 * mib, 768 * kib, ask(495*mib, 498*mib, mib)},
		}},
		{"backwards to the head", 6 * mib, []step{
			{5 * mib, mib, sparse},
			{4 * mib, mib, none},
			{3 * mib, mib, ask(mib, 3*mib, mib)},
			{2 * mib, mib, ask(0, mib, mib)},
			{mib, mib, none},
			{0, mib, none},
		}},

		// r...r...r...r...a...a
		{"strides", 1000 * mib, []step{
			{100 * mib, 64 * kib, sparse},
			{110 * mib, 64 * kib, sparse},
			{120 * mib, 64 * kib, sparse},
			{130 * mib, 64 * kib, strides(140*mib, 64*kib, 10*mib, 4)},
			{140 * mib, 64 * kib, strides(180*mib, 64*kib, 10*mib, 3)},
			{150 * mib, 64 * kib, strides(210*mib, 64*kib, 10*mib, 3)},
			{500 * mib, 64 * kib, sparse},
		}},
		{"strides down to the head", 1000 * mib, []step{
			{50 * mib, 64 * kib, sparse},
			{40 * mib, 64 * kib, sparse},
			{30 * mib, 64 * kib, sparse},
			{20 * mib, 64 * kib, strides(10*mib, 64*kib, -10*mib, 2)},
		}},
		{"a stream with gaps", 1000 * mib, []step{
			{500 * mib, 4 * kib, sparse},
			{500*mib + 100*kib, 4 * kib, sparse},
			{500*mib + 200*kib, 4 * kib, none},
			{500*mib + 300*kib, 4 * kib, none},
			{500*mib + 400*kib, 4 * kib, ask(501*mib, 502*mib, mib)},
		}},

		// |rrrrrrrr|aaa|  the end of the file ends the last range
		{"end of file", 3*mib + 5, []step{
			{0, mib, none},
			{mib, mib, ask(2*mib, 3*mib+5, mib)},
			{2 * mib, mib, none},
			{3 * mib, 5, none},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := window{block: mib, size: tc.size}
			for i, s := range tc.steps {
				w.stalled()
				got := w.read(s.off, s.n)
				if got.from >= got.to && got.count == 0 {
					got = plan{sparse: got.sparse}
				}
				require.Equal(t, s.want, got, "step %d", i)
			}
		})
	}
}

func TestWindowDoesNotGrowWhenNobodyWaits(t *testing.T) {
	w := window{block: mib, size: 1000 * mib}
	for off := int64(0); off < 500*mib; off += mib {
		w.read(off, mib)
		require.LessOrEqual(t, w.streams[0].ahead, off+mib+minDepth)
	}
}

// store is what a simulated store gives: so much latency, so many bytes a
// second on a connection and on all of them together.
type store struct {
	first       time.Duration
	conn, total float64
}

// simulate reads size bytes in order as fast as they come, and returns the
// rate of the last half in bytes a second, and the window.
func (s store) simulate(size int64) (float64, *window) {
	const piece = 128 * kib
	type transfer struct {
		from, to   int64
		begun, end time.Duration
		told       bool
	}
	w := &window{block: mib, size: size}
	var now, free, half time.Duration // free: when the link is
	var transfers []*transfer
	fetch := func(from, to int64) {
		n := float64(to - from)
		sec := func(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }
		end := now + s.first + sec(n/s.conn)
		if s.total > 0 {
			free = max(free, now+s.first) + sec(n/s.total)
			end = max(end, free)
		}
		transfers = append(transfers, &transfer{from: from, to: to, begun: now, end: end})
	}
	fetch(0, mib)
	for off := int64(0); off < size; off += piece {
		if off == size/2 {
			half = now
		}
		p := w.read(off, piece)
		for at := p.from; at < p.to; at += p.unit {
			fetch(at, min(at+p.unit, p.to))
		}
		var ready time.Duration
		for _, x := range transfers {
			if x.from <= off && off < x.to {
				// The bytes of a range come evenly, at the rate of its end.
				rest := float64(x.to-off-piece) / float64(x.to-x.from)
				ready = x.end - time.Duration(rest*float64(x.end-x.begun-s.first))
			}
		}
		if ready > now {
			w.stalled()
			now = ready
		}
		kept := transfers[:0]
		for _, x := range transfers {
			if x.end <= now && !x.told {
				x.told = true
				w.fetched(x.to-x.from, x.end-x.begun)
			}
			if x.to > off {
				kept = append(kept, x)
			}
		}
		transfers = kept
	}
	return float64(size/2) / (now - half).Seconds(), w
}

// A stream gets what its connections give, and no more of them than that takes.
func TestWindowAdaptsToTheStore(t *testing.T) {
	for _, tc := range []struct {
		name  string
		store store
		want  float64 // bytes a second
		depth int64   // at most
	}{
		{"30 ms, 90 MB/s a connection", store{30 * time.Millisecond, 90e6, 0},
			30 * float64(deepRange) / (0.030 + float64(deepRange)/90e6), maxDepth},
		{"the same on 1 GB/s", store{30 * time.Millisecond, 90e6, 1e9}, 1e9, maxDepth},
		{"the same on 300 MB/s", store{30 * time.Millisecond, 90e6, 300e6}, 300e6, 2 * calmDepth},
		{"10 Gbit/s near by", store{time.Millisecond, 600e6, 1.2e9}, 1.2e9, calmDepth},
		{"loopback", store{200 * time.Microsecond, 2e9, 2e9}, 2e9, calmDepth},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rate, w := tc.store.simulate(8 << 30)
			t.Logf("%.0f MB/s of %.0f, depth %d MiB", rate/1e6, tc.want/1e6, w.streams[0].depth>>20)
			require.GreaterOrEqual(t, rate, 0.95*tc.want)
			require.LessOrEqual(t, w.streams[0].depth, tc.depth)
		})
	}
}

func TestWindowRefused(t *testing.T) {
	w := window{block: mib, size: 1000 * mib}
	var p plan
	off := int64(0)
	for ; p.to-p.from < maxRange; off += mib {
		w.stalled()
		p = w.read(off, mib)
	}
	depth := w.streams[0].depth
	w.refused(p.from, 1<<40)
	require.Equal(t, depth*3/4, w.streams[0].depth)
	require.Equal(t, p.from, w.streams[0].ahead, "it will be asked for again")
	w.refused(w.streams[0].ahead-mib, depth/2)
	require.Equal(t, depth/2, w.streams[0].depth, "no more than the others")
	for range 20 {
		w.refused(w.streams[0].ahead-mib, 1<<40)
	}
	require.EqualValues(t, minDepth, w.streams[0].depth)
	for p = (plan{}); p.from >= p.to; off += mib {
		p = w.read(off, mib)
	}
	require.Equal(t, w.roundUp(p.from), p.from)
}

// However the kernel's requests of streams overtake one another: each block is
// asked for once, and each stream is taken for one.
func TestWindowOfInterleavedStreams(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		const piece, far = 128 * kib, 100 * mib
		n := 1 + rng.Int64N(maxStreams)
		w := window{block: mib, size: n * far}
		asked := map[int64]int{}
		at := make([][]int64, n) // offsets to read next, two requests in flight
		for s := range at {
			at[s] = []int64{int64(s) * far, int64(s)*far + piece}
		}
		for range 100 * n {
			s := rng.IntN(int(n))
			i := 0 // the older one
			if at[s][1]-at[s][0] < 3*piece {
				i = rng.IntN(2)
			}
			off := at[s][i]
			at[s] = []int64{at[s][1-i], max(at[s][0], at[s][1]) + piece}
			if rng.IntN(3) == 0 {
				w.stalled()
			}
			p := w.read(off, piece)
			for b := p.from; b < p.to; b += mib {
				asked[b]++
			}
		}
		require.Len(t, w.streams, int(n), "seed %d", seed)
		for b, times := range asked {
			require.Equal(t, 1, times, "seed %d: block at %d MiB", seed, b/mib)
		}
	}
}

// FuzzWindow: what is asked for lies within the file, in whole blocks or as
// large as the reads, beyond them and not too far.
func FuzzWindow(f *testing.F) {
	f.Add(int64(100<<20), []byte{0, 1, 0, 1, 0, 1, 0, 1, 7, 9, 0, 3, 200, 3, 5, 1})
	f.Add(int64(100<<20), []byte{255, 1, 225, 1, 225, 1, 225, 1, 225, 1, 225, 1})
	f.Add(int64(100<<20), []byte{240, 1, 130, 1, 130, 1, 130, 1, 130, 1, 130, 1})
	f.Fuzz(func(t *testing.T, size int64, moves []byte) {
		if size <= 0 || size > 1<<50 {
			return
		}
		const block = 64 << 10
		w := window{block: block, size: size}
		off := int64(0)
		for ; len(moves) >= 2; moves = moves[2:] {
			back := int64(0)
			switch m := int64(moves[0]); {
			case m < 128: // in a row
			case m < 160: // backwards
				back = 2 * (1 + int64(moves[1])*4096)
			case m < 192: // near by
				off += (m - 176) * 32 << 10
			default:
				off += (m - 224) * 8 << 20
			}
			off = min(max(off-back, 0), size-1)
			n := min(1+int64(moves[1])*4096, size-off)
			if moves[0]%3 == 1 {
				w.stalled()
			}
			p := w.read(off, n)
			s := w.streams[0]
			if len(w.streams) > maxStreams || s.depth < 0 || s.depth > maxDepth {
				t.Fatalf("%d streams, depth %d", len(w.streams), s.depth)
			}
			if moves[0]%5 == 4 && p.from < p.to {
				w.refused(p.from, 1<<40)
			}
			for i := range p.count {
				at := p.from + i*p.step
				if !p.sparse || p.unit != n || at < 0 || at+n > size || at == off || p.count > maxStrides {
					t.Fatalf("%+v after %d at %d of %d", p, n, off, size)
				}
			}
			off += n
			if p.from >= p.to || p.count > 0 {
				continue
			}
			if p.sparse || p.unit <= 0 || p.unit%block != 0 || p.unit > maxRange || p.from < 0 || p.from%block != 0 || p.to > size || p.to%block != 0 && p.to != size {
				t.Fatalf("%+v: not whole blocks within %d bytes", p, size)
			}
			if s.down && (p.to > off-n || p.from < off-n-maxDepth-block) || !s.down && (p.from < off || p.to > off+maxDepth+block) {
				t.Fatalf("%+v after a read from %d to %d", p, off-n, off)
			}
		}
	})
}

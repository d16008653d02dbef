package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

func TestReadAtEnds(t *testing.T) {
	c := testCache(t, Config{})
	f := newFake(200_000, 1)
	r := c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	for _, tc := range []struct {
		name string
		off  int64
		n    int
	}{
		{"head", 0, 10},
		{"across blocks", 65530, 100},
		{"several blocks", 10, 190_000},
		{"short at the end", 199_990, 100},
		{"at the end", 200_000, 10},
		{"beyond the end", 1 << 40, 10},
		{"nothing", 5, 0},
		{"huge at the end", 199_999, 1 << 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readAll(r, tc.off, tc.n)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want(f, tc.off, tc.n), got))
		})
	}
	_, err := r.ReadAt(t.Context(), -1, 1)
	require.ErrorIs(t, err, objstore.InvalidRange)
	big := newFake(c.MaxRead()+1, 1)
	rb := c.OpenReader(big, objstore.Ref{Key: "big", ETag: "v1"}, big.object())
	defer rb.Close()
	_, err = rb.ReadAt(t.Context(), 0, c.MaxRead()+1)
	require.ErrorIs(t, err, objstore.TooLarge)
	_, err = readAll(rb, 0, c.MaxRead())
	require.NoError(t, err)
	for _, ref := range f.refs {
		require.Equal(t, f.ref(), ref, "every Get asks for the version")
	}
	s, err := r.ReadAt(t.Context(), 200_000, 1)
	require.NoError(t, err)
	require.Zero(t, s.Len())
	require.Empty(t, s.Slices())
	s.Release()
	require.EqualValues(t, 200_000, r.Size())
	require.Equal(t, f.ref(), r.Ref())
}

func TestSpanStaysAfterReaderAndEviction(t *testing.T) {
	c := testCache(t, Config{MemoryBytes: 16 * 64 << 10})
	f := newFake(64*64<<10, 2)
	r := c.OpenReader(f, f.ref(), f.object())
	s, err := r.ReadAt(t.Context(), 1000, 64<<10)
	require.NoError(t, err)
	for off := int64(0); off < int64(len(f.data)); off += 64 << 10 {
		_, err := readAll(r, off, 64<<10)
		require.NoError(t, err)
	}
	require.NoError(t, r.Close())
	require.True(t, bytes.Equal(want(f, 1000, 64<<10), bytes.Join(s.Slices(), nil)))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(s.Release)
	}
	wg.Wait()
	s.Release()
}

// Random reads by several handles and goroutines, with faults that may make a
// read fail and must never make it wrong.
func TestReaderModel(t *testing.T) {
	for _, faulty := range []bool{false, true} {
		t.Run(fmt.Sprint("faults ", faulty), func(t *testing.T) {
			c := testCache(t, Config{MemoryBytes: 24 * 64 << 10})
			f := newFake(3_000_000, 3)
			f.piece = 7001
			if faulty {
				f.fault = func(n int, a *answer) {
					switch n % 11 {
					case 3:
						a.cut = 1 + n*997%40_000
					case 5:
						a.cut, a.cutErr = 1+n*991%60_000, errCut
					case 7:
						a.err = errCut
					case 9:
						a.obj.ETag = "v2"
					}
				}
			}
			var wg sync.WaitGroup
			for h := range 3 {
				r := c.OpenReader(f, f.ref(), f.object())
				defer r.Close()
				for g := range 3 {
					wg.Go(func() {
						rng := rand.New(rand.NewPCG(uint64(h), uint64(g)))
						off := int64(0)
						failed := 0
						for range 300 {
							if rng.IntN(4) == 0 {
								off = rng.Int64N(int64(len(f.data)) + 1000)
							}
							n := rng.IntN(c.MaxRead())
							got, err := readAll(r, off, n)
							if err != nil {
								failed++
								if !faulty || objstore.KindOf(err) == objstore.Unknown {
									t.Errorf("read %d at %d: %v", n, off, err)
								}
								continue
							}
							if !bytes.Equal(got, want(f, off, n)) {
								t.Errorf("wrong bytes: %d at %d", n, off)
							}
							off += int64(n)
							if off >= int64(len(f.data)) {
								off = 0
							}
						}
						if faulty && failed == 300 {
							t.Error("every read failed")
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// Sixty-four handles with a budget for sixteen blocks: everybody gets on.
func TestManyReadersTinyBudget(t *testing.T) {
	c := testCache(t, Config{MemoryBytes: 16 * 64 << 10})
	var wg sync.WaitGroup
	for i := range 64 {
		f := newFake(700_000, uint64(i))
		f.piece = 20_000
		r := c.OpenReader(f, objstore.Ref{Bucket: "b", Key: fmt.Sprint(i), ETag: "v1"}, f.object())
		wg.Go(func() {
			defer r.Close()
			for off := int64(0); off < r.Size(); off += 50_000 {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				s, err := r.ReadAt(ctx, off, 50_000)
				if err != nil {
					t.Errorf("handle %d at %d: %v", i, off, err)
					cancel()
					return
				}
				if !bytes.Equal(bytes.Join(s.Slices(), nil), want(f, off, 50_000)) {
					t.Errorf("handle %d: wrong bytes at %d", i, off)
				}
				s.Release()
				cancel()
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.pool.budget.Used(), c.pool.budget.Capacity())
}

// Buffers that cannot be sealed must not starve reads.
func TestReadsPassStuckStages(t *testing.T) {
	c := testCache(t, Config{MemoryBytes: 32 * 64 << 10})
	var stages []*Stage
	for range 8 {
		s, err := c.NewStage(nil, 0)
		require.NoError(t, err)
		stages = append(stages, s)
		_, err = s.WriteAt(make([]byte, 6*frameBytes), 0)
		require.NoError(t, err)
	}
	for _, s := range stages {
		s.mu.Lock() // busy for ever: relieve passes by
	}
	f := newFake(64*64<<10, 4)
	r := c.OpenReader(f, f.ref(), f.object())
	for off := int64(0); off < r.Size(); off += 100_000 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := r.ReadAt(ctx, off, 100_000)
		require.NoError(t, err)
		s.Release()
		cancel()
	}
	require.NoError(t, r.Close())
	for _, s := range stages {
		s.mu.Unlock()
		require.NoError(t, s.Close())
	}
}

func TestReaderWaitsForItsBytesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{})
		f := newFake(64<<10, 5)
		f.piece = 1 << 10
		f.fault = func(_ int, a *answer) { a.stallAt = 10 << 10 }
		r := c.OpenReader(f, f.ref(), f.object())
		got, err := readAll(r, 100, 9000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want(f, 100, 9000), got))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = r.ReadAt(ctx, 9000, 9000)
		require.ErrorIs(t, err, objstore.Unavailable, "the bytes after the stall are not there")
		start := time.Now()
		_, err = readAll(r, 9000, 9000)
		require.ErrorIs(t, err, objstore.Unavailable, "the fetch has a deadline")
		require.Equal(t, DefaultFetchTimeout, time.Since(start)+time.Second)
		require.NoError(t, r.Close())
		closeCache(t, c)
	})
}

func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{})
		f := newFake(64<<10, 6)
		gate := make(chan struct{})
		f.fault = func(_ int, a *answer) { a.gate = gate }
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		var gaveUp error
		first := c.OpenReader(f, f.ref(), f.object())
		wg.Go(func() { _, gaveUp = first.ReadAt(ctx, 0, 100) }) // it starts the fetch
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				r := c.OpenReader(f, f.ref(), f.object())
				defer r.Close()
				got, err := readAll(r, 0, 1000)
				if err != nil || !bytes.Equal(got, f.data[:1000]) {
					t.Errorf("read: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel() // the one who began it leaves
		synctest.Wait()
		require.ErrorIs(t, gaveUp, objstore.Canceled)
		close(gate)
		wg.Wait()
		require.EqualValues(t, 1, f.gets.Load())
		require.NoError(t, first.Close())

		// And afterwards it is cached.
		r := c.OpenReader(f, f.ref(), f.object())
		_, err := readAll(r, 5000, 1000)
		require.NoError(t, err)
		require.EqualValues(t, 1, f.gets.Load())
		require.NoError(t, r.Close())
		st := c.Stats()
		require.EqualValues(t, 1, st.Misses)
		require.EqualValues(t, 10, st.Joins)
		require.EqualValues(t, 1, st.Hits)
		closeCache(t, c)
	})
}

func TestClosedReaderLeavesOthersReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{})
		f := newFake(64<<10, 7)
		f.fault = func(n int, a *answer) {
			if n == 1 {
				a.stallAt = 1
			}
		}
		a := c.OpenReader(f, f.ref(), f.object())
		b := c.OpenReader(f, f.ref(), f.object())
		var errA, errB error
		var got []byte
		go func() { _, errA = a.ReadAt(t.Context(), 0, 100) }()
		synctest.Wait()
		go func() { got, errB = readAll(b, 0, 100) }()
		synctest.Wait()
		require.EqualValues(t, 1, f.gets.Load())
		require.NoError(t, a.Close())
		synctest.Wait()
		require.ErrorIs(t, errA, os.ErrClosed)
		require.NoError(t, errB)
		require.Equal(t, f.data[:100], got)
		require.EqualValues(t, 2, f.gets.Load(), "the other handle fetched for itself")
		_, err := a.ReadAt(t.Context(), 0, 1)
		require.ErrorIs(t, err, os.ErrClosed)
		require.NoError(t, b.Close())
		require.NoError(t, b.Close())
		require.Zero(t, f.open.Load())
		closeCache(t, c)
	})
}

func TestReaderFaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault func(a *answer)
		kind  objstore.Kind
	}{
		{"Get fails", func(a *answer) { a.err = errCut }, objstore.Unavailable},
		{"Get is denied", func(a *answer) { a.err = fmt.Errorf("x: %w", objstore.Permission) }, objstore.Permission},
		{"version is gone", func(a *answer) { a.err = &objstore.Error{Kind: objstore.Stale} }, objstore.Stale},
		{"If-Match ignored", func(a *answer) { a.obj.ETag = "other" }, objstore.Stale},
		{"other length", func(a *answer) { a.obj.Size++ }, objstore.Integrity},
		{"short body", func(a *answer) { a.cut = 60_000 }, objstore.Integrity},
		{"short by one", func(a *answer) { a.cut = 99_999 }, objstore.Integrity},
		{"long body", func(a *answer) { a.extra = 1 }, objstore.Integrity},
		{"cut in mid-stream", func(a *answer) { a.cut, a.cutErr = 60_000, errCut }, objstore.Unavailable},
		{"unexpected EOF", func(a *answer) { a.cut, a.cutErr = 60_000, io.ErrUnexpectedEOF }, objstore.Integrity},
		{"strange error", func(a *answer) { a.cut, a.cutErr = 60_000, errors.New("odd") }, objstore.Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testCache(t, Config{})
			f := newFake(100_000, 8)
			f.fault = func(n int, a *answer) {
				if n <= 2 {
					tc.fault(a)
				}
			}
			r := c.OpenReader(f, f.ref(), f.object())
			defer r.Close()
			for range 2 {
				_, err := readAll(r, 0, 100_000)
				require.Error(t, err)
				var oe *objstore.Error
				require.ErrorAs(t, err, &oe)
				require.Equal(t, tc.kind, objstore.KindOf(err), "%v", err)
			}
			got, err := readAll(r, 0, 100_000)
			require.NoError(t, err, "the error is not cached")
			require.True(t, bytes.Equal(f.data, got))
			require.NoError(t, r.Close())
			require.Zero(t, f.open.Load(), "bodies left open")
		})
	}
}

func TestFailureReachesEveryWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{})
		f := newFake(64<<10, 9)
		f.delay = time.Second
		f.fault = func(n int, a *answer) { a.err = errCut }
		r := c.OpenReader(f, f.ref(), f.object())
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := readAll(r, 0, 10); !errors.Is(err, objstore.Unavailable) {
					t.Errorf("waiter got %v", err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, f.gets.Load())
		require.EqualValues(t, 1, c.Stats().FetchErrors)
		require.NoError(t, r.Close())
		closeCache(t, c)
	})
}

func TestSequentialReadsKeepRangesInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: 256 << 20})
		f := newFake(100<<20, 10)
		f.delay = 20 * time.Millisecond
		r := c.OpenReader(f, f.ref(), f.object())
		start := time.Now()
		for off := int64(0); off < r.Size(); off += 128 << 10 {
			got, err := readAll(r, off, 128<<10)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want(f, off, 128<<10), got), "at %d", off)
		}
		// Block by block it would be 100 delays. Bytes cost no time here, so
		// each round trip brings at most one window.
		require.LessOrEqual(t, time.Since(start), 12*f.delay)
		largest, total := int64(0), int64(0)
		for _, q := range f.requests {
			largest, total = max(largest, q.Length), total+q.Length
		}
		require.EqualValues(t, deepRange, largest)
		require.EqualValues(t, len(f.data), total, "every byte once")
		require.NoError(t, r.Close())
		require.Zero(t, c.Stats().WastedBytes)
		closeCache(t, c)
	})
}

// wire is a store with latency and a rate on each connection, in the time of
// a synctest. Its bytes are whatever the memory holds.
type wire struct {
	size  int64
	first time.Duration
	rate  float64 // bytes a second
	open  atomic.Int64
	most  atomic.Int64
}

func (w *wire) Get(_ context.Context, _ objstore.Ref, o objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	n := w.open.Add(1)
	for m := w.most.Load(); n > m && !w.most.CompareAndSwap(m, n); m = w.most.Load() {
	}
	time.Sleep(w.first)
	return &wireBody{w: w, left: o.Range.Length}, objectOf(w.size), nil
}

type wireBody struct {
	w    *wire
	left int64
}

func (b *wireBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.left, 1<<20)
	time.Sleep(time.Duration(float64(n) / b.w.rate * float64(time.Second)))
	b.left -= n
	return int(n), nil
}

func (b *wireBody) Close() error { b.w.open.Add(-1); return nil }

// readPieces reads all of r in order.
func readPieces(t *testing.T, r *Reader, piece int) {
	for off := int64(0); off < r.Size(); off += int64(piece) {
		s, err := r.ReadAt(t.Context(), off, piece)
		if err != nil {
			t.Error(err)
			return
		}
		s.Release()
	}
}

// readThrough reads size bytes in order and returns the rate of the last half.
func readThrough(t *testing.T, r *Reader) float64 {
	t.Helper()
	var half time.Time
	for off := int64(0); off < r.Size(); off += 1 << 20 {
		if off == r.Size()/2 {
			half = time.Now()
		}
		s, err := r.ReadAt(t.Context(), off, 1<<20)
		require.NoError(t, err)
		s.Release()
	}
	return float64(r.Size()/2) / time.Since(half).Seconds()
}

// A stream over latency fills the budget with transfers, at the cost of the
// tier, which keeps its floor. With one processor, reader and transfers run in
// another order than with two.
func TestStreamOverLatencyReachesTheSumOfItsConnections(t *testing.T) {
	for _, tc := range []struct {
		memory int64
		conns  float64
		procs  int
	}{
		{512 << 20, 30, 1},
		{512 << 20, 30, 2},
		{256 << 20, 21, 1}, // of 24 in 7/8 - 1/8 of the budget, less what was just read, and what is refused
		{256 << 20, 21, 2},
	} {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(tc.procs))
		synctest.Test(t, func(t *testing.T) {
			c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: tc.memory})
			cached := &wire{size: c.tier.limit / 2 >> 20 << 20, rate: 2e9}
			r := c.OpenReader(cached, objstore.Ref{Bucket: "b", Key: "cached", ETag: "v1"}, objectOf(cached.size))
			readThrough(t, r)
			require.NoError(t, r.Close())
			require.Equal(t, cached.size, c.Stats().CachedBytes)
			w := &wire{size: 4 << 30, first: 30 * time.Millisecond, rate: 90e6}
			r = c.OpenReader(w, objstore.Ref{Bucket: "b", Key: "k", ETag: "v1"}, objectOf(w.size))
			rate := readThrough(t, r)
			sum := tc.conns * float64(deepRange) / (w.first.Seconds() + float64(deepRange)/w.rate)
			t.Logf("%d MiB, %d processors: %.0f MB/s of %.0f, at most %d connections, %d refused", tc.memory>>20, tc.procs, rate/1e6, sum/1e6, w.most.Load(), c.Stats().PrefetchRefused)
			require.GreaterOrEqual(t, rate, 0.95*sum)
			require.GreaterOrEqual(t, c.Stats().CachedBytes, tc.memory/8, "the tier's floor")
			require.LessOrEqual(t, c.Stats().CachedBytes, cached.size, "what passes is not cached")
			require.NoError(t, r.Close())
			closeCache(t, c)
		})
	}
}

// Many streams share what there is: nobody starves, the budget holds, and what
// was fetched ahead is not given up for others, who would fetch ahead as well.
func TestStreamsShareTheBudget(t *testing.T) {
	for _, tc := range []struct {
		memory, size int64
		piece        int
		most         time.Duration // of 41.7 ms a MiB, which is what it takes with nothing ahead
	}{
		{256 << 20, 64 << 20, 1 << 20, 3500 * time.Millisecond}, // who comes late gets that
		{256 << 20, 192 << 20, 1 << 20, 8 * time.Second},        // passes by the memory tier
		{256 << 20, 192 << 20, 128 << 10, 8 * time.Second},      // as the kernel reads
		{64 << 20, 64 << 20, 128 << 10, 8 * time.Second},        // there is no more than a block for each
	} {
		t.Run(fmt.Sprintf("%d MiB, %d MiB, %d KiB", tc.memory>>20, tc.size>>20, tc.piece>>10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: tc.memory})
				var wg sync.WaitGroup
				var took [64]time.Duration
				for i := range took {
					w := &wire{size: tc.size, first: 30 * time.Millisecond, rate: 90e6}
					r := c.OpenReader(w, objstore.Ref{Bucket: "b", Key: fmt.Sprint(i), ETag: "v1"}, objectOf(w.size))
					wg.Go(func() {
						start := time.Now()
						readPieces(t, r, tc.piece)
						took[i] = time.Since(start)
						if err := r.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				slices.Sort(took[:])
				s := c.Stats()
				t.Logf("%v, %v, %v; %d refused, %.3f fetched, %.3f wasted", took[0], took[32], took[63], s.PrefetchRefused,
					float64(s.FetchedBytes)/float64(64*tc.size), float64(s.WastedBytes)/float64(64*tc.size))
				require.Less(t, took[63], tc.most)
				require.Less(t, s.FetchedBytes, 64*tc.size*11/10)
				closeCache(t, c)
			})
		})
	}
}

// What an idle stream has fetched ahead stays when memory is short for a moment, and
// goes when it does not come back otherwise.
func TestFetchedAheadIsGivenUpLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const block = 64 << 10
		c := testCache(t, Config{BlockBytes: block, MemoryBytes: 64 * block})
		f := newFake(int(c.tier.limit)+block, 1) // passes by the memory tier
		r := c.OpenReader(f, f.ref(), f.object())
		read := func(off int64) {
			got, err := readAll(r, off, block)
			require.NoError(t, err)
			require.Equal(t, want(f, off, block), got)
		}
		for i := range int64(4) {
			read(i * block)
		}
		synctest.Wait()
		held := c.pool.budget.Used()
		require.Greater(t, held, int64(8*block))
		c.relieve(false)
		ahead := c.pool.budget.Used()
		require.Less(t, ahead, held, "what was read")
		fetches := c.Stats().Fetches
		read(4 * block)
		require.Equal(t, fetches, c.Stats().Fetches, "what is ahead")

		begun := time.Now()
		require.NoError(t, c.pool.budget.Acquire(t.Context(), c.pool.budget.Capacity()))
		require.Equal(t, patience, time.Since(begun))
		c.pool.budget.Release(c.pool.budget.Capacity())
		read(5 * block)
		require.NoError(t, r.Close())
		closeCache(t, c)
	})
}

// One Get a read, of its own pages, in whichever blocks they lie.
func TestRandomReadsFetchTheirPagesOnly(t *testing.T) {
	const size = 64 << 20
	for _, n := range []int{100, 4 << 10, 48 << 10} {
		t.Run(fmt.Sprint(n, " bytes"), func(t *testing.T) {
			c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: 64 << 20})
			f := newFake(size+5, 11)
			r := c.OpenReader(f, f.ref(), f.object())
			defer r.Close()
			const reads = 60
			pages := int64(0)
			for i := range reads {
				// A different block each time; every third read lies across two.
				off := int64(1+i*37%61)<<20 + int64(i%2)*333 - int64(i%3/2*n/2)
				got, err := readAll(r, off, n)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want(f, off, n), got), "at %d", off)
				pages += (off+int64(n)-1)/minSlot - off/minSlot + 1
			}
			got, err := readAll(r, size-100, 200) // the last page is short
			require.NoError(t, err)
			require.True(t, bytes.Equal(want(f, size-100, 200), got))
			require.EqualValues(t, reads+1, f.gets.Load(), "requests")
			require.EqualValues(t, pages*minSlot+minSlot+5, c.Stats().FetchedBytes)
		})
	}
}

func TestPartsAreFoundAgain(t *testing.T) {
	c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: 64 << 20})
	f := newFake(32<<20, 12)
	read := func(r *Reader, off int64, n int) {
		t.Helper()
		got, err := readAll(r, off, n)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want(f, off, n), got))
	}
	a := c.OpenReader(f, f.ref(), f.object())
	read(a, 5<<20, 64<<10)
	a.win = window{block: 1 << 20, size: 32 << 20, streams: make([]stream, 1)}
	read(a, 5<<20+4096, 8192) // within what the handle holds
	require.EqualValues(t, 1, f.gets.Load())
	require.NoError(t, a.Close())

	b := c.OpenReader(f, f.ref(), f.object())
	defer b.Close()
	read(b, 5<<20, 64<<10) // the same, from the tier
	require.EqualValues(t, 1, f.gets.Load())
	read(b, 5<<20+64<<10, 64<<10) // the next: all of the block
	require.EqualValues(t, 2, f.gets.Load())
	require.EqualValues(t, 1<<20, f.requests[1].Length)
	b.win = window{block: 1 << 20, size: 32 << 20, streams: make([]stream, 1)}
	read(b, 5<<20+500<<10, 4096) // the block serves for its parts
	require.EqualValues(t, 2, f.gets.Load())
	read(b, 5<<20+1<<20-4096, 8192) // a part beside a block that is there
	require.EqualValues(t, 4096, f.requests[2].Length)
}

// What is fetched ahead of reads at equal distances is not fetched when the blocks
// that have it are cached.
func TestStridedReadsUseCachedBlocks(t *testing.T) {
	c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: 128 << 20})
	f := newFake(32<<20, 14)
	r := c.OpenReader(f, f.ref(), f.object())
	for off := int64(0); off < r.Size(); off += 1 << 20 {
		_, err := readAll(r, off, 1<<20)
		require.NoError(t, err)
	}
	require.NoError(t, r.Close())
	require.EqualValues(t, r.Size(), c.Stats().CachedBytes)
	gets := f.gets.Load()
	r = c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	for off := int64(2 << 20); off < r.Size(); off += 3 << 20 {
		got, err := readAll(r, off, 16<<10)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want(f, off, 16<<10), got))
	}
	require.Equal(t, gets, f.gets.Load())
}

// Reads at equal distances are fetched ahead, and nothing between them.
func TestStridedReadsAreFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{BlockBytes: 1 << 20, MemoryBytes: 64 << 20})
		f := newFake(256<<20, 13)
		f.delay = 30 * time.Millisecond
		r := c.OpenReader(f, f.ref(), f.object())
		start := time.Now()
		reads := int64(0)
		for off := int64(2 << 20); off < r.Size(); off += 3 << 20 {
			got, err := readAll(r, off, 16<<10)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want(f, off, 16<<10), got))
			reads++
		}
		require.Less(t, time.Since(start), 20*f.delay, "%d reads", reads)
		require.EqualValues(t, reads, f.gets.Load())
		require.EqualValues(t, reads*16<<10, c.Stats().FetchedBytes)
		require.NoError(t, r.Close())
		require.Zero(t, c.Stats().WastedBytes)
		closeCache(t, c)
	})
}

func TestVersionsDoNotMix(t *testing.T) {
	c := testCache(t, Config{})
	old, cur := newFake(50_000, 12), newFake(50_000, 13)
	cur.etag = "v2"
	a := c.OpenReader(old, old.ref(), objectOf(50_000))
	defer a.Close()
	b := c.OpenReader(cur, cur.ref(), objectOf(50_000))
	defer b.Close()
	for range 2 {
		got, err := readAll(a, 0, 50_000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(old.data, got))
		got, err = readAll(b, 0, 50_000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(cur.data, got))
	}
	// Without a version nothing is shared.
	for _, f := range []*fakeStore{old, cur} {
		f.etag = ""
		r := c.OpenReader(f, f.ref(), objectOf(50_000))
		got, err := readAll(r, 0, 50_000)
		require.NoError(t, err)
		require.True(t, bytes.Equal(f.data, got))
		require.NoError(t, r.Close())
	}
}

func TestCloseEndsGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	c, err := New(Config{StoreID: "s", ScratchDir: t.TempDir(), BlockBytes: 64 << 10, MemoryBytes: 4 << 20})
	require.NoError(t, err)
	f := newFake(4<<20, 14)
	f.fault = func(n int, a *answer) {
		if a.rng.Offset >= 128<<10 { // all that is only fetched ahead
			a.stallAt = 1
		}
	}
	r := c.OpenReader(f, f.ref(), f.object())
	for off := int64(0); off < 128<<10; off += 4096 {
		_, err := readAll(r, off, 4096)
		require.NoError(t, err)
	}
	require.Error(t, c.Close(), "a reader is open")
	require.NotZero(t, c.Stats().PrefetchBytes)
	require.NoError(t, r.Close())
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.Zero(t, f.open.Load())
	for i := 0; runtime.NumGoroutine() > before; i++ {
		if i == 1000 {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func BenchmarkReadAtHit(b *testing.B) {
	c := testCache(b, Config{BlockBytes: 1 << 20, MemoryBytes: 64 << 20})
	f := newFake(8<<20, 15)
	r := c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	_, err := readAll(r, 0, 1<<20)
	require.NoError(b, err)
	b.SetBytes(128 << 10)
	b.ReportAllocs()
	for b.Loop() {
		s, err := r.ReadAt(context.Background(), 0, 128<<10)
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}

func BenchmarkReadSequentialCold(b *testing.B) {
	c := testCache(b, Config{BlockBytes: 1 << 20, MemoryBytes: 256 << 20})
	f := newFake(256<<20, 16)
	f.etag = "" // nothing is shared: every handle reads cold
	b.SetBytes(int64(len(f.data)))
	b.ReportAllocs()
	for b.Loop() {
		r := c.OpenReader(f, f.ref(), f.object())
		for off := int64(0); off < r.Size(); off += 128 << 10 {
			s, err := r.ReadAt(context.Background(), off, 128<<10)
			if err != nil {
				b.Fatal(err)
			}
			s.Release()
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

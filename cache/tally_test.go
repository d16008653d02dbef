package cache

import (
	"hash/crc32"
	"hash/crc64"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

// stored is what the store says of the fake's object, with a checksum.
func (f *fakeStore) stored(c objstore.CRC) objstore.Object {
	o := f.object()
	sum := crc64.Checksum(f.data, crc64.MakeTable(c.Poly))
	if c.Bits == 32 {
		sum = uint64(crc32.Checksum(f.data, crc32.MakeTable(uint32(c.Poly))))
	}
	o.Checksum, o.ChecksumOfWhole = c.Name+":"+c.Text(sum), true
	return o
}

// Whoever reads all of an object learns that a bit of a range was flipped, by
// the last read at the latest, in whatever order the reads come; and the next
// reader does not meet the damaged bytes.
func TestFlippedBitOfARangeIsNoticed(t *testing.T) {
	const piece = 32 << 10
	for _, crc := range objstore.CRCs {
		for name, order := range map[string]func(n int) []int{
			"forward":  func(n int) []int { return ascending(n) },
			"shuffled": func(n int) []int { return rand.Perm(n) },
		} {
			t.Run(crc.Name+" "+name, func(t *testing.T) {
				c := testCache(t, Config{})
				f := newFake(400_000, 3)
				pieces := order((len(f.data) + piece - 1) / piece)
				f.fault = func(n int, a *answer) { a.flip = n == 2 }
				r := c.OpenReader(f, f.ref(), f.stored(crc))
				var err error
				for _, p := range pieces {
					if _, err = readAll(r, int64(p)*piece, piece); err != nil {
						break
					}
				}
				require.ErrorIs(t, err, objstore.Integrity)
				require.ErrorContains(t, err, "b/k")
				_, err = readAll(r, 0, 10)
				require.ErrorIs(t, err, objstore.Integrity, "the handle keeps its error")
				require.NoError(t, r.Close())

				r = c.OpenReader(f, f.ref(), f.stored(crc))
				defer r.Close()
				got, err := readAll(r, 0, len(f.data))
				require.NoError(t, err)
				require.Equal(t, f.data, got)
			})
		}
	}
}

func ascending(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	return p
}

func TestTallyComparesOnlyWhatWasRead(t *testing.T) {
	c := testCache(t, Config{})
	f := newFake(400_000, 4)
	o := f.stored(objstore.CRC32)
	wrong := o
	wrong.Checksum = "CRC32:AAAAAA=="
	for _, tt := range []struct {
		name string
		o    objstore.Object
		n    int
		want error
	}{
		{"all, right", o, len(f.data), nil},
		{"all, wrong", wrong, len(f.data), objstore.Integrity},
		{"all but the last byte", wrong, len(f.data) - 1, nil},
		{"no checksum", f.object(), len(f.data), nil},
	} {
		r := c.OpenReader(f, f.ref(), tt.o)
		_, err := readAll(r, 0, tt.n)
		if tt.want == nil {
			require.NoError(t, err, tt.name)
		} else {
			require.ErrorIs(t, err, tt.want, tt.name)
		}
		require.NoError(t, r.Close())
	}
}

// A bit that was flipped before its block went to disk is noticed by whoever reads all
// of the object from there, whose blocks are not summed again.
func TestFlippedBitOnDiskIsNoticed(t *testing.T) {
	const block = 64 << 10
	for _, crc := range objstore.CRCs {
		dir := t.TempDir()
		f := newFake(4*block, 3)
		f.fault = func(n int, a *answer) { a.flip = n == 2 }
		c := newDiskCache(t, dir, func(cfg *Config) { cfg.MemoryBytes = 8 << 20 })
		for _, at := range []int64{2, 1, 3, 0} { // nobody reads all of it
			r := c.OpenReader(f, f.ref(), f.stored(crc))
			_, err := readAll(r, at*block, block)
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}
		written(t, c, 4)
		closeCache(t, c)

		c = newDiskCache(t, dir, func(cfg *Config) { cfg.MemoryBytes = 8 << 20 })
		gets := f.gets.Load()
		r := c.OpenReader(f, f.ref(), f.stored(crc))
		_, err := readAll(r, 0, 4*block)
		require.ErrorIs(t, err, objstore.Integrity, crc.Name)
		require.Equal(t, gets, f.gets.Load(), "it was not read from disk")
		require.NoError(t, r.Close())
		r = c.OpenReader(f, f.ref(), f.stored(crc))
		got, err := readAll(r, 0, 4*block)
		require.NoError(t, err)
		require.Equal(t, f.data, got)
		require.NoError(t, r.Close())
		closeCache(t, c)
	}
}

// What a block sums to is found out once, and stays with it on disk.
func TestBlocksAreSummedOnce(t *testing.T) {
	const block = 64 << 10
	dir := t.TempDir()
	f := newFake(4*block, 3)
	o := f.stored(objstore.CRC32C)
	read := func(c *Cache) (r *Reader) {
		t.Helper()
		r = c.OpenReader(f, f.ref(), o)
		s, err := r.ReadAt(t.Context(), 0, 4*block)
		require.NoError(t, err)
		for _, b := range s.blocks {
			require.True(t, b.summed.Load())
			sum := crc32.Checksum(b.data, crc32.MakeTable(crc32.Castagnoli))
			require.EqualValues(t, sum, b.checksum())
		}
		s.Release()
		return r
	}
	c := newDiskCache(t, dir, func(cfg *Config) { cfg.MemoryBytes = 8 << 20 })
	require.NoError(t, read(c).Close())
	written(t, c, 4)
	closeCache(t, c)
	c = newDiskCache(t, dir, func(cfg *Config) { cfg.MemoryBytes = 8 << 20 })
	r := c.OpenReader(f, f.ref(), o)
	b, err := c.pool.newBlock(r.keyOf(request{off: block, end: block + 1}, 0), block, false)
	require.NoError(t, err)
	require.NoError(t, c.pool.budget.Acquire(t.Context(), c.pool.cost(block)))
	b.crc = objstore.CRC32C
	require.True(t, c.disk.read(b))
	require.True(t, b.summed.Load(), "the sum was not on disk")
	b.release()
	require.NoError(t, r.Close())
	require.NoError(t, read(c).Close())
	closeCache(t, c)
}

// A part that was read by itself counts as it was, not as it comes again with
// all of its block.
func TestTallyCountsParts(t *testing.T) {
	const block = 250_000
	f := newFake(4*block, 7)
	o := f.stored(objstore.CRC32C)
	for _, flip := range []int{-1, 250_000, 250_100, 310_000, 499_999} {
		for range 10 {
			y := newTally("b/k", o, block)
			order := rand.Perm(4)
			for _, b := range order {
				if b == 1 {
					for _, p := range [][2]int{{250_000, 250_200}, {300_000, 320_000}, {250_200, 250_300}, {499_000, 500_000}} {
						part := append([]byte(nil), f.data[p[0]:p[1]]...)
						if p[0] <= flip && flip < p[1] {
							part[flip-p[0]] ^= 1
						}
						require.NoError(t, y.add(int64(p[0]), part, nil))
					}
				}
				_ = y.add(int64(b)*block, f.data[b*block:(b+1)*block], nil)
			}
			if flip >= 0 {
				require.ErrorIs(t, y.damaged(), objstore.Integrity, "flip %d, order %v", flip, order)
				continue
			}
			require.NoError(t, y.damaged())
			require.Equal(t, []run{{0, y.size, y.want}}, y.runs)
		}
	}
}

// A million reads here and there cost no memory for ever.
func TestTallyGivesUp(t *testing.T) {
	f := newFake(1_000_000, 5)
	o := f.stored(objstore.CRC32)
	o.Size = 1 << 40
	y := newTally("b/k", o, 100)
	for i := range int64(2 * maxRuns) {
		require.NoError(t, y.add(200*i, f.data[:100], nil))
		require.LessOrEqual(t, len(y.runs), maxRuns)
	}
	require.Nil(t, y.runs)
}

func BenchmarkTally(b *testing.B) {
	f := newFake(1<<20, 6)
	for _, crc := range objstore.CRCs {
		b.Run(crc.Name, func(b *testing.B) {
			o := f.stored(crc)
			o.Size = 1 << 60
			y := newTally("b/k", o, 1<<20)
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				_ = y.add(off, f.data, nil)
				off += 1 << 20
			}
		})
	}
}

// A read waits for all of a part of a block, which is counted as a whole, and of a block
// for the bytes that it is for.
func TestReadsWaitForWholeParts(t *testing.T) {
	const block = 64 << 10
	c := testCache(t, Config{})
	for _, part := range []Part{{}, {From: 4096, To: 12288}} {
		n := block
		if part != (Part{}) {
			n = int(part.To - part.From)
		}
		require.NoError(t, c.pool.budget.Acquire(t.Context(), c.pool.cost(n)))
		b, err := c.pool.newBlock(Key{Key: "k", Part: part}, n, false)
		require.NoError(t, err)
		want := int64(n)
		if part == (Part{}) {
			want = 5000
		}
		require.Equal(t, want, b.needed(5000))
		require.EqualValues(t, n, b.needed(10*block))
		b.release()
	}
}

package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"coffer/objstore"
)

// readStage returns the whole file by ReadAt and checks that WriteTo agrees.
func readStage(t *testing.T, s *Stage) []byte {
	t.Helper()
	p := make([]byte, s.Size()+10)
	n, err := s.ReadAt(t.Context(), p, 0)
	require.NoError(t, err)
	require.EqualValues(t, s.Size(), n)
	var b bytes.Buffer
	m, err := s.WriteTo(t.Context(), &b, nil, 0)
	require.NoError(t, err)
	require.EqualValues(t, n, m)
	require.True(t, bytes.Equal(p[:n], b.Bytes()), "ReadAt and WriteTo differ")
	return p[:n]
}

// Random operations against an array of bytes.
func TestStageModel(t *testing.T) {
	for _, tc := range []struct {
		name   string
		base   int
		memory int64
	}{
		{"empty", 0, 4 << 20},
		{"over a base", 2_500_000, 4 << 20},
		{"without a buffer", 1_500_000, 1 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := testCache(t, Config{MemoryBytes: tc.memory})
			if tc.memory == 1<<20 { // nothing is left to hold
				n := c.cfg.MemoryBytes / 4
				require.True(t, c.Budget().TryHold(n))
				defer c.Budget().ReleaseHeld(n)
			}
			f := newFake(max(tc.base, 1), 20)
			var base Base
			model := []byte{}
			if tc.base > 0 {
				r := c.OpenReader(f, f.ref(), objectOf(int64(tc.base)))
				defer r.Close()
				base = r
				model = bytes.Clone(f.data)
			}
			s, err := c.NewStage(base, int64(len(model)))
			require.NoError(t, err)
			defer s.Close()
			rng := rand.New(rand.NewPCG(7, 8))
			junk := make([]byte, 300_000)
			for i := range junk {
				junk[i] = byte(rng.Uint32())
			}
			for i := range 600 {
				switch op := rng.IntN(10); {
				case op < 5:
					off, n := rng.IntN(3_000_000), 1+rng.IntN(5000)
					if op == 0 {
						n = rng.IntN(len(junk))
					}
					p := junk[rng.IntN(len(junk)-n):][:n]
					m, err := s.WriteAt(p, int64(off))
					require.NoError(t, err)
					require.Equal(t, n, m)
					if n == 0 {
						break
					}
					if off+n > len(model) {
						model = append(model, make([]byte, off+n-len(model))...)
					}
					copy(model[off:], p)
				case op < 9:
					off, p := rng.IntN(3_000_000), make([]byte, rng.IntN(200_000))
					n, err := s.ReadAt(t.Context(), p, int64(off))
					require.NoError(t, err)
					require.True(t, bytes.Equal(model[min(off, len(model)):min(off+len(p), len(model))], p[:n]), "operation %d: %d bytes at %d", i, len(p), off)
				case i%4 == 0:
					n := rng.IntN(3_000_000)
					require.NoError(t, s.Truncate(int64(n)))
					if n > len(model) {
						model = append(model, make([]byte, n-len(model))...)
					}
					model = model[:n]
				default:
					c.relieve(true)
				}
				require.EqualValues(t, len(model), s.Size())
			}
			require.True(t, bytes.Equal(model, readStage(t, s)))
			at := int64(0)
			for _, e := range s.Extents() {
				require.Equal(t, at, e.Off)
				at = e.end()
			}
			require.Equal(t, s.Size(), at)
		})
	}
}

// Overwriting a part of a frame asks the base for nothing.
func TestStageWriteNeedsNoBase(t *testing.T) {
	c := testCache(t, Config{})
	s, err := c.NewStage(brokenBase{}, 10*frameBytes)
	require.NoError(t, err)
	defer s.Close()
	_, err = s.WriteAt([]byte("abc"), frameBytes-1)
	require.NoError(t, err)
	c.relieve(true)
	p := make([]byte, 3)
	_, err = s.ReadAt(t.Context(), p, frameBytes-1)
	require.NoError(t, err)
	require.Equal(t, "abc", string(p))
	require.Equal(t, []Extent{{Remote, 0, frameBytes - 1, 0}, {Local, frameBytes - 1, 3, 0}, {Remote, frameBytes + 2, 9*frameBytes - 2, frameBytes + 2}}, s.Extents())
	n, err := s.ReadAt(t.Context(), p, frameBytes)
	require.ErrorIs(t, err, objstore.Unavailable)
	require.Equal(t, 2, n, "what is local was read")
	_, err = s.WriteTo(t.Context(), io.Discard, nil, 0)
	require.ErrorIs(t, err, objstore.Unavailable)
}

type brokenBase struct{}

func (brokenBase) ReadAt(context.Context, int64, int) (*Span, error) { return nil, errCut }

type shortBase struct{}

func (shortBase) ReadAt(context.Context, int64, int) (*Span, error) { return &Span{}, nil }

func TestStageShortBase(t *testing.T) {
	c := testCache(t, Config{})
	s, err := c.NewStage(shortBase{}, 100)
	require.NoError(t, err)
	defer s.Close()
	_, err = s.ReadAt(t.Context(), make([]byte, 10), 0)
	require.ErrorIs(t, err, objstore.Integrity)
}

// What was cut off does not come back when the file grows again.
func TestStageTruncateForgets(t *testing.T) {
	c := testCache(t, Config{})
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	defer s.Close()
	data := bytes.Repeat([]byte{0xAB}, 3*frameBytes)
	_, err = s.WriteAt(data, 0)
	require.NoError(t, err)
	c.relieve(true)
	require.NoError(t, s.Truncate(100))
	require.NoError(t, s.Truncate(3*frameBytes))
	_, err = s.WriteAt([]byte{1}, 200)
	require.NoError(t, err)
	want := make([]byte, 3*frameBytes)
	copy(want, data[:100])
	want[200] = 1
	require.True(t, bytes.Equal(want, readStage(t, s)))
}

// scratchFiles returns what lies in the unnamed files of this process in dir.
func scratchFiles(t *testing.T, dir string) [][]byte {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	var files [][]byte
	for _, fd := range fds {
		path := filepath.Join("/proc/self/fd", fd.Name())
		if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, dir+"/") {
			continue
		}
		fi, err := os.Stat(path)
		require.NoError(t, err)
		if !fi.Mode().IsRegular() {
			continue
		}
		require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		files = append(files, b)
	}
	return files
}

func TestNothingReadableAtRest(t *testing.T) {
	dir := t.TempDir()
	c := testCache(t, Config{ScratchDir: dir})
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	defer s.Close()
	plain := newFake(3_000_000, 21).data
	copy(plain[500_000:], bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog. "), 1000))
	_, err = s.WriteAt(plain, 0)
	require.NoError(t, err)
	_, err = s.WriteAt(plain[:1000], 700_000)
	require.NoError(t, err)
	c.relieve(true)
	files := scratchFiles(t, dir)
	require.Len(t, files, 1)
	require.Greater(t, len(files[0]), len(plain))
	windows := map[[32]byte]bool{}
	for i := 0; i+32 <= len(plain); i += 32 {
		windows[[32]byte(plain[i:])] = true
	}
	for i := 0; i+32 <= len(files[0]); i++ {
		if windows[[32]byte(files[0][i:])] {
			t.Fatalf("plaintext at byte %d of the scratch file", i)
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "the file has no name")
	require.NoError(t, s.Close())
	require.Empty(t, scratchFiles(t, dir))
}

func TestScratchFindsChanges(t *testing.T) {
	s, err := openScratch(t.TempDir())
	require.NoError(t, err)
	defer s.close()
	plain, got := newFake(frameBytes, 22).data, make([]byte, frameBytes)
	for frame := range int64(3) {
		require.NoError(t, s.seal(frame, plain))
	}
	old := make([]byte, slotBytes)
	_, err = s.f.ReadAt(old, slotBytes)
	require.NoError(t, err)
	require.NoError(t, s.seal(1, plain))
	fresh := make([]byte, slotBytes)
	_, err = s.f.ReadAt(fresh, slotBytes)
	require.NoError(t, err)
	require.NotEqual(t, old[:nonceBytes], fresh[:nonceBytes], "a nonce was used twice")
	require.NoError(t, s.open(1, got))
	require.True(t, bytes.Equal(plain, got))

	flipped := func(at int) []byte {
		b := bytes.Clone(fresh)
		b[at] ^= 0x40
		return b
	}
	for name, slot := range map[string][]byte{
		"nonce": flipped(0), "counter": flipped(11), "first byte": flipped(12), "middle": flipped(30_000), "tag": flipped(slotBytes - 1),
		"older version": old, "zeros": make([]byte, slotBytes),
	} {
		_, err = s.f.WriteAt(slot, slotBytes)
		require.NoError(t, err)
		require.ErrorIs(t, s.open(1, got), objstore.Integrity, name)
	}
	_, err = s.f.WriteAt(fresh, 0)
	require.NoError(t, err)
	s.latest[0] = s.latest[1]
	require.ErrorIs(t, s.open(0, got), objstore.Integrity, "another frame's slot")
	require.NoError(t, s.truncate(2))
	require.False(t, s.has(2))
	require.True(t, s.has(1))
}

func TestScratchWithoutTmpfile(t *testing.T) {
	dir := t.TempDir()
	f, err := namedThenRemoved(dir)
	require.NoError(t, err)
	defer f.Close()
	fi, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestScratchErrorKinds(t *testing.T) {
	for err, kind := range map[error]objstore.Kind{
		unix.ENOSPC: objstore.NoSpace, unix.EDQUOT: objstore.Quota, unix.EFBIG: objstore.TooLarge,
		unix.EROFS: objstore.Permission, unix.EIO: objstore.Unknown,
	} {
		require.Equal(t, kind, objstore.KindOf(scratchError("write", fmt.Errorf("x: %w", &os.PathError{Err: err}))))
	}
}

// A full disk: /dev/full takes the place of the scratch file, every write to it
// is ENOSPC.
func TestScratchFull(t *testing.T) {
	c := testCache(t, Config{})
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	defer s.Close()
	good, err := openScratch(t.TempDir())
	require.NoError(t, err)
	s.frames.file = good
	data := newFake(40*frameBytes, 23).data
	acknowledged, err := s.WriteAt(data[:4*frameBytes], 0)
	require.NoError(t, err)
	c.relieve(true) // sealed on the good disk

	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	disk := good.f
	good.f = full
	n, err := s.WriteAt(data[acknowledged:], int64(acknowledged))
	require.ErrorIs(t, err, objstore.NoSpace)
	require.Equal(t, maxFrames*frameBytes, n, "the buffers take what they can")
	acknowledged += n
	require.EqualValues(t, acknowledged, s.Size())
	_, err = s.WriteAt([]byte{1}, int64(acknowledged))
	require.ErrorIs(t, err, objstore.NoSpace)
	_, err = s.WriteAt(data[acknowledged-10:acknowledged], int64(acknowledged-10))
	require.NoError(t, err, "a frame in memory needs no room")

	// What was sealed before can be read although no buffer can be freed.
	good.f = readOnly(t, disk)
	require.True(t, bytes.Equal(data[:acknowledged], readStage(t, s)))

	// There is room again: nothing is lost, and writing goes on.
	good.f = disk
	require.NoError(t, full.Close())
	n, err = s.WriteAt(data[acknowledged:], int64(acknowledged))
	require.NoError(t, err)
	require.Equal(t, len(data)-acknowledged, n)
	require.True(t, bytes.Equal(data, readStage(t, s)))
}

// readOnly opens a file again for reading only.
func readOnly(t *testing.T, disk *os.File) *os.File {
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", disk.Fd()))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStageConcurrent(t *testing.T) {
	c := testCache(t, Config{})
	f := newFake(2_000_000, 24)
	r := c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	s, err := c.NewStage(r, r.Size())
	require.NoError(t, err)
	defer s.Close()
	var wg sync.WaitGroup
	// The writer writes the same bytes again: a reader sees them either way.
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(1, 1))
		for range 300 {
			off := rng.IntN(len(f.data) - 5000)
			if _, err := s.WriteAt(f.data[off:off+5000], int64(off)); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 3 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(i)))
			p := make([]byte, 50_000)
			for range 100 {
				off := rng.IntN(len(f.data) - len(p))
				n, err := s.ReadAt(context.Background(), p, int64(off))
				if err != nil || !bytes.Equal(p[:n], f.data[off:off+len(p)]) {
					t.Errorf("read at %d: %v", off, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			c.relieve(true)
		}
	})
	wg.Wait()
}

// Readers, stages over readers and commits share sixteen blocks.
func TestStagesAndReadersTinyBudget(t *testing.T) {
	c := testCache(t, Config{MemoryBytes: 16 * 64 << 10})
	var wg sync.WaitGroup
	for i := range 16 {
		f := newFake(600_000, uint64(i))
		f.piece = 30_000
		wg.Go(func() {
			r := c.OpenReader(f, objstore.Ref{Bucket: "b", Key: fmt.Sprint(i), ETag: "v1"}, f.object())
			defer r.Close()
			s, err := c.NewStage(r, r.Size())
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			model := bytes.Clone(f.data)
			rng := rand.New(rand.NewPCG(3, uint64(i)))
			for range 40 {
				off := rng.IntN(len(model) - 10_000)
				copy(model[off:], f.data[:10_000])
				if _, err := s.WriteAt(f.data[:10_000], int64(off)); err != nil {
					t.Errorf("stage %d: write: %v", i, err)
				}
				sp, err := r.ReadAt(ctx, int64(off), 10_000)
				if err != nil {
					t.Errorf("stage %d: read: %v", i, err)
					return
				}
				sp.Release()
			}
			var b bytes.Buffer
			if _, err := s.WriteTo(ctx, &b, nil, 0); err != nil || !bytes.Equal(b.Bytes(), model) {
				t.Errorf("stage %d: commit: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func TestStageErrors(t *testing.T) {
	c := testCache(t, Config{})
	_, err := c.NewStage(nil, -1)
	require.ErrorIs(t, err, objstore.InvalidRange)
	s, err := c.NewStage(nil, 1000)
	require.NoError(t, err)
	require.Equal(t, []Extent{{Hole, 0, 1000, 0}}, s.Extents())
	_, err = s.WriteAt([]byte{1}, -1)
	require.ErrorIs(t, err, objstore.InvalidRange)
	_, err = s.ReadAt(t.Context(), []byte{1}, -1)
	require.ErrorIs(t, err, objstore.InvalidRange)
	for _, off := range []int64{maxStageBytes, 1<<63 - 1} {
		_, err = s.WriteAt([]byte{1}, off)
		require.ErrorIs(t, err, objstore.TooLarge)
	}
	require.ErrorIs(t, s.Truncate(-1), objstore.InvalidRange)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.WriteTo(ctx, io.Discard, nil, 0)
	require.ErrorIs(t, err, objstore.Canceled)
	failure := errors.New("sink")
	_, err = s.WriteTo(t.Context(), sink{failure}, nil, 0)
	require.ErrorIs(t, err, failure)
	require.Error(t, c.Close(), "a stage is open")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.WriteAt([]byte{1}, 0)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = s.ReadAt(t.Context(), []byte{1}, 0)
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, s.Truncate(0), os.ErrClosed)
}

type sink struct{ err error }

func (s sink) Write([]byte) (int, error) { return 0, s.err }

func BenchmarkStageWriteAt(b *testing.B) {
	for _, n := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", n>>10), func(b *testing.B) {
			c := testCache(b, Config{BlockBytes: 1 << 20, MemoryBytes: 64 << 20, ScratchDir: "/dev/shm"})
			s, err := c.NewStage(nil, 0)
			require.NoError(b, err)
			defer s.Close()
			p := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if _, err := s.WriteAt(p, off); err != nil {
					b.Fatal(err)
				}
				off = (off + int64(n)) % (256 << 20)
			}
		})
	}
}

// Long remote extents are left to the store, short ones are not, and what a
// writer gets of both is the file.
func TestWriteToCopiesLongExtents(t *testing.T) {
	c := testCache(t, Config{MemoryBytes: 4 << 20})
	f := newFake(100_000, 21)
	content := f.data
	r := c.OpenReader(f, f.ref(), objectOf(int64(len(content))))
	defer r.Close()
	s, err := c.NewStage(r, int64(len(content)))
	require.NoError(t, err)
	defer s.Close()
	model := bytes.Clone(content)
	write := func(off int, data string) {
		_, err := s.WriteAt([]byte(data), int64(off))
		require.NoError(t, err)
		copy(model[off:], data)
	}
	write(10, "near the start")
	write(50_000, "in the middle")
	write(50_100, "and near that")
	for least, wantCopied := range map[int64]int{1: 4, 87: 3, 40_000: 2, 60_000: 0} {
		length, long := s.Copies(least, 100)
		var out bytes.Buffer
		copied := 0
		n, err := s.WriteTo(t.Context(), &out, func(_ context.Context, off, n int64) error {
			copied++
			out.Write(content[off : off+n])
			long -= n
			return nil
		}, length)
		require.NoError(t, err)
		require.EqualValues(t, len(model), n)
		require.True(t, bytes.Equal(model, out.Bytes()))
		require.Equal(t, wantCopied, copied, least)
		require.Zero(t, long, "as many bytes as were announced")
	}
	// Too many are made fewer.
	length, _ := s.Copies(1, 2)
	require.Greater(t, length, int64(87))
	_, err = s.WriteTo(t.Context(), io.Discard, func(context.Context, int64, int64) error { return objstore.Stale }, 1)
	require.ErrorIs(t, err, objstore.Stale)
}

package s3store

import (
	"bytes"
	"crypto/md5"
	"hash/crc32"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestPartBufferGivesBackWhatItTook(t *testing.T) {
	pool := &chunkPool{}
	for _, size := range []int{0, 1, smallChunk - 1, smallChunk, smallChunk + 1, smallChunks * smallChunk, smallChunks*smallChunk + 1,
		smallChunks*smallChunk + largeChunk, 3<<20 + 7} {
		data := random(size)
		b := &partBuffer{pool: pool}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 77_777)
			_, _ = b.Write(rest[:n])
			rest = rest[n:]
		}
		require.Equal(t, int64(size), b.size)
		require.Equal(t, crc32.ChecksumIEEE(data), b.crc)
		require.Equal(t, md5.Sum(data), b.md5())
		require.NoError(t, iotest.TestReader(b.reader(), data))
		b.release()
		require.Zero(t, b.size)
	}
}

func TestSmallPartTakesLittleMemory(t *testing.T) {
	b := &partBuffer{pool: &chunkPool{}}
	_, _ = b.Write(make([]byte, 4096))
	require.Len(t, b.chunks, 1)
	require.Len(t, b.chunks[0], smallChunk)
}

func FuzzPartBuffer(f *testing.F) {
	f.Add([]byte("abc"), uint32(1), uint32(2))
	f.Add(random(300<<10), uint32(70_000), uint32(65_536))
	f.Fuzz(func(t *testing.T, data []byte, step, pos uint32) {
		b := &partBuffer{pool: &chunkPool{}}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step%100_000)+1)
			_, _ = b.Write(rest[:n])
			rest = rest[n:]
		}
		at := int64(pos) % (b.size + 1)
		got, err := io.ReadAll(&partReader{b: b, pos: at})
		require.NoError(t, err)
		require.True(t, bytes.Equal(data[at:], got))
	})
}

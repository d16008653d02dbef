package emulator

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// sealedFrame is the stored length of a full frame under one key.
const sealedFrame = frameSize + tagSize

func sealAll(t testing.TB, f *frames, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := newFrameWriter(f, &out, make([]byte, maxSealed))
	// Uneven writes, so that they do not fall on frames.
	for p := plain; len(p) > 0; {
		n := min(len(p), 10_007)
		_, err := w.Write(p[:n])
		require.NoError(t, err)
		p = p[n:]
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func testFrames(t testing.TB) *frames {
	t.Helper()
	f, err := newFrames("segment", bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	return f
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i>>8)
	}
	return b
}

func readFrames(f *frames, sealed []byte, size, off, n int64) ([]byte, error) {
	var out bytes.Buffer
	err := newFrameReader(f, bytes.NewReader(sealed), size, make([]byte, maxSealed)).writeRange(&out, off, n)
	return out.Bytes(), err
}

func TestFramesRoundTrip(t *testing.T) {
	f := testFrames(t)
	for _, size := range []int{0, 1, frameSize - 1, frameSize, frameSize + 1, 3 * frameSize} {
		plain := pattern(size)
		sealed := sealAll(t, f, plain)
		require.EqualValues(t, int64(size)+16*frameCount(int64(size)), len(sealed))
		got, err := readFrames(f, sealed, int64(size), 0, int64(size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, got), "size %d", size)
	}
}

func TestFramesRefuseTampering(t *testing.T) {
	f := testFrames(t)
	plain := pattern(2*frameSize + 100)
	sealed := sealAll(t, f, plain)
	size := int64(len(plain))
	for name, damage := range map[string]func([]byte) ([]byte, int64){
		"flipped bit in the first frame": func(b []byte) ([]byte, int64) { b[5] ^= 1; return b, size },
		"flipped bit in the last tag":    func(b []byte) ([]byte, int64) { b[len(b)-1] ^= 0x80; return b, size },
		"frames swapped": func(b []byte) ([]byte, int64) {
			first := bytes.Clone(b[:sealedFrame])
			copy(b, b[sealedFrame:2*sealedFrame])
			copy(b[sealedFrame:], first)
			return b, size
		},
		"cut after a whole frame": func(b []byte) ([]byte, int64) { return b[:2*sealedFrame], 2 * frameSize },
		"cut within a frame":      func(b []byte) ([]byte, int64) { return b[:len(b)-1], size },
	} {
		t.Run(name, func(t *testing.T) {
			b, n := damage(bytes.Clone(sealed))
			_, err := readFrames(f, b, n, 0, n)
			require.Error(t, err)
		})
	}
	t.Run("moved to another segment", func(t *testing.T) {
		other, err := newFrames("other", bytes.Repeat([]byte{7}, 32))
		require.NoError(t, err)
		_, err = readFrames(other, sealed, size, 0, size)
		require.ErrorIs(t, err, errTampered)
	})
}

func FuzzFrameRanges(f *testing.F) {
	fr := testFrames(f)
	plain := pattern(3*frameSize + 77)
	sealed := sealAll(f, fr, plain)
	f.Add(int64(0), int64(1))
	f.Add(int64(frameSize-1), int64(2))
	f.Add(int64(3*frameSize), int64(77))
	f.Fuzz(func(t *testing.T, off, n int64) {
		size := int64(len(plain))
		if off < 0 || n < 0 || off > size || n > size-off {
			t.Skip("not a range of the segment")
		}
		got, err := readFrames(fr, sealed, size, off, n)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain[off:off+n], got))
	})
}

func TestVaultKeys(t *testing.T) {
	v, err := openVault(t.TempDir(), true)
	require.NoError(t, err)
	key := bytes.Repeat([]byte{3}, 32)
	wrapped := v.root.wrap(key, "a")
	got, err := v.root.unwrap(wrapped, "a")
	require.NoError(t, err)
	require.Equal(t, key, got)
	_, err = v.root.unwrap(wrapped, "b")
	require.ErrorIs(t, err, errTampered)
	_, err = v.root.unwrap(wrapped[:5], "a")
	require.ErrorIs(t, err, errTampered)
}

package message

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLayout(t *testing.T) {
	abci := Profile{Header: 722, Frame: 4096, Footer: 105}
	for _, tt := range []struct {
		name    string
		profile Profile
		stored  int64
		want    Layout
	}{
		{"empty file", Own, 1064, Layout{Own, 0, 0}},
		{"one byte", Own, 1065, Layout{Own, 0, 1}},
		{"a frame, the final one empty", Own, 1024 + 65568 + 40, Layout{Own, 1, 0}},
		{"a frame, and it is the final one", Own, 1024 + 65536 + 40, Layout{Own, 0, 65536}},
		{"a frame and a byte", Own, 1024 + 65568 + 41, Layout{Own, 1, 1}},
		// Measured with the recipe's Python.
		{"ABCI, empty file", abci, 867, Layout{abci, 0, 0}},
		{"ABCI, 100000 bytes", abci, 101635, Layout{abci, 24, 1696}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.profile.ForStored(tt.stored)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
			require.Equal(t, tt.stored, got.Stored())
			require.Equal(t, got.Stored()-got.Footer, got.Offset(got.Full)+got.Bytes(got.Full))
		})
	}
}

func TestLayoutsThatAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stored int64
		kind   Kind
	}{
		{"negative", -1, Malformed},
		{"nothing", 0, Malformed},
		{"shorter than a final frame", 1063, Malformed},
		{"cut within the end of a frame", 1024 + 40 + 65536 + 1, Malformed},
		{"cut within the end of a frame, last byte", 1024 + 40 + 65568 - 1, Malformed},
		{"more frames than numbers", 1024 + 40 + (1<<32-1)*65568, TooLarge},
		{"all numbers", math.MaxInt64, TooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Own.ForStored(tt.stored)
			require.ErrorIs(t, err, tt.kind)
		})
	}
	l, err := Own.ForStored(1024 + 40 + (1<<32-2)*65568)
	require.NoError(t, err)
	require.Equal(t, int64(1<<32-2)*65536, l.Size())
	again, err := Own.ForSize(l.Size())
	require.NoError(t, err)
	require.Equal(t, l, again)
	for _, size := range []int64{-1, -65536, (1<<32 - 1) * 65536, math.MaxInt64} {
		_, err := Own.ForSize(size)
		require.ErrorIs(t, err, TooLarge, "%d bytes", size)
	}
}

// For every size, frame length and way to end, the stored size gives the
// layout back, and every byte of the plaintext is in the frame that Cover
// says.
func TestLayoutIsInverted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		p := Profile{Header: 1 + r.Int64N(MaxHeader), Frame: 1 + r.Int64N([]int64{4, 600, 70000, MaxFrame}[r.IntN(4)]), Footer: r.Int64N(107)}
		size := r.Int64N([]int64{3, 100, 1 << 20, 1 << 40}[r.IntN(4)])
		if r.IntN(3) == 0 {
			size -= size % p.Frame
		}
		l, err := p.ForSize(size)
		if size/p.Frame > maxFull {
			require.ErrorIs(t, err, TooLarge)
			continue
		}
		require.NoError(t, err)
		ends := []Layout{l}
		if l.Last == 0 && l.Full > 0 {
			ends = append(ends, Layout{p, l.Full - 1, p.Frame})
		}
		for _, l := range ends {
			got, err := p.ForStored(l.Stored())
			if err != nil || got != l || l.Size() != size {
				t.Fatalf("%d bytes as %+v: got %+v, %v", size, l, got, err)
			}
			if size > 0 {
				off := r.Int64N(size)
				n := 1 + r.Int64N(size-off)
				first, end := l.Cover(off, n)
				if first*p.Frame > off || (first+1)*p.Frame <= off || end > l.Full+1 ||
					(end-1)*p.Frame >= off+n || end*p.Frame < off+n {
					t.Fatalf("[%d,+%d) of %+v: frames [%d,%d)", off, n, l, first, end)
				}
			}
		}
	}
}

func TestProfileText(t *testing.T) {
	require.Equal(t, "1;h=1024;f=65536;s=0", Own.String())
	for _, p := range []Profile{Own, {722, 4096, 105}, {1, 1, 0}, {MaxHeader, MaxFrame, 106}} {
		got, err := ParseProfile(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	for _, text := range []string{
		"", "1", "2;h=1024;f=65536;s=0", "1;h=1024;f=65536", "1;h=1024;f=65536;s=0;", "1;h=1024;f=65536;s=0;x=1",
		"1;f=65536;h=1024;s=0", "1;h=0;f=65536;s=0", "1;h=65537;f=65536;s=0", "1;h=1024;f=0;s=0",
		"1;h=1024;f=67108865;s=0", "1;h=1024;f=65536;s=-1", "1;h=1024;f=65536;s=65537", "1;h=01024;f=65536;s=0",
		"1;h=+1024;f=65536;s=0", "1;h=1024;f= 65536;s=0", "1;h=0x400;f=65536;s=0", "1;h=;f=65536;s=0",
		"1;h=99999999999999999999;f=65536;s=0", " 1;h=1024;f=65536;s=0",
	} {
		_, err := ParseProfile(text)
		require.ErrorIs(t, err, Malformed, "%q", text)
	}
}

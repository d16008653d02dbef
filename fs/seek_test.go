package fs

import (
	"testing"

	"coffer/cache"
)

func TestSeek(t *testing.T) {
	runs := []cache.Extent{
		{Kind: cache.Local, Off: 0, Len: 10}, {Kind: cache.Hole, Off: 10, Len: 20},
		{Kind: cache.Remote, Off: 30, Len: 5}, {Kind: cache.Local, Off: 35, Len: 5}, {Kind: cache.Hole, Off: 40, Len: 10},
	}
	const none = -1
	for _, tt := range []struct{ off, data, hole int64 }{
		{0, 0, 10}, {5, 5, 10}, {9, 9, 10}, {10, 30, 10}, {29, 30, 29}, {30, 30, 40}, {37, 37, 40},
		{40, none, 40}, {49, none, 49}, {50, none, none}, {51, none, none}, {-1, none, none},
	} {
		for _, hole := range []bool{false, true} {
			want := tt.data
			if hole {
				want = tt.hole
			}
			got, ok := seek(runs, 50, tt.off, hole)
			if ok != (want != none) || ok && got != want {
				t.Errorf("from %d, hole %v: %d, %v, want %d", tt.off, hole, got, ok, want)
			}
		}
	}
	if got, ok := seek([]cache.Extent{{Len: 7, Kind: cache.Local}}, 7, 3, true); !ok || got != 7 {
		t.Errorf("the end is a hole: %d, %v", got, ok)
	}
}

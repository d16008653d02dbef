package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExtents(t *testing.T) {
	remote := func(n int64) extents {
		var x extents
		x.put(Extent{Kind: Remote, Len: n})
		return x
	}
	for _, tc := range []struct {
		name string
		x    extents
		do   func(x *extents)
		want []Extent
	}{
		{"empty", extents{}, func(x *extents) {}, nil},
		{"write to an empty file", extents{}, func(x *extents) { x.write(0, 5) }, []Extent{{Local, 0, 5, 0}}},
		{"write beyond the end", extents{}, func(x *extents) { x.write(10, 5) }, []Extent{{Hole, 0, 10, 0}, {Local, 10, 5, 0}}},
		{"write into the middle", remote(100), func(x *extents) { x.write(40, 20) }, []Extent{{Remote, 0, 40, 0}, {Local, 40, 20, 0}, {Remote, 60, 40, 60}}},
		{"write over the head", remote(100), func(x *extents) { x.write(0, 20) }, []Extent{{Local, 0, 20, 0}, {Remote, 20, 80, 20}}},
		{"write over the tail", remote(100), func(x *extents) { x.write(90, 20) }, []Extent{{Remote, 0, 90, 0}, {Local, 90, 20, 0}}},
		{"append", remote(100), func(x *extents) { x.write(100, 1) }, []Extent{{Remote, 0, 100, 0}, {Local, 100, 1, 0}}},
		{"write over everything", remote(100), func(x *extents) { x.write(0, 100) }, []Extent{{Local, 0, 100, 0}}},
		{"neighbours become one", remote(100), func(x *extents) { x.write(10, 10); x.write(30, 10); x.write(20, 10) },
			[]Extent{{Remote, 0, 10, 0}, {Local, 10, 30, 0}, {Remote, 40, 60, 40}}},
		{"shorter", remote(100), func(x *extents) { x.truncate(10) }, []Extent{{Remote, 0, 10, 0}}},
		{"to nothing", remote(100), func(x *extents) { x.truncate(0) }, []Extent{}},
		{"longer", remote(100), func(x *extents) { x.truncate(110) }, []Extent{{Remote, 0, 100, 0}, {Hole, 100, 10, 0}}},
		{"shorter and longer is a hole", remote(100), func(x *extents) { x.truncate(10); x.truncate(50); x.truncate(60) }, []Extent{{Remote, 0, 10, 0}, {Hole, 10, 50, 0}}},
		{"the same length", remote(100), func(x *extents) { x.truncate(100) }, []Extent{{Remote, 0, 100, 0}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.do(&tc.x)
			require.Equal(t, tc.want, tc.x.runs)
		})
	}
}

// FuzzExtents compares the map with an array that has an entry for each byte.
func FuzzExtents(f *testing.F) {
	f.Add(uint8(100), []byte{0, 10, 20, 0, 5, 20, 1, 50, 0, 1, 200, 0})
	f.Add(uint8(0), []byte{1, 9, 9, 0, 255, 255, 1, 1, 1})
	f.Fuzz(func(t *testing.T, base uint8, ops []byte) {
		const hole, local = -1, -2 // else the offset in the base
		var x extents
		var model []int
		if base > 0 {
			x.put(Extent{Kind: Remote, Len: int64(base)})
		}
		for i := range int(base) {
			model = append(model, i)
		}
		ops = ops[:min(len(ops), 96)] // every step looks at every byte
		resize := func(n int) {
			for len(model) < n {
				model = append(model, hole)
			}
			model = model[:n]
		}
		for ; len(ops) >= 3; ops = ops[3:] {
			a, b := int(ops[1]), int(ops[2])
			if ops[0]%2 == 0 {
				b++
				x.write(int64(a), int64(b))
				resize(max(len(model), a+b))
				for i := a; i < a+b; i++ {
					model[i] = local
				}
			} else {
				x.truncate(int64(a + b))
				resize(a + b)
			}
			if x.size() != int64(len(model)) {
				t.Fatalf("size %d, want %d", x.size(), len(model))
			}
			at := int64(0)
			for i, r := range x.runs {
				if r.Off != at || r.Len <= 0 || i > 0 && r.follows(x.runs[i-1]) {
					t.Fatalf("runs are not in order, or two could be one: %v", x.runs)
				}
				at = r.end()
			}
			for off, v := range model {
				e, ok := x.at(int64(off))
				got := hole
				switch e.Kind {
				case Local:
					got = local
				case Remote:
					got = int(e.RemoteOff)
				}
				if !ok || got != v || e.Off != int64(off) {
					t.Fatalf("at %d: %v %v, want %d", off, e, ok, v)
				}
			}
			if _, ok := x.at(int64(len(model))); ok {
				t.Fatal("an extent beyond the end")
			}
		}
	})
}

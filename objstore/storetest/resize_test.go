package storetest

import (
	"testing"

	"coffer/objstore"
)

func TestResizeSizes(t *testing.T) {
	for _, tc := range []struct{ visible, stored int64 }{
		{0, 16}, {1, 25}, {resizeFrame - 1, 16 + resizeFrame - 1 + 8}, {resizeFrame, 16 + resizeFrame + 8},
		{resizeFrame + 1, 16 + resizeFrame + 1 + 16}, {10 * resizeFrame, 16 + 10*(resizeFrame+8)},
	} {
		if got := storedSize(tc.visible); got != tc.stored {
			t.Errorf("%d bytes are stored as %d, want %d", tc.visible, got, tc.stored)
		}
		if got, ok := visibleSize(tc.stored); !ok || got != tc.visible {
			t.Errorf("%d stored bytes show as %d (%v), want %d", tc.stored, got, ok, tc.visible)
		}
	}
	for _, bad := range []int64{0, 15, 17, 24, 16 + resizeFrame + 8 + 3} {
		if n, ok := visibleSize(bad); ok {
			t.Errorf("%d stored bytes pass for an object of %d", bad, n)
		}
	}
}

// TestResizeFindsDamage flips one bit after another of a stored object: each
// read gives the right bytes or an error of kind Integrity.
func TestResizeFindsDamage(t *testing.T) {
	inner := newMemStore(smallPart)
	s := &suite{Config: Config{Name: "damage"}, store: Resize(inner)}
	b := s.bucket(t)
	put(t, b, "key", random(1, 200))
	stored := inner.buckets[b.Name()].objects["key"].data
	for i := range stored {
		for bit := range 8 {
			stored[i] ^= 1 << bit
			_, _, err := read(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{Offset: 10, Length: 5})
			wantKind(t, "a read of damaged bytes", err, objstore.Integrity)
			stored[i] ^= 1 << bit
		}
	}
	mustRead(t, b, "key", random(1, 200))
	if o := inner.buckets[b.Name()].objects["key"]; o.StoredSize != storedSize(200) {
		t.Errorf("stored as %d bytes, want %d", o.StoredSize, storedSize(200))
	}
}

package cache

import (
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

// contains reports whether the mapping "from-to" of /proc/self/smaps holds buf.
func contains(t *testing.T, mapping string, buf []byte) bool {
	a, b, _ := strings.Cut(mapping, "-")
	from, err := strconv.ParseUint(a, 16, 64)
	require.NoError(t, err)
	to, err := strconv.ParseUint(b, 16, 64)
	require.NoError(t, err)
	p := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(buf))))
	return from <= p && p < to
}

func FuzzKeyNamesAreDistinct(f *testing.F) {
	f.Add("s", "b", "k", "e", "v", int64(0), int32(0), "sb", "", "k", "e", "v", int64(0), int32(4096))
	f.Add("", "\x01a", "", "", "", int64(1), int32(0), "", "", "a", "", "", int64(1), int32(0))
	f.Fuzz(func(t *testing.T, s1, b1, k1, e1, v1 string, i1 int64, p1 int32, s2, b2, k2, e2, v2 string, i2 int64, p2 int32) {
		a := Key{s1, b1, k1, objstore.ETag(e1), v1, i1, Part{p1, p1 / 2}}
		b := Key{s2, b2, k2, objstore.ETag(e2), v2, i2, Part{p2, p2 / 2}}
		na, nb := string(a.appendName(nil)), string(b.appendName(nil))
		if (a == b) != (na == nb) {
			t.Fatalf("%+v %q and %+v %q", a, na, b, nb)
		}
		if got := a.nameIn([]byte(na[:len(na)-keyTail])); got != na {
			t.Fatalf("%q is not %q", got, na)
		}
	})
}

func TestTierGivesWay(t *testing.T) {
	const blocks = 20
	var st counters
	p := &pool{budget: NewBudget(blocks*64<<10, 0, 0, nil), slabs: newSlabs(64 << 10), stats: &st}
	tr, err := newTier(blocks*(64<<10+tierItemOverhead), 64<<10) // the floor is four
	require.NoError(t, err)
	var all []*Block
	for i := range int64(blocks) {
		require.True(t, p.budget.TryAcquire(64<<10))
		b, err := p.newBlock(Key{Key: "k", Index: i}, 64<<10, false)
		require.NoError(t, err)
		b.advance(64 << 10)
		tr.add(b)
		all = append(all, b)
	}
	tr.settle()
	releaseAll(all[1:])
	there := func() (indexes []int64) {
		for _, b := range all {
			if got := tr.get(b.key, string(b.key.appendName(nil))); got != nil {
				indexes = append(indexes, b.key.Index)
				got.release()
			}
		}
		return indexes
	}
	require.Len(t, there(), blocks)
	require.True(t, tr.give(3*64<<10-1))
	require.Equal(t, []int64{0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, there(), "the oldest that nobody uses")
	require.EqualValues(t, (blocks-3)*64<<10, p.budget.Used())
	require.True(t, tr.give(12*64<<10))
	require.False(t, tr.give(2*64<<10), "the floor stays")
	require.EqualValues(t, 5*64<<10, tr.bytes.Load())
	all[0].release()
	tr.close()
	require.Zero(t, p.budget.Used())
	require.Zero(t, tr.age.Len())
}

func TestTierOwnsOneReference(t *testing.T) {
	var st counters
	p := &pool{budget: NewBudget(1<<20, 0, 0, nil), slabs: newSlabs(64 << 10), stats: &st}
	tr, err := newTier(4*(64<<10+tierItemOverhead), 64<<10)
	require.NoError(t, err)
	block := func(i int64) *Block {
		require.True(t, p.budget.TryAcquire(64<<10))
		b, err := p.newBlock(Key{Key: "k", Index: i}, 64<<10, false)
		require.NoError(t, err)
		b.advance(64 << 10)
		return b
	}
	name := func(b *Block) string { return string(b.key.appendName(nil)) }

	first, again := block(0), block(0)
	tr.add(first)
	tr.settle()
	tr.add(again) // an update: the value may be in use
	tr.settle()
	got := tr.get(first.key, name(first))
	require.NotNil(t, got)
	got.release()
	require.Nil(t, tr.get(Key{Key: "other"}, name(first)), "the identity in the value counts, not the name")
	first.release()
	again.release()
	require.EqualValues(t, 64<<10, p.budget.Used(), "one of the two is in the tier")

	for i := range int64(8) {
		b := block(i + 1)
		tr.add(b)
		tr.settle()
		b.release()
		require.LessOrEqual(t, p.budget.Used(), int64(4*64<<10))
	}
	pinned := block(100)
	for range 10 { // what is asked for often is wanted
		if b := tr.get(pinned.key, name(pinned)); b != nil {
			b.release()
		}
	}
	tr.add(pinned)
	tr.close()
	require.EqualValues(t, 64<<10, p.budget.Used(), "what a reader holds survives the tier")
	require.Zero(t, tr.bytes.Load())
	tr.add(pinned) // dropped: OnExit is not called
	pinned.release()
	require.False(t, pinned.tryRetain(), "it is gone")
	require.Panics(t, pinned.release)
	require.Panics(t, pinned.retain)
	require.Zero(t, p.budget.Used())
	require.Zero(t, p.slabs.close())
}

package emulator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// model is the naive index that the real one is compared with: all versions by
// key, newest first.
type model map[string][]*version

func (m model) put(v *version) {
	m[v.Key] = slices.DeleteFunc(m[v.Key], func(o *version) bool { return o.ID == v.ID })
	m[v.Key] = append(m[v.Key], v)
	slices.SortFunc(m[v.Key], func(a, b *version) int { return int(b.Seq - a.Seq) })
}

func (m model) remove(key, id string) {
	m[key] = slices.DeleteFunc(m[key], func(o *version) bool { return o.ID == id })
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// names lists everything that a listing without pages shows.
func (m model) names(prefix, delimiter, after string, versions bool) []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !strings.HasPrefix(key, prefix) || !versions && m[key][0].DeleteMarker {
			continue
		}
		if delimiter != "" {
			if i := strings.Index(key[len(prefix):], delimiter); i >= 0 {
				group := key[:len(prefix)+i+len(delimiter)]
				if group > after && !slices.Contains(out, "P "+group) {
					out = append(out, "P "+group)
				}
				continue
			}
		}
		if key <= after && after != "" {
			continue
		}
		for i, v := range m[key] {
			if i == 0 || versions {
				out = append(out, "K "+key+" "+v.ID)
			}
		}
	}
	return out
}

// pages lists an index page by page.
func pages(x *index, q listQuery, versions bool) []string {
	var out []string
	for {
		items, more := x.list(q, versions)
		for _, it := range items {
			if it.v == nil {
				out = append(out, "P "+it.prefix)
			} else {
				out = append(out, "K "+it.v.Key+" "+it.v.ID)
			}
		}
		if !more {
			return out
		}
		last := items[len(items)-1]
		q.after, q.afterVersion = last.name(), ""
		if last.v != nil {
			q.afterVersion = last.v.ID
		}
	}
}

func TestIndexAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "b", "/", "é", "-", "\x01", "z"}
	randomKey := func() string {
		var b strings.Builder
		for range 1 + rng.IntN(5) {
			b.WriteString(alphabet[rng.IntN(len(alphabet))])
		}
		return b.String()
	}
	x, m := &index{}, model{}
	for i := range 20_000 {
		key := randomKey()
		switch op := rng.IntN(10); {
		case op < 6:
			v := &version{Key: key, ID: fmt.Sprintf("%016x", rng.IntN(3)), Seq: int64(i), DeleteMarker: rng.IntN(4) == 0}
			v.ID += "0000"
			x.put(v)
			m.put(v)
		case op < 9:
			if vs := m[key]; len(vs) > 0 {
				id := vs[rng.IntN(len(vs))].ID
				require.NotNil(t, x.remove(key, id))
				m.remove(key, id)
			} else {
				require.Nil(t, x.remove(key, "none"))
			}
		case i%50 == 0:
			q := listQuery{max: 1 + rng.IntN(7)}
			if rng.IntN(2) == 0 {
				q.prefix = randomKey()[:1]
			}
			if !strings.HasPrefix(q.prefix, "a") && len(q.prefix) > 0 && q.prefix[0] > 0x7f {
				q.prefix = ""
			}
			if rng.IntN(2) == 0 {
				q.delimiter = []string{"/", "a", "-/"}[rng.IntN(3)]
			}
			if rng.IntN(2) == 0 {
				q.after = randomKey()
			}
			for _, versions := range []bool{false, true} {
				require.Equal(t, m.names(q.prefix, q.delimiter, q.after, versions), pages(x, q, versions), "%+v versions=%v", q, versions)
			}
		}
		require.Equal(t, len(m), x.n)
	}
}

// TestIndexManyKeys reaches the splitting and vanishing of blocks.
func TestIndexManyKeys(t *testing.T) {
	x := &index{}
	rng := rand.New(rand.NewPCG(3, 4))
	order := rng.Perm(20_000)
	for _, i := range order {
		x.put(&version{Key: fmt.Sprintf("k%06d", i), ID: nullVersion})
	}
	require.Greater(t, len(x.blocks), 20)
	want := 0
	x.from("", func(e *entry) (string, bool) {
		require.Equal(t, fmt.Sprintf("k%06d", want), e.key)
		want++
		return "", true
	})
	require.Equal(t, 20_000, want)
	for _, i := range order {
		require.NotNil(t, x.remove(fmt.Sprintf("k%06d", i), nullVersion))
	}
	require.Empty(t, x.blocks)
	require.Zero(t, x.n)
}

func TestAfterPrefix(t *testing.T) {
	for in, want := range map[string]string{"a/": "a0", "a": "b", "\xff": "", "a\xff\xff": "b", "": ""} {
		require.Equal(t, want, afterPrefix(in), "%q", in)
	}
}

func TestVersionsGoOnBehindADeletedMarker(t *testing.T) {
	x := &index{}
	for seq := range int64(5) {
		x.put(&version{Key: "k", ID: newVersionID(100 + seq), Seq: 100 + seq})
	}
	items, more := x.list(listQuery{max: 2}, true)
	require.True(t, more)
	for _, it := range items {
		x.remove("k", it.v.ID)
	}
	rest, more := x.list(listQuery{max: 10, after: "k", afterVersion: items[1].v.ID}, true)
	require.False(t, more)
	require.Len(t, rest, 3)
}

func FuzzListPages(f *testing.F) {
	f.Add("a/b,a/c,b", "", "/", "", uint8(1))
	f.Add("a,a/,a/b,ab", "a", "/", "a/", uint8(2))
	f.Fuzz(func(t *testing.T, keys, prefix, delimiter, after string, size uint8) {
		x, m := &index{}, model{}
		for key := range strings.SplitSeq(keys, ",") {
			if key != "" {
				v := &version{Key: key, ID: nullVersion}
				x.put(v)
				m.put(v)
			}
		}
		q := listQuery{prefix: prefix, delimiter: delimiter, after: after, max: 1 + int(size)}
		require.Equal(t, m.names(prefix, delimiter, after, false), pages(x, q, false))
	})
}

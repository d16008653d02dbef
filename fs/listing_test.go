package fs

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"testing"

	"coffer/objstore"
)

// listing yields keys as a store would with delimiter "/".
func listing(prefix string, keys ...string) iter.Seq2[objstore.Entry, error] {
	sort.Strings(keys)
	return func(yield func(objstore.Entry, error) bool) {
		last := ""
		for _, k := range keys {
			rest, ok := strings.CutPrefix(k, prefix)
			if !ok {
				continue
			}
			e := objstore.Entry{Key: k}
			if i := strings.IndexByte(rest, '/'); i >= 0 && k != prefix {
				e = objstore.Entry{Key: prefix + rest[:i+1], IsPrefix: true}
			}
			if e.Key == last {
				continue
			}
			last = e.Key
			if !yield(e, nil) {
				return
			}
		}
	}
}

// collect returns names as "f:name" and "d:name", sorted, and hidden keys.
func collect(t *testing.T, prefix string, entries iter.Seq2[objstore.Entry, error]) (got, hid []string) {
	t.Helper()
	for n, err := range names(prefix, entries, func(h hidden) { hid = append(hid, h.key) }) {
		if err != nil {
			t.Fatal(err)
		}
		kind := "f:"
		if n.isDir {
			kind = "d:"
		}
		got = append(got, kind+n.name)
	}
	sort.Strings(got)
	return got, hid
}

func TestNames(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, tt := range []struct {
		name, prefix string
		keys         []string
		want, hid    []string
	}{
		{"empty", "", nil, nil, nil},
		{"files and directories", "", []string{"a", "b/c", "b/d", "e"}, []string{"d:b", "f:a", "f:e"}, nil},
		{"marker left out", "d/", []string{"d/", "d/x"}, []string{"f:x"}, nil},
		{"directory wins", "", []string{"x", "x/y"}, []string{"d:x"}, []string{"x"}},
		{"directory wins over what sorts between", "", []string{"x", "x-1", "x.txt", "x/y", "xz"},
			[]string{"d:x", "f:x-1", "f:x.txt", "f:xz"}, []string{"x"}},
		{"nested twins", "", []string{"x", "x-", "x-/1", "x/1"}, []string{"d:x", "d:x-"}, []string{"x-", "x"}},
		{"empty part", "", []string{"a", "/b", "//c"}, []string{"f:a"}, []string{"/"}},
		{"empty part below", "a/", []string{"a//b", "a/c"}, []string{"f:c"}, []string{"a//"}},
		{"dots", "", []string{".", "..", "./x", "../x", "...", ".a"}, []string{"f:...", "f:.a"}, []string{".", "..", "../", "./"}},
		{"too long", "", []string{long, long[1:]}, []string{"f:" + long[1:]}, []string{long}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, hid := collect(t, tt.prefix, listing(tt.prefix, tt.keys...))
			if !slices.Equal(got, tt.want) {
				t.Errorf("names %q, want %q", got, tt.want)
			}
			sort.Strings(hid)
			want := slices.Clone(tt.hid)
			sort.Strings(want)
			if !slices.Equal(hid, want) {
				t.Errorf("hidden %q, want %q", hid, want)
			}
		})
	}
}

func TestNamesHoldsBackBounded(t *testing.T) {
	keys := []string{"x"}
	for i := range 20_000 {
		keys = append(keys, fmt.Sprintf("x.%06d", i))
	}
	pulled, emitted, lag := 0, 0, 0
	entries := func(yield func(objstore.Entry, error) bool) {
		for e, err := range listing("", keys...) {
			pulled++
			if lag = max(lag, pulled-emitted); !yield(e, err) {
				return
			}
		}
	}
	for range names("", entries, func(hidden) {}) {
		emitted++
	}
	if emitted != len(keys) || lag > 5000 {
		t.Errorf("%d names of %d keys, %d held back", emitted, len(keys), lag)
	}
}

func TestNamesPassesErrorsOn(t *testing.T) {
	boom := errors.New("boom")
	var got error
	for _, err := range names("", func(yield func(objstore.Entry, error) bool) { yield(objstore.Entry{}, boom) }, nil) {
		got = err
	}
	if got != boom {
		t.Errorf("got %v", got)
	}
}

func FuzzNames(f *testing.F) {
	f.Add("x\nx/y\nx-1\nz//\n../q")
	f.Fuzz(func(t *testing.T, s string) {
		keys := strings.Split(s, "\n")
		slices.Sort(keys)
		keys = slices.Compact(keys)
		got, _ := collect(t, "", listing("", keys...))
		// The model: what each key's first part would be, directories first.
		want := map[string]string{}
		for _, k := range keys {
			nm, _, isDir := strings.Cut(k, "/")
			switch {
			case !validName(nm):
			case isDir:
				want[nm] = "d:" + nm
			case want[nm] == "":
				want[nm] = "f:" + nm
			}
		}
		var list []string
		for _, v := range want {
			list = append(list, v)
		}
		sort.Strings(list)
		if !slices.Equal(got, list) {
			t.Errorf("names of %q: %q, want %q", keys, got, list)
		}
	})
}

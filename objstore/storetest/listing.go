package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coffer/objstore"
)

// testListing checks prefixes, delimiters, starts and limits.
func (s *suite) testListing(t *testing.T) {
	b := s.bucket(t)
	// Chosen so that byte order differs from the order of path parts: '-'
	// and '.' sort before '/', '0' after it.
	all := []string{"a-b", "a.txt", "a/1", "a/2", "a/sub/3", "a/sub/4", "a0", "b/x", "c", "é/1", "日本"}
	slices.Sort(all)
	for i, key := range all {
		put(t, b, key, random(uint64(i), int64(10+i)))
	}
	for _, tc := range []struct {
		name string
		q    objstore.Query
		want []string
	}{
		{"All", objstore.Query{}, all},
		{"Delimiter", objstore.Query{Delimiter: "/"}, []string{"a-b", "a.txt", "a/", "a0", "b/", "c", "é/", "日本"}},
		{"Prefix", objstore.Query{Prefix: "a"}, []string{"a-b", "a.txt", "a/1", "a/2", "a/sub/3", "a/sub/4", "a0"}},
		{"Directory", objstore.Query{Prefix: "a/", Delimiter: "/"}, []string{"a/1", "a/2", "a/sub/"}},
		{"PartOfName", objstore.Query{Prefix: "a/s", Delimiter: "/"}, []string{"a/sub/"}},
		{"Nothing", objstore.Query{Prefix: "zz"}, nil},
		{"OtherDelimiter", objstore.Query{Prefix: "a", Delimiter: "u"}, []string{"a-b", "a.txt", "a/1", "a/2", "a/su", "a0"}},
		{"StartAfterKey", objstore.Query{StartAfter: "a/2"}, []string{"a/sub/3", "a/sub/4", "a0", "b/x", "c", "é/1", "日本"}},
		{"StartAfterNoKey", objstore.Query{StartAfter: "a/zzz"}, []string{"a0", "b/x", "c", "é/1", "日本"}},
		{"StartAfterInPrefix", objstore.Query{Prefix: "a/", StartAfter: "a/1"}, []string{"a/2", "a/sub/3", "a/sub/4"}},
		{"StartAfterPrefix", objstore.Query{Delimiter: "/", StartAfter: "a/"}, []string{"a0", "b/", "c", "é/", "日本"}},
		{"StartAfterAll", objstore.Query{StartAfter: "日本"}, nil},
		{"Limit", objstore.Query{Limit: 3}, []string{"a-b", "a.txt", "a/1"}},
		{"LimitWithPrefixes", objstore.Query{Limit: 3, Delimiter: "/"}, []string{"a-b", "a.txt", "a/"}},
		{"LimitBeyond", objstore.Query{Limit: 100, Prefix: "b"}, []string{"b/x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			entries := list(t, b, tc.q)
			if !slices.Equal(keys(entries), tc.want) {
				t.Errorf("got  %q\nwant %q", keys(entries), tc.want)
			}
			for _, e := range entries {
				if isKey := slices.Contains(all, e.Key); e.IsPrefix == isKey {
					t.Errorf("%q: IsPrefix is %v", e.Key, e.IsPrefix)
				}
			}
		})
	}
	t.Run("Entries", func(t *testing.T) {
		for i, e := range list(t, b, objstore.Query{}) {
			head := mustHead(t, b, e.Key)
			if e.SizeKnown && e.Size != int64(10+i) {
				t.Errorf("%q: listed with size %d, want %d", e.Key, e.Size, 10+i)
			}
			if e.StoredSize != head.StoredSize || e.ETag != head.ETag {
				t.Errorf("%q: listed with %d bytes, ETag %q; HEAD has %d, %q", e.Key, e.StoredSize, e.ETag, head.StoredSize, head.ETag)
			}
			if a, b := e.LastModified.Truncate(time.Second), head.LastModified.Truncate(time.Second); !a.Equal(b) {
				t.Errorf("%q: listed as of %v, HEAD has %v", e.Key, a, b)
			}
		}
	})
	t.Run("EarlyBreak", func(t *testing.T) {
		n := 0
		for _, err := range b.List(t.Context(), objstore.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("saw %d entries before the break, want 2", n)
		}
	})
	t.Run("AbsentBucket", func(t *testing.T) {
		name := s.bucketName(t)
		if _, err := s.store.CreateBucket(t.Context(), name, s.createOptions()); err != nil {
			t.Fatal(err)
		}
		gone, err := s.store.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.DeleteBucket(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range gone.List(t.Context(), objstore.Query{}) {
			wantKind(t, "list of a removed bucket", err, objstore.NotExist)
			n++
		}
		if n != 1 {
			t.Errorf("the error was yielded %d times, want once and nothing after it", n)
		}
	})
}

// manyKeys is beyond the 1000 entries of a page and of a batch of deletions.
const manyKeys = 1100

// testManyKeys checks that pages and batches are hidden.
func (s *suite) testManyKeys(t *testing.T) {
	b := s.bucket(t)
	want := make([]string, manyKeys)
	refs := make([]objstore.Ref, manyKeys)
	for i := range want {
		want[i] = fmt.Sprintf("many/%04d", i)
		refs[i].Key = want[i]
	}
	parallel(manyKeys, 16, func(i int) {
		if _, err := write(t.Context(), b, want[i], []byte{byte(i)}, objstore.CreateOptions{}); err != nil {
			t.Errorf("put %q: %v", want[i], err)
		}
	})
	if t.Failed() {
		return
	}
	equal := func(t *testing.T, q objstore.Query, want []string) {
		t.Helper()
		if got := keys(list(t, b, q)); !slices.Equal(got, want) {
			t.Errorf("%+v: got %d keys, want %d: %s", q, len(got), len(want), firstDifference(got, want))
		}
	}
	equal(t, objstore.Query{}, want)
	equal(t, objstore.Query{Prefix: "many/", Delimiter: "/"}, want)
	equal(t, objstore.Query{Delimiter: "/"}, []string{"many/"})
	equal(t, objstore.Query{Limit: 1050}, want[:1050])
	equal(t, objstore.Query{Limit: 1000}, want[:1000])
	equal(t, objstore.Query{StartAfter: want[49]}, want[50:])
	equal(t, objstore.Query{StartAfter: want[98], Prefix: "many/0"}, want[99:1000])

	t.Run("DeleteBatches", func(t *testing.T) {
		some := append(slices.Clone(refs), objstore.Ref{Key: "many/absent"})
		errs := b.Delete(t.Context(), some...)
		if len(errs) != len(some) {
			t.Fatalf("got %d results for %d refs", len(errs), len(some))
		}
		for i, err := range errs {
			if err != nil {
				t.Errorf("delete %q: %v", some[i].Key, err)
			}
		}
		equal(t, objstore.Query{}, nil)
	})
}

// testOddKeys checks that keys come back byte for byte, however they look.
func (s *suite) testOddKeys(t *testing.T) {
	b := s.bucket(t)
	for _, tc := range []struct {
		key  string
		skip Reason
	}{
		{key: "plain"}, {key: "with space"}, {key: "two  spaces"}, {key: " lead"}, {key: "trail "},
		{key: "plus+plus"}, {key: "per%cent"}, {key: "%2F%20"}, {key: "100%"}, {key: "question?x=1&y=2"}, {key: "hash#tag"},
		{key: "semi;colon,comma:colon"}, {key: "at@dollar$equals="}, {key: "bang!star*quote'paren()"}, {key: "tilde~caret^"},
		{key: `back\slash`}, {key: "pipe|brace{}[]"}, {key: "back`tick"}, {key: `double"quote`},
		{key: "xml<tag>&amp;</tag>"}, {key: "]]>"}, {key: "日本語"}, {key: "emoji-🚀"}, {key: "composed-é"}, {key: "decomposed-e\u0301"},
		{key: "\U0010FFFDtop"}, {key: "nbsp\u00a0"}, {key: "-dash"}, {key: "_under"}, {key: ".hidden"}, {key: "..dots.."}, {key: "..."},
		{key: "deep/er/and/deeper/still"}, {key: "sp ace/pl+us/per%cent"}, {key: "aux"}, {key: "name.with.dots"},
		{key: "list-type=2"}, {key: "uploads"}, {key: strings.Repeat("n", 255)}, {key: strings.Repeat("long/", 150) + "end"},
		{key: "slash-at-end/"}, {key: "nested/slash-at-end/"},
		{key: strings.Repeat("x", 800), skip: s.Accept.NoLongParts},
		{key: "double//slash", skip: s.Accept.NoEmptyParts}, {key: "/lead", skip: s.Accept.NoEmptyParts},
		{key: "./dot", skip: s.Accept.NoDotParts}, {key: "a/../b", skip: s.Accept.NoDotParts}, {key: "..", skip: s.Accept.NoDotParts},
		{key: "new\nline", skip: s.Accept.NoControlCharacters}, {key: "tab\tkey", skip: s.Accept.NoControlCharacters},
		{key: "bell\a-del\x7f", skip: s.Accept.NoControlCharacters}, {key: "carriage\rreturn", skip: s.Accept.NoControlCharacters},
	} {
		t.Run(fmt.Sprintf("%.40q", tc.key), func(t *testing.T) {
			accept(t, tc.skip)
			data := []byte("content of " + tc.key)
			if strings.HasSuffix(tc.key, "/") {
				data = nil // a marker; several servers keep no bytes in one
			}
			put(t, b, tc.key, data)
			if o := mustHead(t, b, tc.key); o.Key != tc.key {
				t.Errorf("HEAD reports key %q", o.Key)
			}
			mustRead(t, b, tc.key, data)
			if got := keys(list(t, b, objstore.Query{Prefix: tc.key})); !slices.Equal(got, []string{tc.key}) {
				t.Errorf("listed under its own prefix: %q", got)
			}
			if _, err := b.Copy(t.Context(), tc.key, objstore.Ref{Key: tc.key}, objstore.CopyOptions{Meta: map[string]string{"copied": "1"}}); err != nil {
				t.Errorf("copy onto itself: %v", err)
			} else if mustHead(t, b, tc.key).Meta["copied"] != "1" {
				t.Error("a copy onto itself did not replace the metadata")
			}
			mustRead(t, b, tc.key, data)
			for _, err := range b.Delete(t.Context(), objstore.Ref{Key: tc.key}) {
				if err != nil {
					t.Errorf("delete: %v", err)
				}
			}
			mustBeAbsent(t, b, tc.key)
		})
	}
	t.Run("ObjectAndDirectory", func(t *testing.T) {
		accept(t, s.Accept.NoObjectBelowObject)
		put(t, b, "both", []byte("object"))
		put(t, b, "both/below", []byte("below"))
		mustRead(t, b, "both", []byte("object"))
		mustRead(t, b, "both/below", []byte("below"))
		entries := list(t, b, objstore.Query{Prefix: "both", Delimiter: "/"})
		if !slices.Equal(keys(entries), []string{"both", "both/"}) {
			t.Errorf("listed as %q", keys(entries))
		}
	})
}

// parallel calls f with 0..n-1, at most width at a time, and waits.
func parallel(n, width int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range width {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// firstDifference says where two lists of keys part.
func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("at %d got %q, want %q", i, got[i], want[i])
		}
	}
	return "one is the beginning of the other"
}

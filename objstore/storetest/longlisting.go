package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coffer/objstore"
)

const (
	// longKeys is how many keys a long listing has: many pages of slowPageKeys.
	longKeys     = 240
	slowPageKeys = 20
	// slowPage is how long a page takes from a store that is far away.
	slowPage = 25 * time.Millisecond
	// rangesAtLeast is how many requests at a time no client has that asks for
	// one page after the other, and for one of them ahead.
	rangesAtLeast = 3
)

// longListings are what long listings have, by prefix.
var longListings = map[string]func(i int) string{
	"n/": func(i int) string { return fmt.Sprintf("n/img-%05d.jpg", i) },
	// Spaces and percent signs in the place where a range begins.
	"same/": func(i int) string { return fmt.Sprintf("same/%s-%04d", strings.Repeat("100 %, the same; ", 10), i) },
	// U+FF5E comes before U+1F680 in UTF-8, and behind it in UTF-16.
	"u/": func(i int) string { return fmt.Sprintf("u/%c-%03d", []rune("é日\uff5e🚀")[i%4], i/4) },
	// '.' sorts before '/', so that files and groups are mixed.
	"g/": func(i int) string {
		if i%3 == 0 {
			return fmt.Sprintf("g/%03d.txt", i/3)
		}
		return fmt.Sprintf("g/%03d/%d", i/3, i)
	},
}

// testLongListings checks listings of many pages. A client that lists ranges of
// them at a time puts these together again.
func (s *suite) testLongListings(t *testing.T) {
	b := s.bucket(t)
	all := []string{"before", "n0", "z/behind"} // beside what is long
	for _, name := range longListings {
		for i := range longKeys {
			all = append(all, name(i))
		}
	}
	slices.Sort(all)
	parallel(len(all), 16, func(i int) {
		if _, err := write(t.Context(), b, all[i], nil, objstore.CreateOptions{}); err != nil {
			t.Errorf("put %q: %v", all[i], err)
		}
	})
	if t.Failed() {
		return
	}
	s.slowListings(0)
	if s.Proxy != nil {
		t.Cleanup(func() { s.Proxy.Inject(nil) })
	}

	queries := []objstore.Query{{Delimiter: "/"}, {StartAfter: all[len(all)/3]}, {Prefix: "n/", Limit: longKeys / 2}}
	for prefix := range longListings {
		queries = append(queries, objstore.Query{Prefix: prefix}, objstore.Query{Prefix: prefix, Delimiter: "/"},
			objstore.Query{Prefix: prefix, Delimiter: "/", StartAfter: longListings[prefix](30)})
	}
	for _, q := range queries {
		t.Run(fmt.Sprintf("%q,%q,%d,%.10q", q.Prefix, q.Delimiter, q.Limit, q.StartAfter), func(t *testing.T) {
			s.listingsAtATime()
			got, want := keys(list(t, b, q)), selected(all, q)
			if !slices.Equal(got, want) {
				t.Errorf("got %d keys, want %d: %s", len(got), len(want), firstDifference(got, want))
			}
			if most := s.listingsAtATime(); s.Proxy != nil && len(want) >= longKeys/2 && q.Limit == 0 && most < rangesAtLeast {
				t.Errorf("%d keys were listed by %d requests at a time", len(want), most)
			}
		})
	}
	t.Run("Changing", func(t *testing.T) { s.listWhileChanging(t, b, all) })
	t.Run("Ended", func(t *testing.T) { s.endLongListing(t, b, all) })
}

// selected returns what a listing of all, which is sorted, has.
func selected(all []string, q objstore.Query) (out []string) {
	for _, key := range all {
		rest, ok := strings.CutPrefix(key, q.Prefix)
		if !ok {
			continue
		}
		if i := strings.Index(rest, q.Delimiter); q.Delimiter != "" && i >= 0 {
			key = q.Prefix + rest[:i+len(q.Delimiter)]
		}
		if key > q.StartAfter && (q.Limit == 0 || len(out) < q.Limit) {
			out = append(out, key)
		}
	}
	return slices.Compact(out)
}

// slowListings has listings come slowly and in short pages, where there is a
// proxy. If answered is not 0, so many pages come and no more.
func (s *suite) slowListings(answered int32) {
	if s.Proxy == nil {
		return
	}
	var asked atomic.Int32
	s.Proxy.Inject(func(r ProxyRequest) ProxyEffect {
		switch {
		case !isListing(r.Verb):
			return ProxyEffect{}
		case answered > 0 && asked.Add(1) > answered:
			return ProxyEffect{Delay: time.Hour}
		}
		return ProxyEffect{Delay: slowPage, PageKeys: slowPageKeys}
	})
}

// listingsAtATime returns how many pages were asked for at a time since the last call.
func (s *suite) listingsAtATime() int {
	if s.Proxy == nil {
		return 0
	}
	_, most := s.Proxy.Listings()
	return most
}

// listWhileChanging: what is there all the time is listed once, in order, whatever
// comes and goes beside it.
func (s *suite) listWhileChanging(t *testing.T, b objstore.Bucket, all []string) {
	const prefix, passing = "n/", "-passing"
	ctx, cancel := context.WithCancel(t.Context())
	var changes sync.WaitGroup
	changes.Go(func() {
		for i := 0; ctx.Err() == nil; i = (i + 37) % longKeys {
			key := longListings[prefix](i) + passing
			if _, err := write(t.Context(), b, key, nil, objstore.CreateOptions{}); err != nil {
				t.Errorf("put %q: %v", key, err)
			}
			if err := errors.Join(b.Delete(t.Context(), objstore.Ref{Key: key})...); err != nil {
				t.Errorf("delete %q: %v", key, err)
			}
		}
	})
	defer changes.Wait()
	defer cancel()
	for _, q := range []objstore.Query{{Prefix: prefix}, {Prefix: prefix, Delimiter: "/"}} {
		got, want := keys(list(t, b, q)), selected(all, q)
		if !slices.IsSorted(got) {
			t.Errorf("%+v: out of order", q)
		}
		// MinIO shows what is being put as a directory for a moment.
		got = slices.DeleteFunc(got, func(key string) bool { return strings.HasSuffix(strings.TrimSuffix(key, "/"), passing) })
		if !slices.Equal(got, want) {
			t.Errorf("%+v: got %d keys, want %d: %s", q, len(got), len(want), firstDifference(got, want))
		}
	}
}

// endLongListing: a listing that its consumer leaves, or whose context ends, ends
// all the requests that were for it.
func (s *suite) endLongListing(t *testing.T, b objstore.Bucket, all []string) {
	q := objstore.Query{Prefix: "n/"}
	want := selected(all, q)
	const enough = 3*slowPageKeys - slowPageKeys/2 // on the third page
	for _, name := range []string{"Left", "Canceled"} {
		t.Run(name, func(t *testing.T) {
			// Two pages to find out, and one of each range or most of them.
			s.slowListings(2 + 5)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n, ended := 0, false
			for e, err := range b.List(ctx, q) {
				if err != nil {
					if name != "Canceled" || n < enough {
						t.Fatalf("after %d keys: %v", n, err)
					}
					ended = wantKind(t, "a listing whose context has ended", err, objstore.Canceled)
					continue
				}
				if e.Key != want[n] {
					t.Fatalf("at %d got %q, want %q", n, e.Key, want[n])
				}
				if n++; n != enough {
					continue
				}
				s.waitListings(t, func(now int) bool { return now >= rangesAtLeast })
				if name == "Left" {
					break
				}
				cancel()
			}
			if name == "Canceled" && s.Proxy != nil && !ended {
				t.Errorf("%d keys were listed after the context had ended, and no error", n-enough)
			}
			s.waitListings(t, func(now int) bool { return now == 0 })
		})
	}
	s.slowListings(0)
}

// waitListings waits until ok agrees with the number of pages that are on their way.
func (s *suite) waitListings(t *testing.T, ok func(now int) bool) {
	t.Helper()
	if s.Proxy == nil {
		return
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		now, _ := s.Proxy.Listings()
		if ok(now) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are under way", now)
		}
	}
}

package cse

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"coffer/objstore"
)

// TestMissingKeysAreRemembered for a minute, where no retry would find them.
func TestMissingKeysAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := newMissing()
		if err != nil {
			t.Fatal(err)
		}
		v := objstore.Ref{Bucket: "b", Key: "k", VersionID: "1", ETag: "e"}
		current := v
		current.VersionID = ""
		no := &objstore.Error{Op: "head", Key: "b/k", Kind: objstore.KeyUnavailable}
		for _, err := range []error{nil, errors.New("other"), &objstore.Error{Kind: objstore.Integrity}, &objstore.Error{Kind: objstore.Throttled, Err: no},
			&objstore.Error{Kind: objstore.KeyUnavailable, Err: errors.Join(no, &objstore.Error{Kind: objstore.Throttled})},
			&objstore.Error{Kind: objstore.KeyUnavailable, Err: &objstore.Error{Kind: objstore.Canceled}}} {
			if m.note(v, err); m.look("open", v) != nil {
				t.Errorf("%v is remembered", err)
			}
		}
		m.note(objstore.Ref{Bucket: "b", Key: "k"}, no)
		m.note(v, no)
		for _, v := range []objstore.Ref{v, current} {
			if err := m.look("open", v); !errors.Is(err, objstore.KeyUnavailable) || err.Error() != `open "b/k": encryption key unavailable` {
				t.Errorf("%+v: %v", v, err)
			}
		}
		for _, v := range []objstore.Ref{{Bucket: "b", Key: "k"}, {Bucket: "b", Key: "k", ETag: "f"}} {
			if err := m.look("open", v); err != nil {
				t.Errorf("%+v: %v", v, err)
			}
		}
		time.Sleep(missingFor)
		if err := m.look("open", v); err != nil {
			t.Errorf("after a minute: %v", err)
		}
	})
}

// TestSized: what is remembered fits, and what was used latest stays.
func TestSized(t *testing.T) {
	s, err := newSized[string](100, func(n int64) int64 { return n })
	if err != nil {
		t.Fatal(err)
	}
	has := func(want string) {
		t.Helper()
		got, sum := "", int64(0)
		for _, k := range []string{"a", "b", "c", "d"} {
			if s.Contains(k) {
				got += k
			}
		}
		for _, n := range s.lru.Values() {
			sum += n
		}
		if got != want || sum != s.bytes || s.bytes > 100 {
			t.Errorf("%q with %d bytes, counted as %d; not %q", got, sum, s.bytes, want)
		}
	}
	s.Add("a", 40)
	s.Add("b", 40)
	s.Get("a")
	s.Add("c", 40)
	has("ac")
	s.Add("a", 10)
	s.Add("b", 50)
	has("abc")
	s.Add("d", 101)
	has("")
	s.Add("d", 100)
	has("d")
}

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
		no := &objstore.Error{Op: "head", Key: "b/k", Kind: objstore.KeyUnavailable}
		for _, err := range []error{nil, errors.New("other"), &objstore.Error{Kind: objstore.Integrity}, &objstore.Error{Kind: objstore.Throttled, Err: no},
			&objstore.Error{Kind: objstore.KeyUnavailable, Err: errors.Join(no, &objstore.Error{Kind: objstore.Throttled})},
			&objstore.Error{Kind: objstore.KeyUnavailable, Err: &objstore.Error{Kind: objstore.Canceled}}} {
			if m.note(v, err); m.has(v) {
				t.Errorf("%v is remembered", err)
			}
		}
		unknown, other := objstore.Ref{Bucket: "b", Key: "k"}, objstore.Ref{Bucket: "b", Key: "k", VersionID: "1", ETag: "f"}
		m.note(unknown, no)
		m.note(v, no)
		time.Sleep(missingFor - time.Nanosecond)
		if !m.has(v) || m.has(unknown) || m.has(other) {
			t.Errorf("remembered: %v, other versions: %v, %v", m.has(v), m.has(unknown), m.has(other))
		}
		time.Sleep(time.Nanosecond)
		if m.has(v) {
			t.Error("it is remembered after a minute")
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

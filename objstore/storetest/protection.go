package storetest

import (
	"context"
	"slices"
	"testing"
	"time"

	"coffer/objstore"
)

// testDelete checks removal; batches are in testManyKeys.
func (s *suite) testDelete(t *testing.T) {
	b := s.bucket(t)
	if errs := b.Delete(t.Context()); len(errs) != 0 {
		t.Errorf("deleting nothing gives %d results", len(errs))
	}
	put(t, b, "keep", []byte("keep"))
	put(t, b, "drop", []byte("drop"))
	refs := []objstore.Ref{{Key: "absent"}, {Key: "drop"}, {Bucket: b.Name(), Key: "drop"}}
	errs := b.Delete(t.Context(), refs...)
	if len(errs) != len(refs) {
		t.Fatalf("got %d results for %d refs", len(errs), len(refs))
	}
	for i, err := range errs {
		if err != nil {
			t.Errorf("delete %+v: %v", refs[i], err)
		}
	}
	mustBeAbsent(t, b, "drop")
	mustRead(t, b, "keep", []byte("keep"))

	t.Run("OneRef", func(t *testing.T) {
		put(t, b, "single", []byte("x"))
		if errs := b.Delete(t.Context(), objstore.Ref{Key: "single"}); len(errs) != 1 || errs[0] != nil {
			t.Errorf("delete: %v", errs)
		}
		mustBeAbsent(t, b, "single")
		if errs := b.Delete(t.Context(), objstore.Ref{Key: "single"}); len(errs) != 1 || errs[0] != nil {
			t.Errorf("delete of what is absent: %v", errs)
		}
	})
	t.Run("WriteAfterDelete", func(t *testing.T) {
		put(t, b, "again", []byte("first"))
		if errs := b.Delete(t.Context(), objstore.Ref{Key: "again"}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		if _, err := write(t.Context(), b, "again", []byte("second"), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}}); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "again", []byte("second"))
	})
}

// testProtection checks that what is promised for new objects is what the
// objects then show, in every way of making one.
func (s *suite) testProtection(t *testing.T) {
	b := s.bucket(t)
	enc, err := b.Protection(t.Context(), "some/key")
	if err != nil {
		t.Fatalf("protection: %v", err)
	}
	if enc.Mode != s.Mode {
		t.Errorf("a new object gets mode %q, want %q", enc.Mode, s.Mode)
	}
	if enc.Encrypted() != (s.Mode != objstore.ModeNone || enc.CSE != "") {
		t.Errorf("Encrypted() of %+v is %v", enc, enc.Encrypted())
	}
	if left := list(t, b, objstore.Query{}); len(left) != 0 {
		t.Errorf("the proof left %q behind", keys(left))
	}
	check := func(t *testing.T, what string, o objstore.Object) {
		t.Helper()
		if o.Encryption.Mode != s.Mode {
			t.Errorf("%s shows mode %q, want %q", what, o.Encryption.Mode, s.Mode)
		}
	}
	for name, size := range map[string]int64{"empty": 0, "single": 100, "multipart": s.PartSize + 1} {
		data := random(70, size)
		check(t, "Commit of "+name, put(t, b, name, data))
		check(t, "Head of "+name, mustHead(t, b, name))
		check(t, "Get of "+name, mustRead(t, b, name, data))
	}
	t.Run("ByName", func(t *testing.T) {
		if s.Mode == objstore.ModeSSEKMS {
			accept(t, s.Accept.NoDefaultKMSKey)
		}
		data := random(71, s.PartSize+1)
		o, err := write(t.Context(), b, "named", data, objstore.CreateOptions{Encryption: objstore.Encryption{Mode: s.Mode}})
		if err != nil {
			t.Fatal(err)
		}
		check(t, "Commit", o)
		check(t, "Head", mustHead(t, b, "named"))
	})
}

// testUploads checks that unfinished multipart uploads can be found and ended.
func (s *suite) testUploads(t *testing.T) {
	uploads, ok := s.store.(objstore.Uploads)
	if !ok {
		t.Skip("the store does not offer Uploads, which is optional")
	}
	b := s.bucket(t)
	open := func(t *testing.T, prefix string) []objstore.Upload {
		t.Helper()
		var out []objstore.Upload
		for u, err := range uploads.ListUploads(t.Context(), b.Name(), prefix) {
			if err != nil {
				t.Fatalf("list uploads: %v", err)
			}
			out = append(out, u)
		}
		return out
	}
	// waitOpen waits until n uploads are open: parts leave in the background.
	waitOpen := func(t *testing.T, prefix string, n int) []objstore.Upload {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			found := open(t, prefix)
			if len(found) == n {
				return found
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%d uploads under %q are open, want %d: %+v", len(found), prefix, n, found)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	waitOpen(t, "", 0)
	t.Run("AbortByWriter", func(t *testing.T) {
		w := s.begin(t, b, "up/writer", 3*s.PartSize)
		waitOpen(t, "up/writer", 1)
		if err := w.Abort(); err != nil {
			t.Fatal(err)
		}
		waitOpen(t, "up/writer", 0)
	})
	t.Run("CommitEndsIt", func(t *testing.T) {
		put(t, b, "up/done", random(80, 2*s.PartSize))
		waitOpen(t, "up/done", 0)
	})
	t.Run("FailedConditionEndsIt", func(t *testing.T) {
		put(t, b, "up/cond", []byte("there"))
		_, err := write(t.Context(), b, "up/cond", random(81, 2*s.PartSize), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
		wantKind(t, "write over an object", err, objstore.Exist)
		waitOpen(t, "up/cond", 0)
	})
	t.Run("AbortByStranger", func(t *testing.T) {
		w := s.begin(t, b, "up/stranger", 3*s.PartSize)
		found := waitOpen(t, "up/stranger", 1)
		u := found[0]
		if u.Bucket != b.Name() || u.Key != "up/stranger" || u.ID == "" || time.Since(u.Initiated).Abs() > time.Hour {
			t.Errorf("found %+v", u)
		}
		if err := uploads.AbortUpload(t.Context(), u); err != nil {
			t.Fatalf("abort: %v", err)
		}
		_, err := w.Commit(t.Context())
		wantKind(t, "commit of an aborted upload", err, objstore.NotExist, objstore.Conflict, objstore.Stale)
		if err := w.Abort(); err != nil {
			t.Errorf("abort after the failure: %v", err)
		}
		mustBeAbsent(t, b, "up/stranger")
		if err := uploads.AbortUpload(t.Context(), u); err != nil && !wantKind(t, "second abort", err, objstore.NotExist) {
			t.Log("an upload that is gone is absent, or its abort succeeds")
		}
	})
	t.Run("Prefix", func(t *testing.T) {
		w1, w2 := s.begin(t, b, "pre/1", 3*s.PartSize), s.begin(t, b, "fix/2", 3*s.PartSize)
		waitOpen(t, "", 2)
		if found := waitOpen(t, "pre/", 1); found[0].Key != "pre/1" {
			t.Errorf("found %+v", found)
		}
		for _, w := range []objstore.Writer{w1, w2} {
			if err := w.Abort(); err != nil {
				t.Error(err)
			}
		}
		waitOpen(t, "", 0)
	})
	t.Run("EarlyBreak", func(t *testing.T) {
		w1, w2 := s.begin(t, b, "brk/1", 2*s.PartSize), s.begin(t, b, "brk/2", 2*s.PartSize)
		waitOpen(t, "brk/1", 1)
		waitOpen(t, "brk/2", 1)
		var seen []string
		for u, err := range uploads.ListUploads(t.Context(), b.Name(), "") {
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, u.Key)
			break
		}
		if len(seen) != 1 || !slices.Contains([]string{"brk/1", "brk/2"}, seen[0]) {
			t.Errorf("saw %q", seen)
		}
		for _, w := range []objstore.Writer{w1, w2} {
			if err := w.Abort(); err != nil {
				t.Error(err)
			}
		}
	})
}

package storetest

import (
	"context"
	"errors"
	"io"
	"testing"

	"coffer/objstore"
)

// testWriters checks how a Writer begins and ends.
func (s *suite) testWriters(t *testing.T) {
	b := s.bucket(t)
	sizes := map[string]int64{"Empty": 0, "Single": 1000, "Multipart": 2*s.PartSize + 1}
	for name, size := range sizes {
		t.Run("Abort/"+name, func(t *testing.T) {
			key := "abort/" + name
			w := s.begin(t, b, key, size)
			mustBeAbsent(t, b, key)
			if err := w.Abort(); err != nil {
				t.Fatalf("abort: %v", err)
			}
			mustBeAbsent(t, b, key)
			if err := w.Abort(); err != nil {
				t.Errorf("second abort: %v", err)
			}
			if _, err := w.Commit(t.Context()); err == nil {
				t.Error("commit after abort succeeded")
			}
			if n, err := w.Write([]byte("x")); err == nil {
				t.Errorf("write after abort took %d bytes without an error", n)
			}
			mustBeAbsent(t, b, key)
		})
		t.Run("InvisibleBeforeCommit/"+name, func(t *testing.T) {
			key := "replace/" + name
			put(t, b, key, []byte("old"))
			w := s.begin(t, b, key, size)
			mustRead(t, b, key, []byte("old"))
			o, err := w.Commit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			mustRead(t, b, key, random(20, size))
			if _, err := w.Commit(t.Context()); err == nil {
				t.Error("second commit succeeded")
			}
			if n, err := w.Write([]byte("x")); err == nil {
				t.Errorf("write after commit took %d bytes without an error", n)
			}
			_ = w.Abort() // a caller's deferred Abort must do no harm
			if got := mustHead(t, b, key); got.ETag != o.ETag {
				t.Errorf("ETag after the end is %q, was %q", got.ETag, o.ETag)
			}
		})
		t.Run("AbortAfterFailedCommit/"+name, func(t *testing.T) {
			key := "failed/" + name
			old := put(t, b, key, []byte("old"))
			w, err := b.Create(t.Context(), key, objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
			if err == nil {
				_, err = w.Write(random(21, size))
				if err == nil {
					_, err = w.Commit(t.Context())
				}
				if aerr := w.Abort(); aerr != nil {
					t.Errorf("abort after a failure: %v", aerr)
				}
			}
			wantKind(t, "a commit whose condition fails", err, objstore.Exist)
			if got := mustRead(t, b, key, []byte("old")); got.ETag != old.ETag {
				t.Errorf("ETag is %q, was %q", got.ETag, old.ETag)
			}
		})
	}
	t.Run("Keep", func(t *testing.T) {
		old := put(t, b, "keep", []byte("old"))
		begin := func() (objstore.Writer, objstore.Keeper) {
			w, err := b.Create(t.Context(), "keep", objstore.CreateOptions{Keep: true, Cond: objstore.Condition{IfAbsent: true}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(random(22, 2*s.PartSize+1)); err != nil {
				t.Fatal(err)
			}
			_, err = w.Commit(t.Context())
			wantKind(t, "a commit whose condition fails", err, objstore.Exist)
			k, ok := w.(objstore.Keeper)
			if ok && !k.Kept() {
				t.Error("the parts are not kept")
			}
			return w, k
		}
		w, k := begin()
		if k == nil {
			if err := w.Abort(); err != nil {
				t.Error(err)
			}
			return // nothing is promised
		}
		_, err := k.Recommit(t.Context(), objstore.Condition{IfAbsent: true})
		wantKind(t, "the same condition again", err, objstore.Exist)
		if got := mustRead(t, b, "keep", []byte("old")); got.ETag != old.ETag {
			t.Errorf("ETag is %q, was %q", got.ETag, old.ETag)
		}
		if _, err := k.Recommit(t.Context(), objstore.Condition{IfMatch: old.ETag}); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "keep", random(22, 2*s.PartSize+1))
		resume := func(k objstore.Keeper) objstore.Keeper {
			token, err := k.Token()
			if err != nil {
				t.Fatal(err)
			}
			other, err := s.store.Open(t.Context(), b.Name()) // as another process would
			if err != nil {
				t.Fatal(err)
			}
			k.Entrust()
			if k, err = other.(objstore.Resumer).Resume(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			return k
		}
		if err := b.Delete(t.Context(), objstore.Ref{Key: "keep"})[0]; err != nil {
			t.Fatal(err)
		}
		put(t, b, "keep", []byte("other"))
		_, k = begin()
		k = resume(k)
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Recommit(canceled, objstore.Condition{}); err == nil || !k.Kept() {
			t.Fatalf("a commit that the caller gives up: %v, kept %v", err, k.Kept())
		}
		if _, err := k.Recommit(t.Context(), objstore.Condition{}); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "keep", random(22, 2*s.PartSize+1))
		_, k = begin()
		k = resume(k)
		if err := k.Abort(); err != nil {
			t.Error(err)
		}
		if _, err := k.Recommit(t.Context(), objstore.Condition{}); err == nil {
			t.Error("commit of what was given up succeeded")
		}
		mustRead(t, b, "keep", random(22, 2*s.PartSize+1))
		if uploads, ok := s.store.(objstore.Uploads); ok {
			for u, err := range uploads.ListUploads(t.Context(), b.Name(), "keep") {
				t.Errorf("an upload is left: %v, %v", u, err)
			}
		}
	})
	t.Run("Interleaved", func(t *testing.T) {
		// Two writers of one key: each ends whole, the last commit stays.
		w1, w2 := s.begin(t, b, "two", 2*s.PartSize), s.begin(t, b, "two", 500)
		if _, err := w2.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "two", random(20, 500))
		if _, err := w1.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "two", random(20, 2*s.PartSize))
	})
}

// begin opens a writer and fills it with size bytes of random(20).
func (s *suite) begin(t *testing.T, b objstore.Bucket, key string, size int64) objstore.Writer {
	t.Helper()
	w, err := b.Create(t.Context(), key, objstore.CreateOptions{})
	if err != nil {
		t.Fatalf("create %q: %v", key, err)
	}
	if _, err := w.Write(random(20, size)); err != nil {
		t.Fatalf("write %q: %v", key, err)
	}
	return w
}

// testCancel checks that a context that ends stops work and changes nothing.
func (s *suite) testCancel(t *testing.T) {
	b := s.bucket(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	data := random(30, 2*s.PartSize)
	put(t, b, "kept", data)

	t.Run("Before", func(t *testing.T) {
		_, err := b.Head(canceled, objstore.Ref{Key: "kept"})
		wantKind(t, "head", err, objstore.Canceled)
		_, _, err = read(canceled, b, objstore.Ref{Key: "kept"}, objstore.Range{})
		wantKind(t, "get", err, objstore.Canceled)
		_, err = b.Copy(canceled, "copy", objstore.Ref{Key: "kept"}, objstore.CopyOptions{})
		wantKind(t, "copy", err, objstore.Canceled)
		for _, err := range b.Delete(canceled, objstore.Ref{Key: "kept"}) {
			wantKind(t, "delete", err, objstore.Canceled)
		}
		for _, err := range b.List(canceled, objstore.Query{}) {
			wantKind(t, "list", err, objstore.Canceled)
		}
		_, err = write(canceled, b, "new", []byte("x"), objstore.CreateOptions{})
		wantKind(t, "write", err, objstore.Canceled)
		_, err = s.store.Open(canceled, b.Name())
		wantKind(t, "open", err, objstore.Canceled)
		mustBeAbsent(t, b, "copy")
		mustBeAbsent(t, b, "new")
		mustRead(t, b, "kept", data)
	})
	t.Run("DuringRead", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		body, _, err := b.Get(ctx, objstore.Ref{Key: "kept"}, objstore.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		head := make([]byte, 10)
		if _, err := io.ReadFull(body, head); err != nil {
			t.Fatal(err)
		}
		cancel()
		// What was on its way may still arrive; but it ends with an error
		// unless it is all there.
		rest, err := io.ReadAll(body)
		if err == nil && len(rest)+len(head) != len(data) {
			t.Errorf("a canceled read ended after %d of %d bytes without an error", len(rest)+len(head), len(data))
		}
		if err != nil && !errors.Is(err, objstore.Canceled) {
			t.Errorf("a canceled read ended with %v", err)
		}
	})
	for name, size := range map[string]int64{"Single": 100, "Multipart": 2*s.PartSize + 100} {
		t.Run("DuringWrite/"+name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := b.Create(ctx, "new", objstore.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(random(31, size)); err != nil {
				t.Fatal(err)
			}
			cancel()
			_, err = w.Commit(ctx)
			wantKind(t, "commit with a canceled context", err, objstore.Canceled)
			if err := w.Abort(); err != nil {
				t.Errorf("abort: %v", err)
			}
			mustBeAbsent(t, b, "new")
		})
	}
}

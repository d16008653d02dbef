package storetest

import (
	"slices"
	"testing"

	"coffer/objstore"
)

// testBuckets checks creation, opening and removal of buckets.
func (s *suite) testBuckets(t *testing.T) {
	name := s.bucketName(t)
	if s.store.Identity() == "" {
		t.Error("Identity is empty: blocks of different stores would share cache keys")
	}
	_, err := s.store.Open(t.Context(), name)
	wantKind(t, "open before creation", err, objstore.NotExist)
	wantKind(t, "delete before creation", s.store.DeleteBucket(t.Context(), name), objstore.NotExist)

	enc, err := s.store.CreateBucket(t.Context(), name, s.createOptions())
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if enc.Mode != s.Mode {
		t.Errorf("create reports mode %q, want %q", enc.Mode, s.Mode)
	}
	b, err := s.store.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if b.Name() != name {
		t.Errorf("name is %q, want %q", b.Name(), name)
	}
	if left := list(t, b, objstore.Query{}); len(left) != 0 {
		t.Errorf("a new bucket holds %q", keys(left))
	}
	infos, err := s.store.Buckets(t.Context())
	if err != nil {
		t.Fatalf("buckets: %v", err)
	}
	if !slices.ContainsFunc(infos, func(i objstore.BucketInfo) bool { return i.Name == name && !i.Created.IsZero() }) {
		t.Errorf("%q is not among the buckets %+v", name, infos)
	}

	put(t, b, "key", []byte("value"))
	_, err = s.store.CreateBucket(t.Context(), name, s.createOptions())
	wantKind(t, "create again", err, objstore.Exist)
	mustRead(t, b, "key", []byte("value"))
	wantKind(t, "delete with an object inside", s.store.DeleteBucket(t.Context(), name), objstore.NotEmpty)
	mustRead(t, b, "key", []byte("value"))

	for _, err := range b.Delete(t.Context(), objstore.Ref{Key: "key"}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.DeleteBucket(t.Context(), name); err != nil {
		t.Errorf("delete: %v", err)
	}
	_, err = s.store.Open(t.Context(), name)
	wantKind(t, "open after removal", err, objstore.NotExist)
	_, err = write(t.Context(), b, "key", []byte("value"), objstore.CreateOptions{})
	wantKind(t, "put after removal", err, objstore.NotExist)

	t.Run("Names", func(t *testing.T) {
		for _, bad := range []string{"UPPER-case", "ab", "under_score", "a..b", "-dash", "192.168.1.1", "dash-"} {
			_, err := s.store.CreateBucket(t.Context(), bad, s.createOptions())
			if !wantKind(t, "create "+bad, err, objstore.InvalidName) && err == nil {
				if err := s.store.DeleteBucket(t.Context(), bad); err != nil {
					t.Errorf("remove %s again: %v", bad, err)
				}
			}
		}
	})
}

package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"coffer/objstore"
)

// Config says what to run the suite over.
type Config struct {
	// Name stands in the names of buckets, so that a shared server shows who
	// made them: lower-case letters and digits, at most 20.
	Name string
	// Open returns the store under test. It is called once; whoever has to
	// close the store registers that with t.Cleanup.
	Open func(t *testing.T) objstore.Store
	// Mode is what new objects must show. The zero value is ModeSSES3; with
	// ModeNone the suite creates its buckets with AllowUnencrypted.
	Mode objstore.Mode
	// PartSize is the size in bytes at which the store goes from one request
	// to a multipart upload. Sizes around it are tried. The zero value is
	// 5 MiB, the least that S3 allows.
	PartSize int64
	// Only, when not empty, names the groups of checks to run: a store that
	// differs in one setting from one that passed all need not repeat all.
	Only []string
	// Proxy, when not nil, is what the store talks to. A long listing is then
	// made slow, and several ranges of it are expected at a time.
	Proxy *Proxy
	// Accept holds what this store may do differently, and why.
	Accept Differences
}

// Run puts the store of cfg through the conformance suite, one subtest a
// promise. Everything that it creates is removed again.
func Run(t *testing.T, cfg Config) {
	if cfg.Mode == objstore.ModeAuto {
		cfg.Mode = objstore.ModeSSES3
	}
	if cfg.PartSize == 0 {
		cfg.PartSize = 5 << 20
	}
	s := &suite{Config: cfg, store: cfg.Open(t)}
	groups := []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Buckets", s.testBuckets},
		{"Objects", s.testObjects},
		{"Metadata", s.testMetadata},
		{"Ranges", s.testRanges},
		{"Versions", s.testVersions},
		{"Listing", s.testListing},
		{"ManyKeys", s.testManyKeys},
		{"LongListings", s.testLongListings},
		{"OddKeys", s.testOddKeys},
		{"Conditions", s.testConditions},
		{"Races", s.testRaces},
		{"Writers", s.testWriters},
		{"Cancel", s.testCancel},
		{"Copy", s.testCopy},
		{"CopyRange", s.testCopyRange},
		{"Delete", s.testDelete},
		{"Protection", s.testProtection},
		{"Uploads", s.testUploads},
		{"Concurrency", s.testConcurrency},
	}
	known := map[string]bool{}
	for _, g := range groups {
		known[g.name] = true
		if len(cfg.Only) == 0 || slices.Contains(cfg.Only, g.name) {
			t.Run(g.name, g.run)
		}
	}
	for _, name := range cfg.Only {
		if !known[name] {
			t.Errorf("Only names %q, which is no group of checks", name)
		}
	}
}

// suite is one run: a store and what is expected of it.
type suite struct {
	Config
	store objstore.Store
}

// bucketName returns a name that nobody else uses.
func (s *suite) bucketName(t *testing.T) string {
	t.Helper()
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return "conf-" + s.Name + "-" + hex.EncodeToString(b[:])
}

// createOptions are the options with which this store can create a bucket.
func (s *suite) createOptions() objstore.CreateBucketOptions {
	return objstore.CreateBucketOptions{AllowUnencrypted: s.Mode == objstore.ModeNone}
}

// bucket creates a bucket that is emptied and removed when the test ends.
func (s *suite) bucket(t *testing.T) objstore.Bucket {
	t.Helper()
	name := s.bucketName(t)
	if _, err := s.store.CreateBucket(t.Context(), name, s.createOptions()); err != nil {
		t.Fatalf("create bucket %s: %v", name, err)
	}
	b, err := s.store.Open(t.Context(), name)
	if err != nil {
		t.Fatalf("open bucket %s: %v", name, err)
	}
	t.Cleanup(func() { s.removeBucket(t, b) })
	return b
}

// removeBucket deletes every object of b and then b. The test's own context
// has ended by then.
func (s *suite) removeBucket(t *testing.T, b objstore.Bucket) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var refs []objstore.Ref
	for e, err := range b.List(ctx, objstore.Query{}) {
		if err != nil {
			t.Errorf("clean up %s: %v", b.Name(), err)
			return
		}
		refs = append(refs, objstore.Ref{Key: e.Key})
	}
	for _, err := range b.Delete(ctx, refs...) {
		if err != nil {
			t.Errorf("clean up %s: %v", b.Name(), err)
		}
	}
	if err := s.store.DeleteBucket(ctx, b.Name()); err != nil {
		t.Errorf("clean up %s: %v", b.Name(), err)
	}
}

// write stores data under key; the error is that of Create, Write or Commit,
// wherever the store notices first.
func write(ctx context.Context, b objstore.Bucket, key string, data []byte, opts objstore.CreateOptions) (objstore.Object, error) {
	w, err := b.Create(ctx, key, opts)
	if err != nil {
		return objstore.Object{}, err
	}
	// An odd chunk size: no boundary of a part falls on one of a Write.
	const chunk = 1<<17 + 11
	for rest := data; len(rest) > 0; {
		n := min(chunk, len(rest))
		if m, err := w.Write(rest[:n]); err != nil {
			return objstore.Object{}, errors.Join(err, w.Abort())
		} else if m != n {
			return objstore.Object{}, errors.Join(fmt.Errorf("Write took %d of %d bytes without an error", m, n), w.Abort())
		}
		rest = rest[n:]
	}
	o, err := w.Commit(ctx)
	if err != nil {
		return o, errors.Join(err, w.Abort())
	}
	return o, nil
}

// put is write, and ends the test when that fails.
func put(t *testing.T, b objstore.Bucket, key string, data []byte) objstore.Object {
	t.Helper()
	o, err := write(t.Context(), b, key, data, objstore.CreateOptions{})
	if err != nil {
		t.Fatalf("put %q (%d bytes): %v", key, len(data), err)
	}
	return o
}

// read returns the bytes of ref.
func read(ctx context.Context, b objstore.Bucket, ref objstore.Ref, r objstore.Range) ([]byte, objstore.Object, error) {
	body, o, err := b.Get(ctx, ref, objstore.GetOptions{Range: r})
	if err != nil {
		return nil, o, err
	}
	// Room at once: growing a slice to megabytes step by step is most of the
	// time of a test under the race detector.
	room := o.Size
	if r.Length > 0 {
		room = min(room, r.Length)
	}
	var buf bytes.Buffer
	buf.Grow(int(room) + bytes.MinRead)
	_, err = buf.ReadFrom(body)
	return buf.Bytes(), o, errors.Join(err, body.Close())
}

// mustRead checks that key holds want.
func mustRead(t *testing.T, b objstore.Bucket, key string, want []byte) objstore.Object {
	t.Helper()
	got, o, err := read(t.Context(), b, objstore.Ref{Key: key}, objstore.Range{})
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("get %q: %s", key, differ(got, want))
	}
	return o
}

// mustHead returns what the store knows of key.
func mustHead(t *testing.T, b objstore.Bucket, key string) objstore.Object {
	t.Helper()
	o, err := b.Head(t.Context(), objstore.Ref{Key: key})
	if err != nil {
		t.Fatalf("head %q: %v", key, err)
	}
	return o
}

// mustBeAbsent checks that nothing is visible under key.
func mustBeAbsent(t *testing.T, b objstore.Bucket, key string) {
	t.Helper()
	_, err := b.Head(t.Context(), objstore.Ref{Key: key})
	wantKind(t, "head of "+key, err, objstore.NotExist)
	_, _, err = read(t.Context(), b, objstore.Ref{Key: key}, objstore.Range{})
	wantKind(t, "get of "+key, err, objstore.NotExist)
	for _, e := range list(t, b, objstore.Query{Prefix: key}) {
		if e.Key == key {
			t.Errorf("%q is absent for HEAD and listed", key)
		}
	}
}

// list returns a whole listing.
func list(t *testing.T, b objstore.Bucket, q objstore.Query) []objstore.Entry {
	t.Helper()
	var out []objstore.Entry
	for e, err := range b.List(t.Context(), q) {
		if err != nil {
			t.Fatalf("list %+v: %v", q, err)
		}
		out = append(out, e)
	}
	return out
}

// keys returns the keys of entries, prefixes included.
func keys(entries []objstore.Entry) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Key
	}
	return out
}

// wantKind checks the kind of an error, and that it is an *objstore.Error as
// every method promises. It reports whether that is so.
func wantKind(t *testing.T, what string, err error, kinds ...objstore.Kind) bool {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want kind %q", what, kinds)
		return false
	}
	var e *objstore.Error
	if !errors.As(err, &e) {
		t.Errorf("%s: error %v (%T), want an *objstore.Error", what, err, err)
		return false
	}
	for _, k := range kinds {
		if errors.Is(err, k) {
			return true
		}
	}
	t.Errorf("%s: error %v, want kind %q", what, err, kinds)
	return false
}

// random returns n bytes that depend on seed only and do not compress.
func random(seed uint64, n int64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	mathrand.NewChaCha8(key).Read(b) // never fails, always fills
	return b
}

// differ says where two byte slices differ; dumping megabytes helps nobody.
func differ(got, want []byte) string {
	n := min(len(got), len(want))
	for i := range n {
		if got[i] != want[i] {
			return fmt.Sprintf("got %d bytes, want %d; first difference at %d", len(got), len(want), i)
		}
	}
	return fmt.Sprintf("got %d bytes, want %d; equal up to there", len(got), len(want))
}

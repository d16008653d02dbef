package cse_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/emulator"
	"coffer/objstore/s3store"
	"coffer/objstore/storetest"
)

// openEmulator returns a store over the emulator, as it is.
func openEmulator(t *testing.T, dialect string, cfg s3store.Config) objstore.Store {
	t.Helper()
	srv, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: dialect})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	if err := srv.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return openS3(t, srv.Env(), cfg)
}

// openS3 returns a store over the server that env describes, as it is.
func openS3(t *testing.T, env []string, cfg s3store.Config) objstore.Store {
	t.Helper()
	storetest.SetEnv(t, env)
	cfg.PartSize = 5 << 20
	s, err := s3store.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// newRing is a keyring with a random AES key.
func newRing(t testing.TB) *keyring.Ring {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string][]byte{"key": random(32), "keyring": []byte("- {type: raw-aes, namespace: tests, name: random, key_file: key}\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, _, err := keyring.Load(t.Context(), filepath.Join(dir, "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wrap(t *testing.T, inner objstore.Store, cfg cse.Config) objstore.Store {
	t.Helper()
	if cfg.Keyring == nil {
		cfg.Keyring = newRing(t)
	}
	s, err := cse.Wrap(inner, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	// What this package has a hand in; the rest is passed through, wherever.
	decorated := []string{"Objects", "Metadata", "Ranges", "Versions", "Listing", "Conditions", "Races", "Writers", "Cancel", "Copy", "Protection", "Uploads"}
	for _, c := range []struct {
		name string
		mode objstore.Mode
		only []string
		open func(t *testing.T, cfg s3store.Config) objstore.Store
	}{
		{"emulator", objstore.ModeSSES3, nil, func(t *testing.T, cfg s3store.Config) objstore.Store { return openEmulator(t, "aws", cfg) }},
		{"emulator without encryption", objstore.ModeNone, decorated, func(t *testing.T, cfg s3store.Config) objstore.Store {
			return openEmulator(t, "nosse", cfg)
		}},
		{"minio", objstore.ModeSSES3, decorated, func(t *testing.T, cfg s3store.Config) objstore.Store {
			return openS3(t, storetest.StartMinIO(t).Env(), cfg)
		}},
		{"versitygw", objstore.ModeNone, decorated, func(t *testing.T, cfg s3store.Config) objstore.Store {
			return openS3(t, storetest.StartVersityGW(t).Env(), cfg)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, _, _ := strings.Cut(c.name, " ")
			differs := storetest.Accepted(server)
			differs.NoChecksum = "The store keeps a checksum of the ciphertext; frames are authenticated."
			storetest.Run(t, storetest.Config{Name: "cse" + server, Mode: c.mode, Only: c.only, Accept: differs,
				Open: func(t *testing.T) objstore.Store {
					return wrap(t, c.open(t, s3store.Config{AllowUnencrypted: c.mode == objstore.ModeNone}), cse.Config{Binding: cse.BindStrict})
				}})
		})
	}
}

// a bucket of a new store, and what lies inside of it.
func newBucket(t *testing.T, cfg cse.Config) (b, inside objstore.Bucket) {
	t.Helper()
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	return bucketOf(t, wrap(t, inner, cfg), inner)
}

// bucketOf makes a bucket and returns it as s and as inner have it.
func bucketOf(t *testing.T, s, inner objstore.Store) (b, inside objstore.Bucket) {
	t.Helper()
	if _, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	inside, err = inner.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	return b, inside
}

func put(t *testing.T, b objstore.Bucket, key string, data []byte, meta map[string]string) objstore.Object {
	t.Helper()
	w, err := b.Create(t.Context(), key, objstore.CreateOptions{Meta: meta})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	o, err := w.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func read(t *testing.T, b objstore.Bucket, key string, r objstore.Range) ([]byte, error) {
	t.Helper()
	body, _, err := b.Get(t.Context(), objstore.Ref{Key: key}, objstore.GetOptions{Range: r})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

// exchange puts what is stored under another key as it is, with its metadata.
func exchange(t *testing.T, inside objstore.Bucket, from, to string, change func(data []byte, meta map[string]string) []byte) {
	t.Helper()
	o, err := inside.Head(t.Context(), objstore.Ref{Key: from})
	if err != nil {
		t.Fatal(err)
	}
	data, err := read(t, inside, from, objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	meta := objstore.CloneMeta(o.Meta)
	if change != nil {
		data = change(data, meta)
	}
	put(t, inside, to, data, meta)
}

const frame = 64 << 10

// TestDamageIsFound: whatever becomes of what is stored, who reads gets an error or the
// right bytes.
func TestDamageIsFound(t *testing.T) {
	b, inside := newBucket(t, cse.Config{})
	data, other := random(3*frame+100), random(3*frame+100)
	put(t, b, "key", data, nil)
	put(t, b, "other", other, nil)
	foreign, err := read(t, inside, "other", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	const head, sealed = 1024, frame + 32
	for name, change := range map[string]func(p []byte) []byte{
		"a bit of the header":       func(p []byte) []byte { p[40] ^= 1; return p },
		"a bit of the first frame":  func(p []byte) []byte { p[head+100] ^= 1; return p },
		"a bit of the second frame": func(p []byte) []byte { p[head+sealed+100] ^= 1; return p },
		"a bit of the last frame":   func(p []byte) []byte { p[len(p)-20] ^= 1; return p },
		"a byte less":               func(p []byte) []byte { return p[:len(p)-1] },
		"a byte more":               func(p []byte) []byte { return append(p, 0) },
		"cut at the end of a frame": func(p []byte) []byte { return p[:head+2*sealed] },
		"a frame less":              func(p []byte) []byte { return slices.Delete(p, head+sealed, head+2*sealed) },
		"a frame twice":             func(p []byte) []byte { return slices.Insert(p, head+sealed, p[head:head+sealed]...) },
		"two frames exchanged": func(p []byte) []byte {
			return slices.Concat(p[:head], p[head+sealed:head+2*sealed], p[head:head+sealed], p[head+2*sealed:])
		},
		"a frame of another message":        func(p []byte) []byte { copy(p[head:], foreign[head:head+sealed]); return p },
		"the header of another message":     func(p []byte) []byte { copy(p, foreign[:head]); return p },
		"the last frame of another message": func(p []byte) []byte { copy(p[head+3*sealed:], foreign[head+3*sealed:]); return p },
		"nothing left":                      func(p []byte) []byte { return nil },
		"plaintext":                         func(p []byte) []byte { return data },
	} {
		exchange(t, inside, "key", "changed", func(p []byte, _ map[string]string) []byte { return change(p) })
		for _, r := range []objstore.Range{{}, {Length: 10}, {Offset: frame + 10, Length: frame}, {Offset: 3 * frame}} {
			got, err := read(t, b, "changed", r)
			want := data[r.Offset:]
			if r.Length > 0 {
				want = want[:r.Length]
			}
			switch {
			case err == nil && !bytes.Equal(got, want):
				t.Errorf("%s: %+v gives other bytes", name, r)
			case err == nil && r == (objstore.Range{}):
				t.Errorf("%s: all of it is read", name)
			case err != nil && !errors.Is(err, objstore.Integrity):
				t.Errorf("%s: %+v: %v", name, r, err)
			}
		}
	}
}

// TestExchangedObjects: an object that was stored under another path is noticed, one that
// was renamed is not.
func TestExchangedObjects(t *testing.T) {
	for binding, want := range map[cse.Binding]objstore.Kind{cse.BindStrict: objstore.Integrity, cse.BindWarn: objstore.Unknown, cse.BindOff: objstore.Unknown} {
		var log bytes.Buffer
		b, inside := newBucket(t, cse.Config{Binding: binding, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		put(t, b, "secret", []byte("one"), nil)
		exchange(t, inside, "secret", "public", nil)
		_, err := read(t, b, "public", objstore.Range{})
		if objstore.KindOf(err) != want {
			t.Errorf("%s: reading it is %v", binding, err)
		}
		if warned := strings.Contains(log.String(), "stored under its path; somebody"); warned != (binding == cse.BindWarn) {
			t.Errorf("%s: the log says %q", binding, &log)
		}
		if _, err := b.Copy(t.Context(), "renamed", objstore.Ref{Key: "secret"}, objstore.CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t, b, "renamed", objstore.Range{}); err != nil || string(got) != "one" {
			t.Errorf("%s: renamed: %q, %v", binding, got, err)
		}
	}
}

// TestPlainObjects are read with the policy auto only.
func TestPlainObjects(t *testing.T) {
	for policy, readable := range map[cse.Policy]bool{cse.Require: false, cse.Auto: true} {
		b, inside := newBucket(t, cse.Config{Policy: policy})
		put(t, inside, "plain", []byte("plaintext"), map[string]string{"a": "b"})
		put(t, inside, "dir/", nil, nil)
		o, err := b.Head(t.Context(), objstore.Ref{Key: "plain"})
		if err != nil || o.Size != 9 || o.Encryption.CSE != "" || o.Meta["a"] != "b" {
			t.Errorf("%s: HEAD: %+v, %v", policy, o, err)
		}
		got, err := read(t, b, "plain", objstore.Range{Offset: 5})
		if readable && (err != nil || string(got) != "text") || !readable && !errors.Is(err, objstore.Integrity) {
			t.Errorf("%s: %q, %v", policy, got, err)
		}
		if o, err := b.Head(t.Context(), objstore.Ref{Key: "dir/"}); err != nil || o.Size != 0 {
			t.Errorf("%s: a marker: %+v, %v", policy, o, err)
		}
	}
}

// TestWrongKeyring: who does not have the key is told so, and sees what there is.
func TestWrongKeyring(t *testing.T) {
	inner := openEmulator(t, "aws", s3store.Config{})
	mine, theirs := wrap(t, inner, cse.Config{}), wrap(t, inner, cse.Config{})
	if _, err := mine.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	a, err := mine.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	put(t, a, "key", random(100_000), nil)
	b, err := theirs.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	if o, err := b.Head(t.Context(), objstore.Ref{Key: "key"}); err != nil || o.Size != 100_000 {
		t.Errorf("HEAD: %+v, %v", o, err)
	}
	if _, err := read(t, b, "key", objstore.Range{}); !errors.Is(err, objstore.KeyUnavailable) {
		t.Errorf("reading it: %v", err)
	}
	if _, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: "key"}); !errors.Is(err, objstore.KeyUnavailable) {
		t.Errorf("opening it: %v", err)
	}
}

// TestSizesAreProved: a size that the metadata tells is not believed by who opens.
func TestSizesAreProved(t *testing.T) {
	b, inside := newBucket(t, cse.Config{})
	data := random(100_000)
	put(t, b, "key", data, nil)
	exchange(t, inside, "key", "key", func(p []byte, meta map[string]string) []byte {
		meta["coffer-esdk"] = "1;h=1024;f=4096;s=0"
		return p
	})
	o, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: "key"})
	if err != nil || o.Size != int64(len(data)) {
		t.Errorf("proved: %d bytes, %v", o.Size, err)
	}
	if o, err := b.Head(t.Context(), objstore.Ref{Key: "key"}); err != nil || o.Size != int64(len(data)) {
		t.Errorf("HEAD after that: %d bytes, %v", o.Size, err)
	}
	for e, err := range b.List(t.Context(), objstore.Query{}) {
		if err != nil || !e.SizeKnown || e.Size != int64(len(data)) {
			t.Errorf("listed after that: %+v, %v", e, err)
		}
	}
}

// TestCopyGoesByTheHeader: metadata that somebody has changed do not go along with a copy,
// nor make it fail when it is there.
func TestCopyGoesByTheHeader(t *testing.T) {
	b, inside := newBucket(t, cse.Config{})
	data := random(1000)
	put(t, b, "key", data, nil)
	exchange(t, inside, "key", "key", func(p []byte, meta map[string]string) []byte {
		meta["coffer-esdk"] = "1;h=65536;f=1;s=0"
		return p
	})
	o, err := b.Copy(t.Context(), "copy", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
	if err != nil || o.Size != int64(len(data)) {
		t.Fatalf("%d bytes, %v", o.Size, err)
	}
	if raw, err := inside.Head(t.Context(), objstore.Ref{Key: "copy"}); err != nil || raw.Meta["coffer-esdk"] != "1;h=1024;f=65536;s=0" {
		t.Errorf("metadata %v, %v", raw.Meta, err)
	}
}

// counted counts the requests for what is stored.
type counted struct {
	objstore.Store
	gets, heads *atomic.Int32
}

func (c counted) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	b, err := c.Store.Open(ctx, name)
	return countedBucket{b, c}, err
}

type countedBucket struct {
	objstore.Bucket
	c counted
}

func (b countedBucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	b.c.gets.Add(1)
	return b.Bucket.Get(ctx, ref, opts)
}

func (b countedBucket) Head(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	b.c.heads.Add(1)
	return b.Bucket.Head(ctx, ref)
}

// TestRequests: what reading costs the store, of objects that are not known yet.
func TestRequests(t *testing.T) {
	inner, ring := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true}), newRing(t)
	s := wrap(t, inner, cse.Config{Keyring: ring})
	if _, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := s.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, "empty", nil, nil)
	put(t, w, "small", random(100), nil)
	put(t, w, "frame", random(frame), nil)
	put(t, w, "large", random(10*frame+1), nil)
	// A read names the version that one before has met.
	etags := map[string]objstore.ETag{}
	read := func(b objstore.Bucket, key string, r objstore.Range) error {
		body, o, err := b.Get(t.Context(), objstore.Ref{Key: key, ETag: etags[key]}, objstore.GetOptions{Range: r})
		if err != nil {
			return err
		}
		defer body.Close()
		etags[key] = o.ETag
		_, err = io.Copy(io.Discard, body)
		return err
	}
	for _, c := range []struct {
		what  string
		key   string
		gets  int32
		heads int32
		do    func(b objstore.Bucket, key string) error
	}{
		{"all of it", "", 1, 0, func(b objstore.Bucket, key string) error { return read(b, key, objstore.Range{}) }},
		{"its attributes", "", 0, 1, func(b objstore.Bucket, key string) error {
			_, err := b.Head(t.Context(), objstore.Ref{Key: key})
			return err
		}},
		{"its size, proved", "small", 1, 0, prove},
		{"its size, proved", "large", 2, 0, prove},
		{"a range", "large", 3, 0, func(b objstore.Bucket, key string) error {
			return read(b, key, objstore.Range{Offset: 3 * frame, Length: 100})
		}},
		{"all of it, then ranges", "large", 3, 0, func(b objstore.Bucket, key string) error {
			for _, r := range []objstore.Range{{}, {Offset: frame, Length: 10}, {Offset: 5 * frame, Length: 2 * frame}} {
				if err := read(b, key, r); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		keys := []string{c.key}
		if c.key == "" {
			keys = []string{"empty", "small", "frame", "large"}
		}
		for _, key := range keys {
			n := counted{inner, new(atomic.Int32), new(atomic.Int32)}
			b, err := wrap(t, n, cse.Config{Keyring: ring}).Open(t.Context(), "bucket")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(b, key); err != nil {
				t.Errorf("%s of %s: %v", c.what, key, err)
			}
			if n.gets.Load() != c.gets || n.heads.Load() != c.heads {
				t.Errorf("%s of %s: %d GETs and %d HEADs, want %d and %d", c.what, key, n.gets.Load(), n.heads.Load(), c.gets, c.heads)
			}
		}
	}
}

func prove(b objstore.Bucket, key string) error {
	_, err := b.(objstore.Prover).Prove(context.Background(), objstore.Ref{Key: key})
	return err
}

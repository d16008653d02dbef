package cse_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// How often keys are asked: an operation of RSA takes milliseconds, one of a KMS a
// request that is billed and may be throttled.

// asked is a key that counts what it is asked for.
type asked struct {
	keyring.Key
	wraps, unwraps atomic.Int32
}

func (a *asked) Wrap(ctx context.Context, key message.DataKey, c message.Context) (message.EDK, error) {
	a.wraps.Add(1)
	return a.Key.Wrap(ctx, key, c)
}

func (a *asked) Unwrap(ctx context.Context, s message.Suite, c message.Context, e message.EDK) (message.DataKey, error) {
	a.unwraps.Add(1)
	return a.Key.Unwrap(ctx, s, c, e)
}

// want compares and begins to count anew.
func (a *asked) want(t *testing.T, what string, wraps, unwraps int32) {
	t.Helper()
	if w, u := a.wraps.Swap(0), a.unwraps.Swap(0); w != wraps || u != unwraps {
		t.Errorf("%s: %d data keys wrapped and %d unwrapped, want %d and %d", what, w, u, wraps, unwraps)
	}
}

func ringOf(t *testing.T, k keyring.Key) *keyring.Ring {
	t.Helper()
	r, err := keyring.New(keyring.Member{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func aesKey(t *testing.T) *asked {
	t.Helper()
	k, err := keyring.NewRawAES("tests", "aes", random(32))
	if err != nil {
		t.Fatal(err)
	}
	return &asked{Key: k}
}

// TestMillionFiles: a million files cost 16 data keys to write, one more for each hour in
// which fewer than 65,536 are written, and as many to read.
func TestMillionFiles(t *testing.T) {
	const files, each = 1_000_000, 65_536
	synctest.Test(t, func(t *testing.T) {
		key := aesKey(t)
		ring := ringOf(t, key)
		writes := keyring.NewCache(ring)
		var envelopes []keyring.Envelope
		wrap := func(n int, pause time.Duration) {
			for range n {
				e, err := writes.Wrap(t.Context(), message.Context{})
				if err != nil {
					t.Fatal(err)
				}
				if n := len(envelopes); n == 0 || &envelopes[n-1].EDKs[0] != &e.EDKs[0] {
					envelopes = append(envelopes, e)
				}
				time.Sleep(pause)
			}
		}
		wrap(files, 0)
		key.want(t, "a million files", (files+each-1)/each, 0)
		reads := keyring.NewCache(ring)
		for i := range files / 20 { // the data keys are what counts, and there are no more
			e := envelopes[i%len(envelopes)]
			if _, _, err := reads.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs); err != nil {
				t.Fatal(err)
			}
		}
		key.want(t, "to read them", 0, int32(len(envelopes)))
		if len(envelopes) != 16 {
			t.Errorf("%d data keys", len(envelopes))
		}
		time.Sleep(time.Hour)
		wrap(3*3600/10, 10*time.Second)
		key.want(t, "three hours with a file every ten seconds", 3, 0)
	})
}

// TestManyObjects: objects share a data key, though each is a message with a header and a
// key of its own.
func TestManyObjects(t *testing.T) {
	const files = 2000
	key := aesKey(t)
	inner := &memory{objects: map[string]*memoryObject{}}
	open := func() objstore.Bucket {
		b, err := wrap(t, inner, cse.Config{Keyring: ringOf(t, key)}).Open(t.Context(), "bucket")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open()
	name := func(i int) string { return fmt.Sprint("file ", i) }
	for i := range files {
		put(t, b, name(i), []byte(name(i)), nil)
	}
	key.want(t, "to write them", 1, 0)
	b = open()
	for i := range files {
		if got, err := read(t, b, name(i), objstore.Range{}); err != nil || string(got) != name(i) {
			t.Fatalf("%s: %q, %v", name(i), got, err)
		}
	}
	key.want(t, "to read them", 0, 1)
}

// TestOpenCostsOneUnwrap: everything that is done with an object takes one operation of
// its key, and none when there was another with the same data key. How long the key is
// changes the time of one, and the race detector makes much of that.
func TestOpenCostsOneUnwrap(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.NewRawRSA("MyAppKeys", "S3RSAKey", keyring.OAEPSHA256, nil, private)
	if err != nil {
		t.Fatal(err)
	}
	key := &asked{Key: k}
	inner := &memory{objects: map[string]*memoryObject{}}
	open := func() objstore.Bucket {
		b, err := wrap(t, inner, cse.Config{Keyring: ringOf(t, key)}).Open(t.Context(), "bucket")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	data := random(5*frame + 100)
	b := open()
	put(t, b, "first", data, nil)
	put(t, b, "second", data, nil)
	key.want(t, "two are written", 1, 0)
	use := func(b objstore.Bucket, key string) {
		t.Helper()
		if o, err := b.Head(t.Context(), objstore.Ref{Key: key}); err != nil || o.Size != int64(len(data)) {
			t.Errorf("HEAD: %d bytes, %v", o.Size, err)
		}
		if o, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: key}); err != nil || o.Size != int64(len(data)) {
			t.Errorf("proved: %d bytes, %v", o.Size, err)
		}
		for _, r := range []objstore.Range{{}, {Length: 10}, {Offset: 3 * frame, Length: frame}, {Offset: 5 * frame}} {
			want := data[r.Offset:]
			if r.Length > 0 {
				want = want[:r.Length]
			}
			if got, err := read(t, b, key, r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%+v: %d bytes, %v", r, len(got), err)
			}
		}
	}
	b = open()
	use(b, "first")
	key.want(t, "one is used", 0, 1)
	use(b, "second")
	key.want(t, "another is used", 0, 0)
	var all sync.WaitGroup
	b = open()
	for range 16 {
		all.Go(func() { use(b, "first") })
	}
	all.Wait()
	key.want(t, "one is used by many at a time", 0, 1)
}

// memory is a store of one bucket without any I/O.
type memory struct {
	objstore.Store
	mu      sync.Mutex
	objects map[string]*memoryObject // guarded by mu
}

type memoryObject struct {
	objstore.Object
	data []byte
}

func (m *memory) Identity() string { return "memory" }

func (m *memory) Open(context.Context, string) (objstore.Bucket, error) {
	return memoryBucket{m: m}, nil
}

type memoryBucket struct {
	objstore.Bucket
	m *memory
}

func (b memoryBucket) Name() string { return "bucket" }

func (b memoryBucket) find(ref objstore.Ref) (*memoryObject, error) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	o := b.m.objects[ref.Key]
	if o == nil {
		return nil, objstore.NotExist
	}
	return o, nil
}

func (b memoryBucket) Head(_ context.Context, ref objstore.Ref) (objstore.Object, error) {
	o, err := b.find(ref)
	if err != nil {
		return objstore.Object{}, err
	}
	return o.Object, nil
}

func (b memoryBucket) Get(_ context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	o, err := b.find(ref)
	if err != nil {
		return nil, objstore.Object{}, err
	}
	p := o.data[opts.Range.Offset:]
	if n := opts.Range.Length; n > 0 {
		p = p[:min(n, int64(len(p)))]
	}
	return io.NopCloser(bytes.NewReader(p)), o.Object, nil
}

func (b memoryBucket) Create(_ context.Context, key string, opts objstore.CreateOptions) (objstore.Writer, error) {
	return &memoryWriter{b: b, key: key, meta: opts.Meta}, nil
}

type memoryWriter struct {
	bytes.Buffer
	b    memoryBucket
	key  string
	meta map[string]string
}

func (w *memoryWriter) Commit(context.Context) (objstore.Object, error) {
	w.b.m.mu.Lock()
	defer w.b.m.mu.Unlock()
	n := int64(w.Len())
	o := objstore.Object{Meta: w.meta, Entry: objstore.Entry{
		Key: w.key, Size: n, StoredSize: n, SizeKnown: true, ETag: objstore.ETag(fmt.Sprint(len(w.b.m.objects))),
	}}
	w.b.m.objects[w.key] = &memoryObject{o, w.Bytes()}
	return o, nil
}

func (w *memoryWriter) Abort() error { return nil }

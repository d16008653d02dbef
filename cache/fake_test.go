package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

// fakeStore is one object with faults to order. Its body comes in pieces.
type fakeStore struct {
	data  []byte
	etag  objstore.ETag
	piece int           // bytes of one Read; 0 is as many as fit
	delay time.Duration // before each Get answers

	// fault, when not nil, sees every Get and may change the answer.
	fault func(n int, a *answer)

	gets     atomic.Int64
	open     atomic.Int64 // bodies not yet closed
	mu       sync.Mutex
	requests []objstore.Range
	refs     []objstore.Ref
}

type answer struct {
	rng     objstore.Range
	err     error // instead of an answer
	obj     objstore.Object
	cut     int   // body ends cleanly after this many bytes, when > 0
	cutErr  error // ... or with this error
	extra   int   // bytes after the end
	flip    bool  // a bit of the first byte is wrong
	stallAt int   // body hangs at this byte until the context ends, when > 0
	gate    chan struct{}
}

func newFake(size int, seed uint64) *fakeStore {
	f := &fakeStore{data: make([]byte, size), etag: "v1"}
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(f.data)
	return f
}

// object is what the store says of it.
func (f *fakeStore) object() objstore.Object { return objectOf(int64(len(f.data))) }

func objectOf(size int64) objstore.Object {
	return objstore.Object{Entry: objstore.Entry{Size: size, SizeKnown: true}}
}

func (f *fakeStore) ref() objstore.Ref { return objstore.Ref{Bucket: "b", Key: "k", ETag: f.etag} }

func (f *fakeStore) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	n := f.gets.Add(1)
	f.mu.Lock()
	if opts.Range == (objstore.Range{}) {
		opts.Range.Length = int64(len(f.data)) // the whole object
	}
	f.requests = append(f.requests, opts.Range)
	f.refs = append(f.refs, ref)
	f.mu.Unlock()
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return nil, objstore.Object{}, ctx.Err()
		}
	}
	a := answer{rng: opts.Range, obj: objstore.Object{Entry: objstore.Entry{Key: ref.Key, ETag: f.etag, Size: int64(len(f.data)), SizeKnown: true}}}
	if f.fault != nil {
		f.fault(int(n), &a)
	}
	if a.err != nil {
		return nil, objstore.Object{}, a.err
	}
	off, end := opts.Range.Offset, opts.Range.Offset+opts.Range.Length
	if off < 0 || opts.Range.Length <= 0 || end > int64(len(f.data)) {
		return nil, objstore.Object{}, fmt.Errorf("bad range %+v of %d", opts.Range, len(f.data))
	}
	f.open.Add(1)
	return &fakeBody{f: f, ctx: ctx, a: a, data: f.data[off:end]}, a.obj, nil
}

type fakeBody struct {
	f    *fakeStore
	ctx  context.Context
	a    answer
	data []byte
	at   int
}

func (b *fakeBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.a.gate != nil {
		select {
		case <-b.a.gate:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	if b.a.stallAt > 0 && b.at >= b.a.stallAt {
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	if b.a.cut > 0 && b.at >= b.a.cut {
		if b.a.cutErr != nil {
			return 0, b.a.cutErr
		}
		return 0, io.EOF
	}
	if b.at == len(b.data) {
		if b.a.extra > 0 {
			b.a.extra--
			p[0] = 0
			return 1, nil
		}
		return 0, io.EOF
	}
	n := len(p)
	if b.f.piece > 0 {
		n = min(n, b.f.piece)
	}
	if b.a.cut > 0 {
		n = min(n, b.a.cut-b.at)
	}
	if b.a.stallAt > 0 {
		n = min(n, b.a.stallAt-b.at)
	}
	n = copy(p[:n], b.data[b.at:])
	if b.a.flip && b.at == 0 {
		p[0] ^= 1
	}
	b.at += n
	return n, nil
}

func (b *fakeBody) Close() error {
	b.f.open.Add(-1)
	return nil
}

// testCache makes a cache and, at the end, closes it and sees that nothing of
// the budget is left in use.
func testCache(t testing.TB, cfg Config) *Cache {
	t.Helper()
	if cfg.StoreID == "" {
		cfg.StoreID = "test"
	}
	if cfg.ScratchDir == "" {
		cfg.ScratchDir = t.TempDir()
	}
	if cfg.BlockBytes == 0 {
		cfg.BlockBytes = 64 << 10
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 64 * cfg.BlockBytes
	}
	c, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { closeCache(t, c) })
	return c
}

func closeCache(t testing.TB, c *Cache) {
	t.Helper()
	require.NoError(t, c.Close())
	require.Zero(t, c.pool.budget.Used(), "bytes of the budget after Close")
	require.Zero(t, c.tier.bytes.Load(), "bytes of the tier after Close")
	require.Empty(t, c.fly.m, "flights after Close")
}

// readAll returns what a read gives, copied.
func readAll(r *Reader, off int64, n int) ([]byte, error) {
	s, err := r.ReadAt(context.Background(), off, n)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	return bytes.Join(s.Slices(), nil), nil
}

func want(f *fakeStore, off int64, n int) []byte {
	if off >= int64(len(f.data)) {
		return nil
	}
	return f.data[off:min(off+int64(n), int64(len(f.data)))]
}

var errCut = &objstore.Error{Op: "get", Kind: objstore.Unavailable, Err: errors.New("connection reset")}

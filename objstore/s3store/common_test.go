package s3store

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/storetest"

	"github.com/stretchr/testify/require"
)

// testStore opens a store whose credentials come from env, as everywhere.
func testStore(t *testing.T, env []string, cfg Config) *Store {
	t.Helper()
	storetest.SetEnv(t, env)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if cfg.OperationTimeout == 0 {
		cfg.OperationTimeout = 20 * time.Second // a test must not wait longer for what never comes
	}
	s, err := newStore(t.Context(), cfg, patience{body: 300 * time.Millisecond, read: 500 * time.Millisecond, write: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// random returns n bytes that no compression hides.
func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

func put(t *testing.T, b objstore.Bucket, key string, data []byte, opts objstore.CreateOptions) objstore.Object {
	t.Helper()
	o, err := tryPut(t.Context(), b, key, data, opts)
	require.NoError(t, err)
	return o
}

func tryPut(ctx context.Context, b objstore.Bucket, key string, data []byte, opts objstore.CreateOptions) (objstore.Object, error) {
	w, err := b.Create(ctx, key, opts)
	if err != nil {
		return objstore.Object{}, err
	}
	if _, err := w.Write(data); err != nil {
		return objstore.Object{}, errors.Join(err, w.Abort())
	}
	return w.Commit(ctx)
}

func get(t *testing.T, b objstore.Bucket, ref objstore.Ref, r objstore.Range) []byte {
	t.Helper()
	data, err := tryGet(t.Context(), b, ref, r)
	require.NoError(t, err)
	return data
}

func tryGet(ctx context.Context, b objstore.Bucket, ref objstore.Ref, r objstore.Range) ([]byte, error) {
	rc, _, err := b.Get(ctx, ref, objstore.GetOptions{Range: r})
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func list(t *testing.T, b objstore.Bucket, q objstore.Query) []string {
	t.Helper()
	var keys []string
	for e, err := range b.List(t.Context(), q) {
		require.NoError(t, err)
		keys = append(keys, e.Key)
	}
	return keys
}

// within fails the test when f takes longer than d.
func within(t *testing.T, d time.Duration, f func()) {
	t.Helper()
	start := time.Now()
	f()
	require.Less(t, time.Since(start), d)
}

// realServers are the servers that every test of real behaviour runs on.
var realServers = []struct {
	name     string
	start    func(testing.TB) *storetest.Server
	encrypts bool
}{
	{"minio", storetest.StartMinIO, true},
	{"versitygw", storetest.StartVersityGW, false},
}

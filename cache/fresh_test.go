package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

func refOf(i int) objstore.Ref {
	return objstore.Ref{Bucket: "b", Key: fmt.Sprint(i), ETag: "v1"}
}

func TestFill(t *testing.T) {
	c := testCache(t, Config{})
	f := newFake(5000, 21)
	must := func(err error) { t.Helper(); require.NoError(t, err) }
	read := func(ref objstore.Ref) {
		t.Helper()
		r := c.OpenReader(f, ref, f.object())
		got, err := readAll(r, 0, 5000)
		require.NoError(t, err)
		require.Equal(t, f.data, got)
		require.NoError(t, r.Close())
	}
	for i := range maxFresh {
		must(c.Fill(refOf(i), f.object(), bytes.NewReader(f.data)))
	}
	for i := range maxFresh {
		read(refOf(i))
	}
	require.Zero(t, f.gets.Load(), "all came by Fill")
	require.Zero(t, c.Stats().WastedBytes)

	// What is there already is left alone; another version is another object.
	must(c.Fill(refOf(0), f.object(), bytes.NewReader(make([]byte, 5000))))
	read(refOf(0))
	require.Zero(t, f.gets.Load())
	other := refOf(0)
	other.ETag = "v2"
	f.etag = "v2"
	read(other)
	require.EqualValues(t, 1, f.gets.Load())
	f.etag = "v1"

	// Nothing of these is kept.
	f.gets.Store(0)
	none := refOf(1000)
	none.ETag = ""
	must(c.Fill(none, f.object(), bytes.NewReader(f.data)))
	must(c.Fill(refOf(1001), objectOf(0), bytes.NewReader(nil)))
	must(c.Fill(refOf(1002), objectOf(c.cfg.BlockBytes+1), bytes.NewReader(nil)))
	require.ErrorIs(t, c.Fill(refOf(1003), f.object(), bytes.NewReader(f.data[:4000])), io.ErrUnexpectedEOF)
	require.ErrorIs(t, c.Fill(refOf(1004), f.object(), io.MultiReader(bytes.NewReader(f.data), bytes.NewReader([]byte{1}))), errTooLong)
	broken := errors.New("broken")
	require.ErrorIs(t, c.Fill(refOf(1005), f.object(), io.MultiReader(bytes.NewReader(f.data[:100]), &failing{broken})), broken)
	for i := 1003; i <= 1005; i++ {
		read(refOf(i))
	}
	require.EqualValues(t, 3, f.gets.Load())

	// Who queues for memory gets it.
	require.Len(t, c.fresh, maxFresh)
	c.relieve(true)
	require.Empty(t, c.fresh)
	require.Empty(t, c.fly.m)
}

// A look-up may be given up while its answer is still coming, and the mount end.
func TestCloseWaitsForFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testCache(t, Config{})
		f := newFake(5000, 22)
		body, pipe := io.Pipe()
		filled, closed := make(chan error, 1), make(chan error, 1)
		go func() { filled <- c.Fill(refOf(1), f.object(), body) }()
		synctest.Wait()
		go func() { closed <- c.Close() }()
		synctest.Wait()
		require.Empty(t, closed)
		_, err := pipe.Write(f.data)
		require.NoError(t, err)
		require.NoError(t, pipe.Close())
		require.NoError(t, <-filled)
		require.NoError(t, <-closed)
		require.NoError(t, c.Fill(refOf(2), f.object(), bytes.NewReader(f.data)))
		closeCache(t, c)
	})
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

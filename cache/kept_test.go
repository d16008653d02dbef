package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

func newKeepKey(t testing.TB) *KeepKey {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	k, err := NewKeepKey(raw)
	require.NoError(t, err)
	return k
}

// keptFile keeps a file of some frames and a hole, and returns its name and bytes.
func keptFile(t testing.TB, c *Cache, key *KeepKey) (name string, content []byte) {
	t.Helper()
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	content = make([]byte, 5*frameBytes+17)
	for _, at := range []struct{ off, n int }{{0, 10}, {3 * frameBytes, frameBytes}, {5 * frameBytes, 17}} {
		_, _ = rand.Read(content[at.off : at.off+at.n])
		_, err := s.WriteAt(content[at.off:at.off+at.n], int64(at.off))
		require.NoError(t, err)
	}
	name = filepath.Join(c.cfg.ScratchDir, "x.kept")
	require.NoError(t, s.Keep(name, key, []byte(`{"note":1}`)))
	require.NoError(t, s.Close())
	return name, content
}

// readKept opens a kept file and reads all of it.
func readKept(c *Cache, name string, key *KeepKey) (note, content []byte, err error) {
	k, err := OpenKept(name, key)
	if err != nil {
		return nil, nil, err
	}
	s := c.StageOf(k, nil)
	content = make([]byte, k.Size())
	_, err = s.ReadAt(context.Background(), content, 0)
	return k.Note, content, errors.Join(err, s.Close())
}

func TestKeptStage(t *testing.T) {
	c := testCache(t, Config{})
	key := newKeepKey(t)
	name, content := keptFile(t, c, key)
	id, err := KeptKeyID(name)
	require.NoError(t, err)
	require.Equal(t, key.ID(), id)
	note, got, err := readKept(c, name, key)
	require.NoError(t, err)
	require.Equal(t, `{"note":1}`, string(note))
	require.True(t, bytes.Equal(content, got))
	_, err = OpenKept(name, newKeepKey(t))
	require.ErrorIs(t, err, objstore.KeyUnavailable)
	_, err = NewKeepKey(make([]byte, 31))
	require.Error(t, err)

	sealed, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NotContains(t, string(sealed), string(content[3*frameBytes:3*frameBytes+64]))
	require.NotContains(t, string(sealed), "note")

	// After a failure the stage is as it was.
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	_, err = s.WriteAt([]byte("other"), 0)
	require.NoError(t, err)
	require.Error(t, s.Keep(filepath.Join(c.cfg.ScratchDir, "absent", "y.kept"), key, []byte(`{}`)))
	require.NoError(t, s.Keep(filepath.Join(c.cfg.ScratchDir, "y.kept"), key, []byte(`{}`)))
	require.NoError(t, s.Close())
	_, got, err = readKept(c, filepath.Join(c.cfg.ScratchDir, "y.kept"), key)
	require.NoError(t, err)
	require.Equal(t, "other", string(got))
}

// TestKeptStageDamaged: a flipped bit anywhere that is looked at is an error,
// and so is a file that is cut.
func TestKeptStageDamaged(t *testing.T) {
	c := testCache(t, Config{})
	key := newKeepKey(t)
	name, content := keptFile(t, c, key)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	check := func(what string, at int, damaged []byte) {
		require.NoError(t, os.WriteFile(name, damaged, 0o600))
		_, got, err := readKept(c, name, key)
		inHole := err == nil && bytes.Equal(got, content) && len(damaged) == len(whole) && bytes.Equal(whole[at:at+1], []byte{0})
		if err == nil && !inHole {
			t.Fatalf("%s at %d of %d was not noticed", what, at, len(whole))
		}
	}
	// The record and the tail, each byte; the slots, some.
	for at := 0; at < len(whole); at++ {
		if at < len(whole)-700 && at%997 != 0 {
			continue
		}
		flipped := bytes.Clone(whole)
		flipped[at] ^= 4
		check("a flipped bit", at, flipped)
	}
	for _, n := range []int{0, 1, keptTailBytes, slotBytes, len(whole) - 1} {
		check("a cut", n, whole[:n])
	}
}

// TestKeptByCopy: a file that had its name removed gets no other, so its bytes
// are copied, and no more of them than were written.
func TestKeptByCopy(t *testing.T) {
	c := testCache(t, Config{})
	key := newKeepKey(t)
	s, err := c.NewStage(nil, 0)
	require.NoError(t, err)
	const far = 1 << 40
	for _, off := range []int64{0, far} {
		_, err = s.WriteAt([]byte("data"), off)
		require.NoError(t, err)
	}
	file, err := s.frames.flushed()
	require.NoError(t, err)
	named, err := namedThenRemoved(c.cfg.ScratchDir)
	require.NoError(t, err)
	for frame := range file.latest {
		_, err := file.f.ReadAt(file.buf, frame*slotBytes)
		require.NoError(t, err)
		_, err = named.WriteAt(file.buf, frame*slotBytes)
		require.NoError(t, err)
	}
	require.NoError(t, file.f.Close())
	file.f = named
	name := filepath.Join(c.cfg.ScratchDir, "x.kept")
	require.NoError(t, s.Keep(name, key, []byte(`{}`)))
	require.NoError(t, s.Close())
	k, err := OpenKept(name, key)
	require.NoError(t, err)
	s = c.StageOf(k, nil)
	p := make([]byte, 4)
	_, err = s.ReadAt(t.Context(), p, far)
	require.NoError(t, err)
	require.Equal(t, "data", string(p))
	require.NoError(t, s.Close())
	entries, err := os.ReadDir(c.cfg.ScratchDir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func FuzzOpenKept(f *testing.F) {
	dir := f.TempDir()
	raw := make([]byte, 32)
	key, err := NewKeepKey(raw)
	require.NoError(f, err)
	f.Add([]byte{})
	f.Add(append(make([]byte, keptTailBytes-len(keptMagic)), keptMagic...))
	f.Add(key.seal([]byte(`{"FileKey":"","Latest":"","Extents":null,"Note":{}}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(dir, "x")
		require.NoError(t, os.WriteFile(name, data, 0o600))
		if k, err := OpenKept(name, key); err == nil {
			require.NoError(t, k.Close())
		}
	})
}

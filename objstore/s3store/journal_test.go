package s3store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	sweep := func(store string, answer error) []string {
		var ended []string
		sweepJournals(t.Context(), dir, store, log, func(_ context.Context, bucket, key, id string) error {
			ended = append(ended, bucket+"/"+key+" "+id)
			return answer
		})
		slices.Sort(ended)
		return ended
	}
	files := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		return len(names)
	}
	j, err := newJournal(dir, log)
	require.NoError(t, err)
	j.begun("s", "b", "one", "1")
	j.begun("s", "b", "two\n", "2")
	j.begun("s", "b", "three", "3")
	j.ended("2")
	j.ended("2")
	j.ended("unknown")
	require.Empty(t, sweep("s", nil), "the journal of a living process")

	// Killed: the lock goes with the process, and the last line may be cut.
	_, err = j.f.WriteString(`{"store":"s","id":"4`)
	require.NoError(t, err)
	require.NoError(t, j.f.Close())
	require.Empty(t, sweep("another", nil))
	want := []string{"b/one 1", "b/three 3"}
	require.Equal(t, want, sweep("s", errors.New("away")), "while the store is away")
	require.Equal(t, want, sweep("s", nil))
	require.Empty(t, sweep("s", nil))
	require.Zero(t, files())

	// In good order nothing is left; and when all has ended the file is short.
	j, err = newJournal(dir, log)
	require.NoError(t, err)
	for range 100 {
		j.begun("s", "b", strings.Repeat("k", 100), "5")
		j.ended("5")
	}
	st, err := os.Stat(j.f.Name())
	require.NoError(t, err)
	require.Zero(t, st.Size())
	j.begun("s", "b", "k", "6")
	text, err := os.ReadFile(j.f.Name())
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), "{"), "%q", text)
	j.ended("6")
	require.NoError(t, j.close())
	require.Zero(t, files())

	var none *journal
	none.begun("s", "b", "k", "7")
	none.ended("7")
	require.NoError(t, none.close())
}

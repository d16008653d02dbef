package cache

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func openNotes(t testing.TB, dir string) *Notes {
	t.Helper()
	n, err := OpenNotes(dir, diskTestKey, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return n
}

func noteOf(i int) (name, fact []byte) {
	return fmt.Appendf(nil, "bucket/secret-%d", i), fmt.Appendf(nil, "fact %d", i%5)
}

func putNotes(n *Notes, from, to int) {
	for i := from; i < to; i++ {
		n.Put(noteOf(i))
	}
}

// missing returns how many of the notes are not there; none may say anything else.
func missing(t testing.TB, n *Notes, from, to int) (count int) {
	t.Helper()
	for i := from; i < to; i++ {
		name, want := noteOf(i)
		got, ok := n.Get(name)
		if !ok {
			count++
		} else if !bytes.Equal(got, want) {
			t.Errorf("note %d is %q, not %q", i, got, want)
		}
	}
	return count
}

func noteFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "coffer-cache-*", "key-*", notesPrefix+"*"))
	require.NoError(t, err)
	return files
}

func TestNotesOutliveTheMount(t *testing.T) {
	dir := t.TempDir()
	n := openNotes(t, dir)
	putNotes(n, 0, 30_000) // more than a frame
	n.Put([]byte("changed"), []byte("before"))
	n.Put([]byte("changed"), []byte("after"))
	n.Put([]byte("long"), make([]byte, 256))
	require.Zero(t, missing(t, n, 0, 30_000))
	require.NoError(t, n.Close())

	files := noteFiles(t, dir)
	require.Len(t, files, 1)
	st, err := os.Stat(files[0])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NotContains(t, string(text), "secret")
	require.NotContains(t, string(text), "fact")

	n = openNotes(t, dir)
	require.Zero(t, missing(t, n, 0, 30_000))
	got, ok := n.Get([]byte("changed"))
	require.True(t, ok)
	require.Equal(t, "after", string(got))
	_, ok = n.Get([]byte("long"))
	require.False(t, ok)
	putNotes(n, 0, 30_000) // nothing new
	require.NoError(t, n.Close())
	require.Equal(t, files, noteFiles(t, dir))

	other, err := OpenNotes(dir, bytes.Repeat([]byte{8}, 32), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, 100, missing(t, other, 0, 100))
	require.NoError(t, other.Close())
}

// Mounts at the same time each have a file; what others had told by then is known to who
// begins, and no file is taken from a mount that lives.
func TestNotesOfManyMounts(t *testing.T) {
	dir := t.TempDir()
	lives := openNotes(t, dir)
	putNotes(lives, 0, 10)
	require.Eventually(t, func() bool { return len(noteFiles(t, dir)) == 1 }, 10*time.Second, 10*time.Millisecond)
	for i := 1; i < 3*notesFiles; i++ {
		n := openNotes(t, dir)
		require.Zero(t, missing(t, n, 0, 10*i))
		putNotes(n, 10*i, 10*i+10)
		require.NoError(t, n.Close())
		require.LessOrEqual(t, len(noteFiles(t, dir)), notesFiles+2)
	}
	putNotes(lives, 1000, 1010)
	require.NoError(t, lives.Close())
	n := openNotes(t, dir)
	require.Zero(t, missing(t, n, 0, 10*3*notesFiles))
	require.Zero(t, missing(t, n, 1000, 1010))
	require.NoError(t, n.Close())
}

// What becomes of the files costs notes, and makes none.
func TestNotesThatWereDamaged(t *testing.T) {
	dir := t.TempDir()
	n := openNotes(t, dir)
	putNotes(n, 0, 3)
	require.NoError(t, n.Close())
	n = openNotes(t, dir)
	putNotes(n, 3, 5)
	require.NoError(t, n.Close())
	key, err := newDiskKey(diskTestKey)
	require.NoError(t, err)
	notes := func(p []byte) int {
		n := &Notes{key: key, book: newNotebook(notesMost)}
		_ = readNotes(key, bytes.NewReader(p), func(name noteName, fact []byte) { n.book.put(name, fact) })
		return 5 - missing(t, n, 0, 5)
	}
	files := noteFiles(t, dir)
	require.Len(t, files, 2)
	var images [][]byte
	total := 0
	for _, name := range files {
		image, err := os.ReadFile(name)
		require.NoError(t, err)
		images = append(images, image)
		total += notes(image)
	}
	require.Equal(t, 5, total)
	for _, p := range images {
		whole := notes(p)
		for i := range p {
			p[i] ^= 1
			require.Zero(t, notes(p), i)
			p[i] ^= 1
			require.Zero(t, notes(p[:i]), i)
		}
		require.Equal(t, whole, notes(append(bytes.Clone(p), 0)))
	}
	// The frame of one file in another.
	require.Zero(t, notes(append(images[0][:notesHeaderBytes:notesHeaderBytes], images[1][notesHeaderBytes:]...)))

	require.NoError(t, os.WriteFile(files[0], []byte("what is this"), 0o600))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(filepath.Dir(files[0]), notesPrefix+"link")))
	n = openNotes(t, dir)
	require.Less(t, missing(t, n, 0, 5), 5)
	require.NoError(t, n.Close())
}

func TestNotesOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("needs mount(2): %v", err)
	}
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	n := openNotes(t, dir)
	out, err := n.write(nil, make([]byte, 512<<10))
	require.NoError(t, err)
	require.Nil(t, out)
	require.Empty(t, noteFiles(t, dir), "the floor stays free")
	require.NoError(t, n.Close())
}

func TestNotebookForgetsTheOldest(t *testing.T) {
	b := newNotebook(100)
	name := func(i int) (n noteName) { n[0], n[1] = byte(i), byte(i>>8); return n }
	for i := range 1000 {
		require.True(t, b.put(name(i), []byte("fact")))
		_, ok := b.get(name(0))
		require.True(t, ok, "used all the time")
	}
	kept := 0
	for range b.all {
		kept++
	}
	require.LessOrEqual(t, kept, 100)
	for i := 960; i < 1000; i++ {
		_, ok := b.get(name(i))
		require.True(t, ok, i)
	}
	require.False(t, b.put(name(999), []byte("fact")))
	for i := range notesFacts + 10 {
		b.put(name(1), fmt.Append(nil, i))
	}
	require.Len(t, b.facts, notesFacts)
}

func FuzzNotes(f *testing.F) {
	key, err := newDiskKey(diskTestKey)
	require.NoError(f, err)
	dir := f.TempDir()
	n := openNotes(f, dir)
	putNotes(n, 0, 3)
	require.NoError(f, n.Close())
	image, err := os.ReadFile(noteFiles(f, dir)[0])
	require.NoError(f, err)
	f.Add(image)
	f.Add(image[:60])
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = readNotes(key, bytes.NewReader(p), func(noteName, []byte) {
			if !bytes.HasPrefix(p, image) {
				t.Fatal("a note that nobody wrote")
			}
		})
	})
}

// BenchmarkNotes is what a mount pays for notes: to read a million when it begins, and
// to ask for one.
func BenchmarkNotes(b *testing.B) {
	const notes = 1_000_000
	dir := b.TempDir()
	n := openNotes(b, dir)
	for i := range notes {
		n.book.put(n.nameOf(fmt.Append(nil, i)), []byte("1234567890123456"))
	}
	require.NoError(b, n.merge(nil))
	require.NoError(b, n.Close())
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			n := openNotes(b, dir)
			require.NoError(b, n.Close())
		}
	})
	b.Run("get", func(b *testing.B) {
		n := openNotes(b, dir)
		name := bytes.Repeat([]byte{'x'}, 150)
		b.ReportAllocs()
		for b.Loop() {
			n.Get(name)
		}
		require.NoError(b, n.Close())
	})
}

package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"coffer/objstore"
)

var diskTestKey = bytes.Repeat([]byte{7}, 32)

// newDiskCache is a cache with a disk tier whose memory tier keeps next to
// nothing that a test reads again through a new one.
func newDiskCache(t testing.TB, dir string, change func(*Config)) *Cache {
	t.Helper()
	cfg := Config{MemoryBytes: 2 << 20, BlockBytes: 64 << 10, StoreID: "s", DiskDir: dir, DiskKey: diskTestKey, ScratchDir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	return c
}

// readObject reads all of the store's object with one handle.
func readObject(t testing.TB, c *Cache, f *fakeStore) []byte {
	t.Helper()
	r := c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	var got []byte
	for off := int64(0); off < r.Size(); {
		s, err := r.ReadAt(t.Context(), off, 100_000)
		require.NoError(t, err)
		for _, p := range s.Slices() {
			got = append(got, p...)
			off += int64(len(p))
		}
		s.Release()
	}
	return got
}

// written waits until n blocks have been written or dropped.
func written(t testing.TB, c *Cache, n int64) {
	t.Helper()
	require.Eventually(t, func() bool { return c.disk.files() >= n }, 10*time.Second, time.Millisecond)
}

func (d *disk) files() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.index.at))
}

func blockFiles(t testing.TB, dir string) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if _, ok := parseDiskName(filepath.Base(name)); ok && err == nil {
			files = append(files, name)
		}
		return err
	}))
	return files
}

func TestDiskTierServesTheNextCache(t *testing.T) {
	dir := t.TempDir()
	f := newFake(1<<20-77, 1) // 16 blocks
	c := newDiskCache(t, dir, nil)
	require.Equal(t, f.data, readObject(t, c, f))
	written(t, c, 16)
	require.NoError(t, c.Close())
	gets := f.gets.Load()

	c = newDiskCache(t, dir, nil)
	require.Equal(t, f.data, readObject(t, c, f))
	require.Equal(t, gets, f.gets.Load(), "requests")
	require.EqualValues(t, 16, c.Stats().DiskHits)
	f.etag = "v2"
	require.Equal(t, f.data, readObject(t, c, f))
	require.Greater(t, f.gets.Load(), gets, "another version is another object")
	require.NoError(t, c.Close())

	gets = f.gets.Load()
	c = newDiskCache(t, dir, func(cfg *Config) { cfg.DiskKey = bytes.Repeat([]byte{8}, 32) })
	require.Equal(t, f.data, readObject(t, c, f))
	require.Greater(t, f.gets.Load(), gets, "another key opens nothing")
	require.NoError(t, c.Close())
}

func TestDiskTierIsSharedAtOnce(t *testing.T) {
	dir := t.TempDir()
	f := newFake(256<<10, 2)
	a, b := newDiskCache(t, dir, nil), newDiskCache(t, dir, nil)
	readObject(t, a, f)
	written(t, a, 4)
	gets := f.gets.Load()
	require.Equal(t, f.data, readObject(t, b, f))
	require.Equal(t, gets, f.gets.Load())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
}

func TestDiskTierFetchesOnlyWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	f := newFake(512<<10, 3)
	c := newDiskCache(t, dir, nil)
	readObject(t, c, f)
	written(t, c, 8)
	require.NoError(t, c.Close())
	c = newDiskCache(t, dir, nil)
	for _, i := range []int64{2, 3, 6} {
		key := Key{Store: "s", Bucket: "b", Key: "k", ETag: "v1", Index: i}
		require.NoError(t, c.disk.dir.root.Remove(c.disk.key.nameOf(c.disk.identity(key)).path()))
	}
	require.Equal(t, f.data, readObject(t, c, f))
	require.EqualValues(t, 3*64<<10, c.Stats().FetchedBytes)
	require.NoError(t, c.Close())
}

func TestDiskTierWithoutKeyLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := newFake(256<<10, 4)
	own := func(cfg *Config) { cfg.DiskKey = nil }
	c := newDiskCache(t, dir, own)
	readObject(t, c, f)
	written(t, c, 4)
	require.Len(t, blockFiles(t, dir), 4)
	// A mount that was killed: its directory is there, and nobody holds its lock.
	base := filepath.Dir(filepath.Dir(filepath.Dir(blockFiles(t, dir)[0])))
	left := filepath.Join(base, diskOwnPrefix+"LEFT")
	require.NoError(t, os.MkdirAll(filepath.Join(left, "00"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(left, diskLock), nil, 0o600))
	other := newDiskCache(t, dir, own)
	require.Eventually(t, func() bool {
		_, err := os.Stat(left)
		return os.IsNotExist(err)
	}, 10*time.Second, time.Millisecond)
	require.Len(t, blockFiles(t, dir), 4, "the living keep theirs")
	require.NoError(t, other.Close())
	require.NoError(t, c.Close())
	require.Empty(t, blockFiles(t, dir))
}

func TestDiskTierTreatsBadFilesAsMisses(t *testing.T) {
	for name, spoil := range map[string]func(files []string) error{
		"flipped":  func(f []string) error { return flipFile(f[0], 100) },
		"cut":      func(f []string) error { return os.Truncate(f[0], 1000) },
		"empty":    func(f []string) error { return os.Truncate(f[0], 0) },
		"longer":   func(f []string) error { return os.Truncate(f[0], diskFileBytes(64<<10)+1) },
		"vanished": func(f []string) error { return os.Remove(f[0]) },
		"swapped": func(f []string) error {
			tmp := f[0] + ".tmp"
			return firstError(os.Rename(f[0], tmp), os.Rename(f[1], f[0]), os.Rename(tmp, f[1]))
		},
		"directory": func(f []string) error { return firstError(os.Remove(f[0]), os.Mkdir(f[0], 0o700)) },
		"unreadable": func(f []string) error {
			return firstError(os.Remove(f[0]), os.Symlink("/dev/zero", f[0]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := newFake(256<<10, 5)
			c := newDiskCache(t, dir, nil)
			readObject(t, c, f)
			written(t, c, 4)
			require.NoError(t, c.Close())
			require.NoError(t, spoil(blockFiles(t, dir)))
			c = newDiskCache(t, dir, nil)
			gets := f.gets.Load()
			require.Equal(t, f.data, readObject(t, c, f))
			require.Greater(t, f.gets.Load(), gets)
			require.Positive(t, c.Stats().DiskMisses)
			require.NoError(t, c.Close())
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func flipFile(name string, at int) error {
	p, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	p[at] ^= 1
	return os.WriteFile(name, p, 0o600)
}

func TestDiskTierOutlivesItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	require.NoError(t, os.Mkdir(dir, 0o700))
	f := newFake(256<<10, 6)
	c := newDiskCache(t, dir, func(cfg *Config) { cfg.DiskKey = nil })
	readObject(t, c, f)
	written(t, c, 4)
	require.NoError(t, os.RemoveAll(dir))
	f.etag = "v2"
	require.Equal(t, f.data, readObject(t, c, f))
	require.Eventually(t, func() bool { return c.Stats().DiskErrors > 0 }, 10*time.Second, time.Millisecond)
	// The pause is over, and the directory is back.
	require.NoError(t, os.Mkdir(dir, 0o700))
	c.disk.mu.Lock()
	c.disk.paused = time.Time{}
	c.disk.mu.Unlock()
	f.etag = "v3"
	require.Equal(t, f.data, readObject(t, c, f))
	require.Eventually(t, func() bool { return len(blockFiles(t, dir)) == 4 }, 10*time.Second, time.Millisecond)
	require.NoError(t, c.Close())
	require.Empty(t, blockFiles(t, dir))
}

// Reads here and there are served from the blocks that are there, and what they
// fetch of others is not kept.
func TestDiskTierServesPartsOfItsBlocks(t *testing.T) {
	dir := t.TempDir()
	f := newFake(1<<20, 12) // 16 blocks
	c := newDiskCache(t, dir, nil)
	r := c.OpenReader(f, f.ref(), f.object())
	_, err := readAll(r, 0, 128<<10)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	written(t, c, 2)
	require.NoError(t, c.Close())

	c = newDiskCache(t, dir, nil)
	c.disk.scan()
	f.gets.Store(0)
	for _, off := range []int64{100_000, 7000} {
		r := c.OpenReader(f, f.ref(), f.object())
		got, err := readAll(r, off, 4096)
		require.NoError(t, err)
		require.Equal(t, want(f, off, 4096), got)
		require.NoError(t, r.Close())
	}
	require.Zero(t, f.gets.Load())
	r = c.OpenReader(f, f.ref(), f.object())
	_, err = readAll(r, 900_000, 4096)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.EqualValues(t, 1, f.gets.Load())
	require.NoError(t, c.Close())
	require.Len(t, blockFiles(t, dir), 2)
}

func TestDiskTierOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("needs mount(2): %v", err)
	}
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	f := newFake(2<<20, 7)
	c := newDiskCache(t, dir, func(cfg *Config) { cfg.DiskBytes = 1 << 30 })
	c.disk.mu.Lock()
	c.disk.space = 1 << 30 // as before others filled it
	c.disk.mu.Unlock()
	require.Equal(t, f.data, readObject(t, c, f))
	require.Eventually(t, func() bool { return c.Stats().DiskErrors > 0 }, 10*time.Second, time.Millisecond)
	c.disk.keepFloor()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	require.GreaterOrEqual(t, st.Bavail, st.Blocks/diskFloor, "the floor is free again")
	f.etag = "v2"
	require.Equal(t, f.data, readObject(t, c, f))
	require.NoError(t, c.Close())
}

func TestDiskTierKeepsItsSize(t *testing.T) {
	dir := t.TempDir()
	const limit = 700_000
	small := func(cfg *Config) { cfg.DiskBytes = limit }
	a, b := newDiskCache(t, dir, small), newDiskCache(t, dir, small)
	f := newFake(640<<10, 8)
	for i := range 20 {
		f.etag = objstore.ETag(fmt.Sprint("v", mathrand.IntN(8)))
		readObject(t, []*Cache{a, b}[i%2], f)
	}
	require.Eventually(t, func() bool { return len(a.disk.queue)+len(b.disk.queue) == 0 }, 10*time.Second, time.Millisecond)
	a.disk.scan() // as every minute: now it knows what the other has written
	require.LessOrEqual(t, a.Stats().DiskBytes, int64(limit))
	require.NoError(t, a.Close())
	b.disk.scan()
	total := int64(0)
	for _, name := range blockFiles(t, dir) {
		st, err := os.Stat(name)
		require.NoError(t, err)
		total += st.Size()
	}
	require.LessOrEqual(t, total, int64(limit))
	require.Positive(t, b.Stats().DiskEvictions)
	require.NoError(t, b.Close())
}

func TestDiskTierForgetsDamagedObjects(t *testing.T) {
	dir := t.TempDir()
	f := newFake(256<<10, 9)
	c := newDiskCache(t, dir, nil)
	readObject(t, c, f)
	written(t, c, 4)
	r := c.OpenReader(f, f.ref(), f.object())
	key := r.key
	require.NoError(t, r.Close())
	c.mu.Lock()
	c.damaged[key] = 1
	c.mu.Unlock()
	c.disk.forget(key, 4)
	require.Eventually(t, func() bool { return len(blockFiles(t, dir)) == 0 }, 10*time.Second, time.Millisecond)
	require.False(t, c.disk.takes(key))
	readObject(t, c, f)
	require.NoError(t, c.Close())
	require.Empty(t, blockFiles(t, dir))
}

func TestDiskTierRefusesDirectories(t *testing.T) {
	base := fmt.Sprintf("coffer-cache-%d", os.Getuid())
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"absent": {func(dir string) error { return os.Remove(dir) }, "no such file"},
		"open": {func(dir string) error {
			return firstError(os.Mkdir(filepath.Join(dir, base), 0o700), os.Chmod(filepath.Join(dir, base), 0o755))
		}, "open to others"},
		"link": {func(dir string) error { return os.Symlink("/tmp", filepath.Join(dir, base)) }, "not a directory"},
		"file": {func(dir string) error { return os.WriteFile(filepath.Join(dir, base), nil, 0o600) }, "not a directory"},
		"foreign": {func(dir string) error {
			return firstError(os.Mkdir(filepath.Join(dir, base), 0o700), os.Chown(filepath.Join(dir, base), 12345, -1))
		}, "another user"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			require.NoError(t, os.Mkdir(dir, 0o700))
			if err := c.make(dir); os.IsPermission(err) {
				t.Skip(err)
			}
			_, err := New(Config{StoreID: "s", DiskDir: dir})
			require.ErrorIs(t, err, ErrDisk)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestDiskFileOpensOnlyAsItIs(t *testing.T) {
	key, err := newDiskKey(diskTestKey)
	require.NoError(t, err)
	data := make([]byte, 2*diskFrameBytes+100)
	rand.Read(data)
	id := []byte("identity")
	sum := blockSum{objstore.CRC64NVME, 1 << 63}
	image, err := key.sealBlock(nil, id, data, sum)
	require.NoError(t, err)
	require.EqualValues(t, diskFileBytes(len(data)), len(image))
	scratch := make([]byte, diskScratchBytes)
	open := func(p, id []byte, n int) error {
		_, err := key.openBlock(make([]byte, n), id, bytes.NewReader(p), scratch)
		return err
	}
	got := make([]byte, len(data))
	gotSum, err := key.openBlock(got, id, bytes.NewReader(image), scratch)
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.Equal(t, sum, gotSum)
	require.ErrorIs(t, open(image, []byte("other"), len(data)), errNotSealed)
	require.ErrorIs(t, open(image, id, len(data)-1), errNotSealed)
	// Frames that change places.
	const frame = diskFrameBytes + diskTagBytes
	moved := bytes.Clone(image)
	copy(moved[diskHeaderBytes:], image[diskHeaderBytes+frame:][:frame])
	copy(moved[diskHeaderBytes+frame:], image[diskHeaderBytes:][:frame])
	require.ErrorIs(t, open(moved, id, len(data)), errNotSealed)

	small, err := key.sealBlock(nil, id, data[:200], blockSum{})
	require.NoError(t, err)
	for i := range small {
		for bit := range 8 {
			small[i] ^= 1 << bit
			require.ErrorIs(t, open(small, id, 200), errNotSealed, "bit %d of byte %d", bit, i)
			small[i] ^= 1 << bit
		}
		require.ErrorIs(t, open(small[:i], id, 200), errNotSealed, "cut at %d", i)
	}
	require.ErrorIs(t, open(append(small, 0), id, 200), errNotSealed)
}

// The nonces count from zero in every file: the file's key must be new.
func TestDiskFilesHaveKeysOfTheirOwn(t *testing.T) {
	key, err := newDiskKey(diskTestKey)
	require.NoError(t, err)
	seen := map[string]bool{}
	for range 1000 {
		image, err := key.sealBlock(nil, []byte("id"), []byte("same bytes"), blockSum{})
		require.NoError(t, err)
		salt, text := string(image[len(diskMagic):][:diskSaltBytes]), string(image[diskHeaderBytes:])
		require.False(t, seen[salt] || seen[text])
		seen[salt], seen[text] = true, true
	}
}

func FuzzDiskFile(f *testing.F) {
	key, err := newDiskKey(diskTestKey)
	require.NoError(f, err)
	image, err := key.sealBlock(nil, []byte("id"), []byte("plain"), blockSum{})
	require.NoError(f, err)
	f.Add(image, 5)
	f.Add(image[:60], 5)
	f.Add([]byte{}, 1)
	f.Fuzz(func(t *testing.T, p []byte, n int) {
		if n < 0 || n > 1<<20 {
			t.Skip()
		}
		_, err := key.openBlock(make([]byte, n), []byte("id"), bytes.NewReader(p), make([]byte, diskScratchBytes))
		if err == nil && !bytes.Equal(p, image) {
			t.Fatal("bytes that nobody sealed were opened")
		}
	})
}

func TestDiskIndexKeepsWhatIsUsed(t *testing.T) {
	x := newDiskIndex()
	name := func(i int) (n diskName) { n[0], n[1] = byte(i), byte(i>>8); return n }
	for i := range 100 {
		x.add(name(i), 10, 0)
	}
	for i := range 10 {
		require.True(t, x.use(name(i), 100))
		require.False(t, x.use(name(i), 110), "told within a minute")
	}
	for i := 100; i < 190; i++ { // a scan of what is read once
		_, size, ok := x.evict()
		require.True(t, ok)
		require.EqualValues(t, 10, size)
		x.add(name(i), 10, 0)
	}
	for i := range 10 {
		require.True(t, x.has(name(i)), i)
	}
	require.EqualValues(t, 1000, x.bytes)
	x.beginRound()
	x.add(name(3), 12, 500)
	x.endRound()
	require.EqualValues(t, 12, x.bytes)
	_, _, ok := x.evict()
	require.True(t, ok)
	_, _, ok = x.evict()
	require.False(t, ok)
	require.Zero(t, x.bytes)
}

func TestDiskTierShowsNothing(t *testing.T) {
	dir := t.TempDir()
	f := newFake(128<<10, 10)
	copy(f.data, strings.Repeat("secret text ", 4000))
	c := newDiskCache(t, dir, nil)
	readObject(t, c, f)
	written(t, c, 2)
	require.NoError(t, c.Close())
	for _, name := range blockFiles(t, dir) {
		p, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NotContains(t, string(p), "secret")
		require.NotContains(t, string(p), string(f.data[100_000:100_016]))
	}
}

// BenchmarkDiskTier beside BenchmarkDiskTier/memory: what it costs to take a
// block from its file instead of from memory.
func BenchmarkDiskTier(b *testing.B) {
	dir := b.TempDir()
	f := newFake(1<<20, 11)
	c := newDiskCache(b, dir, func(cfg *Config) { cfg.BlockBytes, cfg.MemoryBytes = 1<<20, 64<<20 })
	defer c.Close()
	readObject(b, c, f)
	written(b, c, 1)
	key := Key{Store: "s", Bucket: "b", Key: "k", ETag: "v1"}
	block := func() *Block {
		require.NoError(b, c.pool.budget.Acquire(context.Background(), 1<<20))
		blk, err := c.pool.newBlock(key, 1<<20, false)
		require.NoError(b, err)
		return blk
	}
	b.Run("disk", func(b *testing.B) {
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		for b.Loop() {
			blk := block()
			if !c.disk.read(blk) {
				b.Fatal("a miss")
			}
			blk.release()
		}
	})
	b.Run("memory", func(b *testing.B) {
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		for b.Loop() {
			blk := block()
			copy(blk.data, f.data) // the least that any use of the bytes costs
			blk.release()
		}
	})
	b.Run("gcm", func(b *testing.B) {
		aead, err := newGCM(diskTestKey)
		require.NoError(b, err)
		nonce := make([]byte, 12)
		sealed := aead.Seal(nil, nonce, f.data, nil)
		out := make([]byte, 0, 1<<20)
		b.SetBytes(1 << 20)
		for b.Loop() {
			if _, err := aead.Open(out, nonce, sealed, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package e2e

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

// objectGets counts the requests for bytes since the last reset.
func objectGets(s *emulator.Server) (n int) {
	for _, r := range s.Requests() {
		if r.Verb == "GetObject" {
			n++
		}
	}
	return n
}

// readAfresh reads a file whose pages the kernel has dropped.
func readAfresh(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	must(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	data := make([]byte, 0, 100<<20)
	buf := bytes.NewBuffer(data)
	_, err = buf.ReadFrom(f)
	must(t, err)
	return buf.Bytes()
}

// onDisk waits until the mount's cache on disk holds n bytes.
func (m *mount) onDisk(n int64) {
	m.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for m.status().Cache.DiskBytes < n {
		if time.Now().After(deadline) {
			m.t.Fatalf("%d of %d bytes on disk", m.status().Cache.DiskBytes, n)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cacheFiles returns the paths of all files below dir, relative to it, of which some
// may be removed meanwhile.
func cacheFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && e.Type().IsRegular() && e.Name() != "lock" {
			name, err = filepath.Rel(dir, name)
			names = append(names, name)
		}
		return err
	}))
	return names
}

func TestDiskCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "is", "made")
	key := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(key, []byte(strings.Repeat("5a", 32)+"\n"), 0o600))
	args := []string{"--cache-dir", dir, "--cache-key-file", key, "--cache-size", "1G", "--memory", "64M"}
	m, s := bucketMount(t, args...)
	data := random(t, 24<<20+777)
	c := client(t, m.env)
	c.put(t, "bucket", "patient-file", string(data))
	file := m.path("bucket", "patient-file")
	check := func(what string) {
		t.Helper()
		if !bytes.Equal(readAfresh(t, file), data) {
			t.Fatalf("%s: other bytes", what)
		}
	}
	check("first read")
	m.onDisk(int64(len(data)))
	w := &windows{}
	w.add(data, nil)
	files := cacheFiles(t, dir)
	if len(files) < 25 {
		t.Fatalf("%d files on disk", len(files))
	}
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		found := map[[windowBytes]byte]bool{}
		_, err = w.findIn(bytes.NewReader(text), found)
		must(t, err)
		for _, secret := range []string{"patient-file", "bucket", hex.EncodeToString([]byte("patient-file"))} {
			if strings.Contains(name, secret) || bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s shows %q", name, secret)
			}
		}
		if len(found) > 0 {
			t.Errorf("%s holds plaintext", name)
		}
	}

	m.stop()
	m.start(args...)
	s.ResetRequests()
	check("after a new mount")
	most := 0
	if clientSide(t) {
		most = 2 // for the begin and the end of a message, which prove its size
	}
	if n := objectGets(s); n > most {
		t.Errorf("%d requests for bytes that are on disk", n)
	}

	// A new version is not served from the files of the old one.
	data = random(t, 24<<20+777)
	c.put(t, "bucket", "patient-file", string(data))
	time.Sleep(1100 * time.Millisecond)
	check("another version")
	m.onDisk(int64(len(data)))

	// Damaged files are fetched again, and never shown.
	m.stop()
	for _, name := range cacheFiles(t, dir) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("damaged!"), 5000)
		f.Close()
		must(t, err)
	}
	m.start(args...)
	s.ResetRequests()
	check("damaged files")
	if objectGets(s) == 0 {
		t.Error("nothing was asked of the store although no file verifies")
	}
}

func TestDiskCacheWithoutKeyFile(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--cache-dir", dir, "--memory", "64M"}
	m, s := bucketMount(t, args...)
	c := client(t, m.env)
	var all [][]byte
	names := []string{"a", "b", "c", "d", "e", "f"}
	for _, name := range names { // more than fits into memory
		data := random(t, 16<<20)
		all = append(all, data)
		c.put(t, "bucket", name, string(data))
		if !bytes.Equal(readAfresh(t, m.path("bucket", name)), data) {
			t.Fatalf("%s: other bytes", name)
		}
		m.onDisk(int64(len(all)) * 15 << 20)
	}
	s.ResetRequests()
	for i, name := range names {
		if !bytes.Equal(readAfresh(t, m.path("bucket", name)), all[i]) {
			t.Fatalf("%s: other bytes the second time", name)
		}
	}
	// The disk may have been too slow for a block or two.
	if n, hits := objectGets(s), m.status().Cache.DiskHits; n > 12 || hits < 24 {
		t.Errorf("%d requests, %d hits on disk", n, hits)
	}
	m.kill()
	must(t, unix.Unmount(m.dir, unix.MNT_DETACH))
	if len(cacheFiles(t, dir)) == 0 {
		t.Fatal("a killed mount left nothing: the test proves nothing")
	}
	m.start(args...)
	deadline := time.Now().Add(20 * time.Second)
	for len(cacheFiles(t, dir)) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("what the killed mount left is still there")
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.stop()
}

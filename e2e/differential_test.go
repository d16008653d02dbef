package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"coffer/objstore/storetest"
)

// TestLikeALocalFileSystem does the same random operations on a mount and on a
// local file system and compares each answer: bytes, sizes, types, permissions,
// names and error numbers. At the end it compares the trees, after a remount
// again, and the objects. A failure prints the operations before it.
//
// The operations are always the same, so that a change is judged by itself;
// "make fuzz" draws others. COFFER_SEED chooses them, COFFER_OPS is how many,
// and COFFER_CHECK looks at all open files after each.
func TestLikeALocalFileSystem(t *testing.T) {
	seed, ops := seedAndOps(t, 1500)
	likeALocalFileSystem(t, &differential{t: t, rng: mathrand.New(mathrand.NewPCG(seed, 1))}, seed, ops)
}

// TestLikeALocalLargeFile does the same with two files of up to some 40 MiB, at
// the sizes where the way changes that their bytes take: what is kept before an
// upload begins, the parts of an upload, the least that the store copies. The
// operations are a tenth as many: each moves a thousand times more.
func TestLikeALocalLargeFile(t *testing.T) {
	seed, ops := seedAndOps(t, 1500)
	likeALocalFileSystem(t, &differential{t: t, rng: mathrand.New(mathrand.NewPCG(seed, 3)), pool: random(t, 24<<20)}, seed, ops/10)
}

// likeALocalFileSystem does the operations of d.
func likeALocalFileSystem(t *testing.T, d *differential, seed uint64, ops int) {
	// In a process of its own: a page fault in this one stops its collector,
	// and that would stop a server in here that has to answer it.
	m := mountStore(t, emulatorProcess("aws")(t, filepath.Join(storetest.DataDir(t), "store")))
	must(t, os.MkdirAll(m.path("bucket", "top"), 0o755)) // a directory like others, unlike a bucket
	d.tops = [2]string{m.path("bucket", "top"), storetest.DataDir(t)}
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d; the last operations:\n%s", seed, strings.Join(d.log[max(0, len(d.log)-d.tail()):], "\n"))
		}
	}()
	for range ops {
		d.step()
		if os.Getenv("COFFER_CHECK") != "" {
			d.sameOpenFiles()
		}
	}
	for len(d.open) > 0 {
		d.close(0)
	}
	d.sameTrees()
	m.stop()
	m.start()
	d.sameTrees()
	client(t, m.env).compareTree(t, "bucket", "top/", d.tops[1])
}

// seedAndOps are what chooses random operations, and how many of them there are.
func seedAndOps(t *testing.T, ops int) (uint64, int) {
	t.Helper()
	seed := uint64(1)
	if v := os.Getenv("COFFER_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		must(t, err)
		seed = n
	}
	if v := os.Getenv("COFFER_OPS"); v != "" {
		n, err := strconv.Atoi(v)
		must(t, err)
		ops = n
	}
	return seed, ops
}

// differential is a run: two places and what is open in both.
type differential struct {
	t    *testing.T
	rng  *mathrand.Rand
	tops [2]string // the mount, the reference
	pool []byte    // what large files are made of, nil for small ones
	open [][2]int  // descriptors
	log  []string
}

// both does something in both places and compares what it says and how it
// fails; it returns whether it succeeded.
func (d *differential) both(what string, do func(i int) (string, error)) bool {
	d.t.Helper()
	var said [2]string
	var errs [2]error
	for i := range 2 {
		said[i], errs[i] = do(i)
		var errno syscall.Errno
		if errors.As(errs[i], &errno) {
			errs[i] = errno
		}
	}
	line := what
	if errs[0] != nil {
		line += ": " + errs[0].Error()
	}
	d.log = append(d.log, line)
	if errs[0] != errs[1] || said[0] != said[1] {
		at := 0
		for at < min(len(said[0]), len(said[1])) && said[0][at] == said[1][at] {
			at++
		}
		d.t.Fatalf("%s: the mount says %v, %s; the reference %v, %s; they differ from %d on", what, errs[0], brief(said[0][at:]), errs[1], brief(said[1][at:]), at)
	}
	return errs[0] == nil
}

func brief(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%d bytes %.80q...", len(s), s)
	}
	return fmt.Sprintf("%q", s)
}

// name is a path that may or may not be there.
func (d *differential) name() string {
	if d.pool != nil {
		return []string{"f", "f", "f", "g"}[d.rng.IntN(4)]
	}
	parts := []string{"a", "b", "c", "dir", "dir/a", "dir/b", "dir/sub", "dir/sub/a", "other", "other/a", "link"}
	return parts[d.rng.IntN(len(parts))]
}

func (d *differential) path(i int, name string) string { return filepath.Join(d.tops[i], name) }

// data are some bytes, rarely many.
func (d *differential) data() []byte {
	if d.pool != nil {
		off := d.rng.IntN(len(d.pool) / 2)
		return d.pool[off:][:d.length()]
	}
	n := d.rng.IntN(300)
	if d.rng.IntN(5) == 0 {
		n = d.rng.IntN(200_000)
	}
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(d.rng.Uint32())
	}
	return p
}

func (d *differential) offset() int64 {
	if d.pool != nil {
		return d.edge()
	}
	if d.rng.IntN(4) == 0 {
		return d.rng.Int64N(500_000)
	}
	return d.rng.Int64N(500)
}

// edge is a place in a large file at which something changes, or beside it.
func (d *differential) edge() int64 {
	const mib = 1 << 20
	edges := []int64{0, 4096, mib, 4 * mib, 5 * mib, 8 * mib, 10 * mib, 16 * mib, 20 * mib, 24 * mib}
	beside := []int64{0, 0, -1, 1, -4096, 4097}
	return max(0, edges[d.rng.IntN(len(edges))]+beside[d.rng.IntN(len(beside))])
}

// length is how much is read, written or copied of a file at a time.
func (d *differential) length() int {
	switch {
	case d.pool == nil:
		return d.rng.IntN(100_000)
	case d.rng.IntN(2) == 0:
		return d.rng.IntN(5000)
	}
	return int(d.edge()) / 2
}

func (d *differential) step() {
	if len(d.open) > 0 && d.rng.IntN(3) > 0 {
		d.onDescriptor(d.rng.IntN(len(d.open)))
		return
	}
	name, other := d.name(), d.name()
	kind := d.rng.IntN(16)
	if d.pool != nil {
		kind = []int{0, 1, 2, 3, 4, 8, 10, 15}[d.rng.IntN(8)] // nothing but files
	}
	switch kind {
	case 0, 1, 2, 3, 4:
		d.openFile(name)
	case 5:
		d.both("mkdir "+name, func(i int) (string, error) { return "", unix.Mkdir(d.path(i, name), 0o755) })
	case 6:
		d.both("rmdir "+name, func(i int) (string, error) { return "", unix.Rmdir(d.path(i, name)) })
	case 7:
		d.both("unlink "+name, func(i int) (string, error) { return "", unix.Unlink(d.path(i, name)) })
	case 8, 9:
		d.both("rename "+name+" "+other, func(i int) (string, error) {
			err := unix.Rename(d.path(i, name), d.path(i, other))
			if err == unix.EEXIST {
				err = unix.ENOTEMPTY // POSIX allows either
			}
			return "", err
		})
	case 10:
		size := d.offset()
		d.both(fmt.Sprintf("truncate %s %d", name, size), func(i int) (string, error) { return "", unix.Truncate(d.path(i, name), size) })
	case 11:
		mode := uint32(0o600 + d.rng.IntN(0o200))
		d.both(fmt.Sprintf("chmod %s %o", name, mode), func(i int) (string, error) { return "", unix.Chmod(d.path(i, name), mode) })
	case 12:
		d.both("symlink "+other+" "+name, func(i int) (string, error) { return "", unix.Symlink(other, d.path(i, name)) })
		d.both("readlink "+name, func(i int) (string, error) {
			target, err := os.Readlink(d.path(i, name))
			return target, err
		})
	case 13:
		d.both("readdir "+name, func(i int) (string, error) { return d.names(d.path(i, name)) })
	case 14:
		sec := d.rng.Int64N(1e9)
		d.both(fmt.Sprintf("utimes %s %d", name, sec), func(i int) (string, error) {
			ts := []unix.Timespec{{Sec: sec}, {Sec: sec, Nsec: 123456789}}
			err := unix.UtimesNanoAt(unix.AT_FDCWD, d.path(i, name), ts, 0)
			if err != nil {
				return "", err
			}
			var st unix.Stat_t
			err = unix.Stat(d.path(i, name), &st)
			return fmt.Sprint(st.Mtim), err
		})
	default:
		d.both("stat "+name, func(i int) (string, error) { return d.attributes(d.path(i, name)) })
	}
}

// names lists a directory, with types.
func (d *differential) names(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name()+" "+e.Type().String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n"), err
}

// attributes are type, permissions and, of a file, size and links.
func (d *differential) attributes(path string) (string, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if st.IsDir() {
		return st.Mode().String(), nil
	}
	return fmt.Sprint(st.Mode(), st.Size(), st.Sys().(*syscall.Stat_t).Nlink), nil
}

func (d *differential) openFile(name string) {
	if len(d.open) >= 6 {
		d.close(d.rng.IntN(len(d.open)))
	}
	flags := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR}[d.rng.IntN(4)]
	for _, f := range []int{os.O_CREATE, os.O_CREATE, os.O_TRUNC, os.O_EXCL, os.O_APPEND} {
		if d.rng.IntN(3) == 0 {
			flags |= f
		}
	}
	if flags&os.O_CREATE == 0 {
		flags &^= os.O_EXCL // undefined alone
	}
	if flags&unix.O_ACCMODE == os.O_RDONLY {
		flags &^= os.O_TRUNC // unspecified
	}
	if d.pool != nil && d.rng.IntN(4) > 0 {
		flags = os.O_RDWR | os.O_CREATE // what is large is to stay so, and be changed
	}
	var fds [2]int
	if d.both(fmt.Sprintf("open %s %#x", name, flags), func(i int) (_ string, err error) {
		fds[i], err = unix.Open(d.path(i, name), flags|unix.O_CLOEXEC, 0o644)
		return "", err
	}) {
		d.open = append(d.open, fds)
		d.log[len(d.log)-1] += fmt.Sprintf(" = %d", fds[0])
	}
}

func (d *differential) close(k int) {
	fds := d.open[k]
	d.open = slices.Delete(d.open, k, k+1)
	d.both(fmt.Sprintf("close of %d", fds[0]), func(i int) (string, error) { return "", unix.Close(fds[i]) })
}

// onDescriptor does something with an open file.
func (d *differential) onDescriptor(k int) {
	fds := d.open[k]
	fd := func(what string, args ...any) string { return fmt.Sprintf("%s of %d %v", what, fds[0], args) }
	switch d.rng.IntN(14) {
	case 0, 1:
		p := d.data()
		d.both(fd("write", len(p)), func(i int) (string, error) {
			n, err := unix.Write(fds[i], p)
			return fmt.Sprint(n), err
		})
	case 2, 3:
		p, off := d.data(), d.offset()
		d.both(fd("pwrite", len(p), off), func(i int) (string, error) {
			n, err := unix.Pwrite(fds[i], p, off)
			return fmt.Sprint(n), err
		})
	case 4, 5:
		n, off := d.length(), d.offset()
		d.both(fd("pread", n, off), func(i int) (string, error) {
			p := make([]byte, n)
			got, err := unix.Pread(fds[i], p, off)
			return string(p[:max(got, 0)]), err
		})
	case 6:
		size := d.offset()
		d.both(fd("ftruncate", size), func(i int) (string, error) { return "", unix.Ftruncate(fds[i], size) })
	case 7:
		d.both(fd("fsync"), func(i int) (string, error) { return "", unix.Fsync(fds[i]) })
	case 8:
		d.both(fd("fstat"), func(i int) (string, error) {
			var st unix.Stat_t
			err := unix.Fstat(fds[i], &st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				st.Size, st.Nlink = 0, 0
			}
			return fmt.Sprintf("%o %d %d", st.Mode, st.Size, st.Nlink), err
		})
	case 9:
		to := d.open[d.rng.IntN(len(d.open))]
		offIn, offOut, n := d.offset(), d.offset(), d.length()
		if to == fds {
			return
		}
		d.both(fd("copy_file_range", offIn, to[0], offOut, n), func(i int) (string, error) {
			in, out, left := offIn, offOut, n
			for left > 0 {
				m, err := unix.CopyFileRange(fds[i], &in, to[i], &out, left, 0)
				if err != nil || m == 0 {
					return "", err
				}
				left -= m
			}
			return "", nil
		})
	case 10:
		d.both(fd("mmap"), func(i int) (string, error) {
			var st unix.Stat_t
			if err := unix.Fstat(fds[i], &st); err != nil || st.Size == 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
				return "", err
			}
			p, err := unix.Mmap(fds[i], 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return "", err
			}
			text := string(p)
			return text, unix.Munmap(p)
		})
	case 11:
		off := d.offset()
		d.both(fd("write through mmap", off), func(i int) (string, error) {
			var st unix.Stat_t
			if err := unix.Fstat(fds[i], &st); err != nil || st.Size <= off || st.Mode&unix.S_IFMT != unix.S_IFREG {
				return "", err
			}
			p, err := unix.Mmap(fds[i], 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return "", err
			}
			copy(p[off:], "mapped")
			return "", errors.Join(unix.Msync(p, unix.MS_SYNC), unix.Munmap(p))
		})
	case 12:
		off, n, mode := d.offset(), d.length()+1, uint32(d.rng.IntN(2))*unix.FALLOC_FL_KEEP_SIZE
		d.both(fd("fallocate", mode, off, n), func(i int) (string, error) {
			return "", unix.Fallocate(fds[i], mode, off, int64(n))
		})
	default:
		d.close(k)
	}
}

// sameOpenFiles reads all of what is open, to find where a difference begins.
func (d *differential) sameOpenFiles() {
	for _, fds := range d.open {
		var said [2]string
		for i := range 2 {
			p := make([]byte, 1<<20)
			n, err := unix.Pread(fds[i], p, 0)
			said[i] = fmt.Sprint(string(p[:max(n, 0)]), err)
		}
		if said[0] != said[1] {
			d.t.Fatalf("descriptor %d reads as %s, want %s", fds[0], brief(said[0]), brief(said[1]))
		}
	}
}

// sameTrees compares everything that can be seen.
func (d *differential) sameTrees() {
	d.t.Helper()
	var trees [2][]string
	for i, top := range d.tops {
		must(d.t, filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
			if err != nil || p == top {
				return err
			}
			attrs, err := d.attributes(p)
			if err != nil {
				return err
			}
			content := ""
			if e.Type().IsRegular() {
				data, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				content = string(bytes.Clone(data))
			}
			trees[i] = append(trees[i], strings.TrimPrefix(p, top)+" "+attrs+" "+content)
			return nil
		}))
	}
	if len(trees[0]) != len(trees[1]) {
		d.t.Fatalf("the mount has %d names and the reference %d", len(trees[0]), len(trees[1]))
	}
	for k := range trees[0] {
		if trees[0][k] != trees[1][k] {
			d.t.Fatalf("the mount has %s, the reference %s", brief(trees[0][k]), brief(trees[1][k]))
		}
	}
}

// tail is how many operations a failure shows.
func (d *differential) tail() int {
	if os.Getenv("COFFER_CHECK") != "" {
		return len(d.log)
	}
	return 60
}

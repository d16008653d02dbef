package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rule is one rule of POSIX. Each runs in an empty directory and returns what
// it saw; a local file system tells what is right.
type rule struct {
	name string
	see  func(t *testing.T, dir string) string
}

// posixRules are what every user meets.
var posixRules = []rule{
	{"create dates the directory", afterwards(nothing, func(dir string) error { return os.WriteFile(dir+"/new", nil, 0o644) })},
	{"mkdir dates the directory", afterwards(nothing, func(dir string) error { return os.Mkdir(dir+"/new", 0o755) })},
	{"mkfifo dates the directory", afterwards(nothing, func(dir string) error { return unix.Mkfifo(dir+"/new", 0o644) })},
	{"symlink dates the directory", afterwards(nothing, func(dir string) error { return os.Symlink("x", dir+"/new") })},
	{"unlink dates the directory", afterwards(aFile, func(dir string) error { return os.Remove(dir + "/f") })},
	{"rmdir dates the directory", afterwards(aDirectory, func(dir string) error { return os.Remove(dir + "/f") })},
	{"rename dates the directory", afterwards(aFile, func(dir string) error { return os.Rename(dir+"/f", dir+"/g") })},
	{"rename of a directory dates the directory", afterwards(aDirectory, func(dir string) error { return os.Rename(dir+"/f", dir+"/g") })},
	{"writing does not date the directory", afterwards(aFile, func(dir string) error { return os.WriteFile(dir+"/f", []byte("x"), 0o644) })},
	{"a failing mkdir does not date the directory", afterwards(aFile, func(dir string) error { _ = os.Mkdir(dir+"/f", 0o755); return nil })},
	{"chmod of a directory keeps its mtime", afterwards(nothing, func(dir string) error { return os.Chmod(dir, 0o700) })},
	{"a time that is set outlives what was before it", afterwards(nothing, func(dir string) error {
		if err := os.Mkdir(dir+"/new", 0o755); err != nil {
			return err
		}
		return os.Chtimes(dir, longAgo, longAgo)
	})},

	{"chmod", changes(aFile, func(f string) error { return os.Chmod(f, 0o600) })},
	{"chmod of a directory", changes(aDirectory, func(f string) error { return os.Chmod(f, 0o700) })},
	{"chmod of a fifo", changes(aFifo, func(f string) error { return os.Chmod(f, 0o600) })},
	{"lchown of a link", changes(aLink, func(f string) error { return os.Lchown(f, os.Getuid(), os.Getgid()) })},
	{"setxattr", changes(aFile, func(f string) error { return unix.Setxattr(f, "user.a", []byte("b"), 0) })},
	{"truncate", changes(aFile, func(f string) error { return os.Truncate(f, 1) })},
	{"truncation by open", changes(aFile, func(f string) error { return opened(f, os.O_WRONLY|os.O_TRUNC, nil) })},
	{"append", changes(aFile, func(f string) error {
		return opened(f, os.O_WRONLY|os.O_APPEND, func(f *os.File) error { _, err := f.WriteString("x"); return err })
	})},
	{"open for writing and close", changes(aFile, func(f string) error { return opened(f, os.O_WRONLY, nil) })},
	{"reading", changes(aFile, func(f string) error { _, err := os.ReadFile(f); return err })},
	{"utimensat of both", changes(aFile, func(f string) error { return times(f, longAgo, longAgo.Add(time.Hour)) })},
	{"utimensat of atime", changes(aFile, func(f string) error { return times(f, longAgo, omit) })},
	{"utimensat of mtime, atime set", changes(aFileOfOld, func(f string) error { return times(f, omit, longAgo) })},
	{"utimensat of nothing", changes(aFile, func(f string) error { return times(f, omit, omit) })},
	{"utimensat of a directory", changes(aDirectory, func(f string) error { return times(f, longAgo, longAgo.Add(time.Hour)) })},
	{"utimensat of a fifo", changes(aFifo, func(f string) error { return times(f, longAgo, longAgo.Add(time.Hour)) })},
	{"utimensat of a link", changes(aLink, func(f string) error { return times(f, longAgo, longAgo.Add(time.Hour)) })},
	{"touch", changes(aFileOfOld, func(f string) error { return times(f, now, now) })},
	{"rename of a file", moved(aFile)},
	{"rename of an old file", moved(aFileOfOld)},
	{"rename of a fifo", moved(aFifo)},
	{"rename of a directory", moved(aDirectory)},
	{"rename of the directory of a file", func(t *testing.T, dir string) string {
		must(t, os.Mkdir(dir+"/d", 0o755))
		must(t, aFile(dir+"/d"))
		before := lstat(t, dir+"/d/f")
		tick()
		must(t, os.Rename(dir+"/d", dir+"/e"))
		return difference(before, lstat(t, dir+"/e/f"), false)
	}},

	{"open O_CREAT|O_EXCL of what is there", fails(aFile, func(f string) error { return opened(f, os.O_CREATE|os.O_EXCL|os.O_WRONLY, nil) })},
	{"open O_CREAT|O_EXCL of a dangling link", fails(aLink, func(f string) error { return opened(f, os.O_CREATE|os.O_EXCL|os.O_WRONLY, nil) })},
	{"open of a directory for writing", fails(aDirectory, func(f string) error { return opened(f, os.O_WRONLY, nil) })},
	{"open O_DIRECTORY of a file", fails(aFile, func(f string) error { return opened(f, unix.O_DIRECTORY, nil) })},
	{"open O_NOFOLLOW of a link", fails(aLink, func(f string) error { return opened(f, unix.O_NOFOLLOW, nil) })},
	{"open below a file", fails(aFile, func(f string) error { return opened(f+"/x", os.O_CREATE|os.O_WRONLY, nil) })},
	{"open of a fifo without a reader", fails(aFifo, func(f string) error { return opened(f, os.O_WRONLY|unix.O_NONBLOCK, nil) })},
	{"open of a link to itself", fails(nothing, func(f string) error {
		if err := os.Symlink("f", f); err != nil {
			return err
		}
		return opened(f, os.O_RDONLY, nil)
	})},
	{"a name of 255 bytes", fails(nothing, func(f string) error {
		return opened(filepath.Dir(f)+"/"+strings.Repeat("n", 255), os.O_CREATE|os.O_WRONLY, nil)
	})},
	{"a name of 256 bytes", fails(nothing, func(f string) error { return os.Mkdir(filepath.Dir(f)+"/"+strings.Repeat("n", 256), 0o755) })},
	{"a path of 4096 bytes", fails(nothing, func(f string) error { return os.Mkdir(f+strings.Repeat("/.", 2048), 0o755) })},
	{"unlink of a directory", fails(aDirectory, func(f string) error { return unix.Unlink(f) })},
	{"rmdir of a file", fails(aFile, func(f string) error { return unix.Rmdir(f) })},
	{"rmdir of .", fails(aDirectory, func(f string) error { return unix.Rmdir(f + "/.") })},
	{"rmdir of a directory with a name", fails(aDirectory, func(f string) error { return unix.Rmdir(filepath.Dir(f)) })},
	{"rename of a directory over a file", fails(aDirectory, func(f string) error { return overA(aFile, f) })},
	{"rename of a file over a directory", fails(aFile, func(f string) error { return overA(aDirectory, f) })},
	{"rename of a directory over an empty one", fails(aDirectory, func(f string) error { return overA(aDirectory, f) })},
	{"rename of a fifo over a file", fails(aFifo, func(f string) error { return overA(aFile, f) })},
	{"rename of a directory into itself", fails(aDirectory, func(f string) error { return unix.Rename(f, f+"/x") })},
	{"truncate of a directory", fails(aDirectory, func(f string) error { return unix.Truncate(f, 0) })},
	{"truncate to a negative size", fails(aFile, func(f string) error { return unix.Truncate(f, -1) })},
	{"ftruncate of a file open for reading", fails(aFile, func(f string) error {
		return opened(f, os.O_RDONLY, func(f *os.File) error { return unix.Ftruncate(int(f.Fd()), 0) })
	})},
	{"fallocate beyond all sizes", fails(aFile, func(f string) error {
		return opened(f, os.O_WRONLY, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 1<<62, 1<<62) })
	})},
	{"fallocate of nothing", fails(aFile, func(f string) error {
		return opened(f, os.O_WRONLY, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 0, 0) })
	})},
	{"fallocate beyond the end", func(t *testing.T, dir string) string {
		must(t, aFile(dir))
		must(t, opened(dir+"/f", os.O_WRONLY, func(f *os.File) error { return unix.Fallocate(int(f.Fd()), 0, 3, 100) }))
		data, err := os.ReadFile(dir + "/f")
		return fmt.Sprintf("%q %v", data, err)
	}},
	{"links of an unlinked open file", func(t *testing.T, dir string) string {
		must(t, aFile(dir))
		f, err := os.Open(dir + "/f")
		must(t, err)
		defer f.Close()
		must(t, os.Remove(f.Name()))
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		return fmt.Sprint(st.Nlink, st.Size)
	}},
	{"writing to a program that runs", func(t *testing.T, dir string) string {
		program, err := os.ReadFile("/bin/sleep")
		must(t, err)
		must(t, os.WriteFile(dir+"/sleep", program, 0o755))
		stop := running(t, dir+"/sleep", "60")
		defer stop()
		return fails(nothing, func(string) error { return opened(dir+"/sleep", os.O_WRONLY, nil) })(t, dir)
	}},
}

var (
	longAgo = time.Unix(1_234_567_890, 123_456_789)
	now     = time.Unix(0, unix.UTIME_NOW)
	omit    = time.Unix(0, unix.UTIME_OMIT)
)

// times sets atime and mtime, of a link itself.
func times(path string, atime, mtime time.Time) error {
	spec := func(t time.Time) unix.Timespec {
		if t == now || t == omit {
			return unix.Timespec{Nsec: int64(t.UnixNano())}
		}
		return unix.NsecToTimespec(t.UnixNano())
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{spec(atime), spec(mtime)}, unix.AT_SYMLINK_NOFOLLOW)
}

// What is there under the name f before a rule is tried.
func nothing(string) error        { return nil }
func aFile(dir string) error      { return os.WriteFile(dir+"/f", []byte("data"), 0o644) }
func aDirectory(dir string) error { return os.Mkdir(dir+"/f", 0o755) }
func aFifo(dir string) error      { return unix.Mkfifo(dir+"/f", 0o644) }
func aLink(dir string) error      { return os.Symlink("nowhere", dir+"/f") }
func aFileOfOld(dir string) error {
	if err := aFile(dir); err != nil {
		return err
	}
	return times(dir+"/f", longAgo.Add(time.Minute), longAgo.Add(time.Hour))
}

// opened opens a file, does something with it, and closes it.
func opened(path string, flags int, do func(*os.File) error) error {
	f, err := os.OpenFile(path, flags, 0o644)
	if err == nil && do != nil {
		err = do(f)
	}
	if err == nil {
		return f.Close()
	}
	if f != nil {
		f.Close()
	}
	return err
}

// overA renames f over something of the kind.
func overA(kind func(string) error, f string) error {
	over := filepath.Dir(f) + "/over"
	if err := os.Mkdir(over, 0o755); err != nil {
		return err
	}
	if err := kind(over); err != nil {
		return err
	}
	return unix.Rename(f, over+"/f")
}

// fails tells how something fails on the name f.
func fails(kind func(string) error, do func(f string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, kind(dir))
		err := do(dir + "/f")
		if errno := syscall.Errno(0); errors.As(err, &errno) {
			err = errno // without the path
		}
		return fmt.Sprint(err)
	}
}

// afterwards tells what something in a directory does to the directory.
func afterwards(kind, do func(dir string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, kind(dir))
		before := lstat(t, dir)
		tick()
		must(t, do(dir))
		return difference(before, lstat(t, dir), true)
	}
}

// changes tells what something does to the file f.
func changes(kind, do func(f string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, kind(dir))
		before := lstat(t, dir+"/f")
		tick()
		must(t, do(dir+"/f"))
		return difference(before, lstat(t, dir+"/f"), true)
	}
}

// moved tells what a rename does to what is renamed; whether that is a change
// is left to the file system.
func moved(kind func(string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, kind(dir))
		before := lstat(t, dir+"/f")
		tick()
		must(t, os.Rename(dir+"/f", dir+"/g"))
		return difference(before, lstat(t, dir+"/g"), false)
	}
}

// tick waits until a store dates anew what is changed.
func tick() { time.Sleep(1100 * time.Millisecond) }

func lstat(t *testing.T, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st
}

// difference tells what became of the times of a file. An atime that was never
// set is no more than mtime on a mount, so that it is told only where it is.
func difference(before, after unix.Stat_t, ctime bool) string {
	told := func(name string, was, is unix.Timespec) string {
		switch {
		case is == unix.NsecToTimespec(longAgo.UnixNano()), is == unix.NsecToTimespec(longAgo.Add(time.Hour).UnixNano()),
			is == unix.NsecToTimespec(longAgo.Add(time.Minute).UnixNano()):
			return fmt.Sprint(name, " ", is.Sec)
		case is.Sec == was.Sec:
			return name + " kept"
		case is.Sec > was.Sec:
			return name + " now"
		}
		return name + " back"
	}
	s := told("mtime", before.Mtim, after.Mtim)
	if after.Atim != after.Mtim && after.Atim.Sec < before.Mtim.Sec {
		s += told(", atime", before.Atim, after.Atim)
	}
	if ctime {
		s += told(", ctime", before.Ctim, after.Ctim)
	}
	return s
}

// running runs a program until the returned function is called. A shell starts
// it: this process serves the store, and would wait for itself to read the
// program, in a fork that stops more than the one who forks.
func running(t *testing.T, program, arg string) (stop func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec "$0" "$1"`, program, arg)
	must(t, cmd.Start())
	stop = func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
	}
	for range 1000 {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)); err == nil && exe == program {
			return stop
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	t.Fatalf("%s did not start", program)
	return nil
}

// local returns a directory of a file system in memory, as the reference.
func local(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "coffer-e2e-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// group is the one that nobody is in.
const group, otherGroup = 65533, 65532

// nobodyTries does something as nobody, in one group only.
func nobodyTries(t *testing.T, do func() error) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// File systems look at these two, which belong to a thread.
	must(t, unix.Setfsgid(group))
	must(t, unix.Setfsuid(nobody))
	defer func() {
		must(t, unix.Setfsuid(0))
		must(t, unix.Setfsgid(0))
	}()
	return do()
}

// nobodyDoes tells how something that nobody does to f ends, and what mode and
// owner f has then. It has those given before.
func nobodyDoes(kind func(string) error, uid, gid int, mode uint32, do func(f string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, kind(dir))
		f := dir + "/f"
		must(t, unix.Chown(f, uid, gid))
		must(t, unix.Chmod(f, mode))
		how := fails(nothing, func(string) error { return nobodyTries(t, func() error { return do(f) }) })(t, dir)
		if _, err := os.Lstat(f); err != nil {
			return how + ", gone"
		}
		return fmt.Sprintf("%s, then %s", how, owner(lstat(t, f)))
	}
}

func owner(st unix.Stat_t) string { return fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid) }

// nobodyIn tells what nobody can do with a file of the owner given, in a
// directory of such a mode, and whose nobody's new files are.
func nobodyIn(mode uint32, uid, gid int, do func(dir string) error) func(*testing.T, string) string {
	return func(t *testing.T, dir string) string {
		must(t, aFile(dir))
		must(t, unix.Chown(dir+"/f", uid, gid))
		must(t, unix.Chown(dir, 0, otherGroup))
		must(t, unix.Chmod(dir, mode))
		s := fails(nothing, func(string) error { return nobodyTries(t, func() error { return do(dir) }) })(t, dir)
		for _, name := range list(t, dir) {
			s += fmt.Sprintf(", %s %s", name, owner(lstat(t, filepath.Join(dir, name))))
		}
		return s
	}
}

func overwrite(f string) error {
	return opened(f, os.O_WRONLY, func(f *os.File) error { _, err := f.WriteString("x"); return err })
}

// rulesForOthers are about permissions, which root does not meet.
var rulesForOthers = []rule{
	{"a write takes the set-id bits away", nobodyDoes(aFile, 0, 0, 0o6777, overwrite)},
	{"a truncation takes the set-id bits away", nobodyDoes(aFile, 0, 0, 0o6777, func(f string) error { return os.Truncate(f, 1) })},
	{"truncation by open takes the set-id bits away", nobodyDoes(aFile, 0, 0, 0o6777, func(f string) error { return opened(f, os.O_WRONLY|os.O_TRUNC, nil) })},
	{"a file is given away", nobodyDoes(aFile, nobody, group, 0o644, func(f string) error { return unix.Chown(f, 0, -1) })},
	{"a file is given to a group of another", nobodyDoes(aFile, nobody, group, 0o644, func(f string) error { return unix.Chown(f, -1, otherGroup) })},
	{"a file is given to an own group", nobodyDoes(aFile, nobody, otherGroup, 0o6755, func(f string) error { return unix.Chown(f, -1, group) })},
	{"a directory is given to an own group", nobodyDoes(aDirectory, nobody, otherGroup, 0o6755, func(f string) error { return unix.Chown(f, -1, group) })},
	{"chown to nobody at all", nobodyDoes(aFile, 0, 0, 0o644, func(f string) error { return unix.Chown(f, -1, -1) })},
	{"chmod of another's file", nobodyDoes(aFile, 0, 0, 0o666, func(f string) error { return unix.Chmod(f, 0o777) })},
	{"set-gid for a group of another", nobodyDoes(aFile, nobody, otherGroup, 0o644, func(f string) error { return unix.Chmod(f, 0o2755) })},
	{"sticky bit of a file", nobodyDoes(aFile, nobody, group, 0o644, func(f string) error { return unix.Chmod(f, 0o1755) })},
	{"utimensat by one who may write, now", nobodyDoes(aFile, 0, 0, 0o666, func(f string) error { return times(f, now, now) })},
	{"utimensat by one who may write, a time", nobodyDoes(aFile, 0, 0, 0o666, func(f string) error { return times(f, longAgo, longAgo) })},
	{"utimensat by one who may write, one of them", nobodyDoes(aFile, 0, 0, 0o666, func(f string) error { return times(f, now, omit) })},
	{"utimensat by one who may not write, now", nobodyDoes(aFile, 0, 0, 0o644, func(f string) error { return times(f, now, now) })},
	{"utimensat by one who may not write, nothing", nobodyDoes(aFile, 0, 0, 0o600, func(f string) error { return times(f, omit, omit) })},
	{"utimensat by the owner of a file for nobody", nobodyDoes(aFile, nobody, 0, 0, func(f string) error { return times(f, longAgo, now) })},
	{"open of what one may not read", nobodyDoes(aFile, 0, 0, 0o640, func(f string) error { return opened(f, os.O_RDONLY, nil) })},
	{"open for writing of what one may only read", nobodyDoes(aFile, 0, 0, 0o644, func(f string) error { return opened(f, os.O_RDWR, nil) })},
	{"O_NOATIME of another's file", nobodyDoes(aFile, 0, 0, 0o666, func(f string) error { return opened(f, unix.O_NOATIME, nil) })},
	{"setxattr of what one may only read", nobodyDoes(aFile, 0, 0, 0o644, func(f string) error { return unix.Setxattr(f, "user.a", nil, 0) })},
	{"create in a directory that one may not search", nobodyDoes(aDirectory, 0, 0, 0o766, func(f string) error { return os.Mkdir(f+"/x", 0o755) })},
	{"create in a directory that one may not write", nobodyDoes(aDirectory, 0, 0, 0o755, func(f string) error { return unix.Mkfifo(f+"/x", 0o644) })},
	{"mknod of a device", nobodyDoes(aDirectory, nobody, group, 0o755, func(f string) error { return unix.Mknod(f+"/x", unix.S_IFCHR|0o600, 259) })},

	{"unlink in a sticky directory", nobodyIn(0o1777, 0, 0, func(dir string) error { return os.Remove(dir + "/f") })},
	{"unlink of one's own in a sticky directory", nobodyIn(0o1777, nobody, 0, func(dir string) error { return os.Remove(dir + "/f") })},
	{"rename in a sticky directory", nobodyIn(0o1777, 0, 0, func(dir string) error { return os.Rename(dir+"/f", dir+"/g") })},
	{"rename over another's in a sticky directory", nobodyIn(0o1777, 0, 0, func(dir string) error {
		if err := os.WriteFile(dir+"/g", nil, 0o644); err != nil {
			return err
		}
		return os.Rename(dir+"/g", dir+"/f")
	})},
	{"create", nobodyIn(0o777, 0, 0, func(dir string) error { return os.WriteFile(dir+"/g", nil, 0o644) })},
	{"create in a set-gid directory", nobodyIn(0o2777, 0, 0, func(dir string) error { return os.WriteFile(dir+"/g", nil, 0o644) })},
	{"mkdir in a set-gid directory", nobodyIn(0o2777, 0, 0, func(dir string) error { return os.Mkdir(dir+"/g", 0o755) })},
	{"mkfifo in a set-gid directory", nobodyIn(0o2777, 0, 0, func(dir string) error { return unix.Mkfifo(dir+"/g", 0o644) })},
	{"set-gid of a new file for a group of another", nobodyIn(0o2777, 0, 0, func(dir string) error {
		fd, err := unix.Open(dir+"/g", unix.O_CREAT|unix.O_WRONLY, 0o2755)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	})},
}

// compareRules tries each rule on a mount and on a local file system, all at a
// time: most of it is waiting for a clock that counts seconds.
func compareRules(t *testing.T, rules []rule, flags ...string) {
	m, _ := bucketMount(t, flags...)
	reference := local(t)
	// Others may pass what is above both.
	must(t, os.Chmod(reference, 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(m.dir)), 0o755))
	for i, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			var sees []string
			for _, dir := range []string{reference, m.path("bucket")} {
				own := filepath.Join(dir, fmt.Sprint(i))
				must(t, os.Mkdir(own, 0o755))
				sees = append(sees, r.see(t, own))
			}
			if sees[1] != sees[0] {
				t.Errorf("the mount: %s; a local file system: %s", sees[1], sees[0])
			}
		})
	}
}

// TestLargestFile asks for more than any store takes; that the answer comes at
// once matters as much.
func TestLargestFile(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "data")
	s.ResetRequests()
	const more = 10_000*5<<30 + 1
	wantErrno(t, "truncate", unix.Truncate(p, more), syscall.EFBIG)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	must(t, err)
	wantErrno(t, "ftruncate", unix.Ftruncate(int(f.Fd()), more), syscall.EFBIG)
	wantErrno(t, "fallocate", unix.Fallocate(int(f.Fd()), 0, more-2, 2), syscall.EFBIG)
	_, err = f.WriteAt([]byte("x"), more)
	wantErrno(t, "write", err, syscall.EFBIG)
	must(t, f.Close())
	if n := count(s, "PutObject", "f") + count(s, "CreateMultipartUpload", "f"); n != 0 {
		t.Errorf("%d uploads", n)
	}
	want(t, p, "data")
}

func TestPosixRules(t *testing.T) { compareRules(t, posixRules) }

func TestPosixRulesForOthers(t *testing.T) {
	needRoot(t, "only root can be another user by turns")
	compareRules(t, rulesForOthers, "--allow-other")
}

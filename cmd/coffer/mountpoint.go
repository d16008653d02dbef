package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fsType is what /proc/mounts shows for a mount of ours.
const fsType = "fuse.coffer"

// mountEntry is one line of /proc/self/mountinfo.
type mountEntry struct {
	Dir, Type, Source string
	// Device is major:minor.
	Device string
	// UID is the mounting user of a FUSE mount, -1 for others.
	UID int
}

// parseMountInfo returns the mounts of a mountinfo file, as proc(5) has it,
// in the order of mounting.
func parseMountInfo(r io.Reader) ([]mountEntry, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var all []mountEntry
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(strings.TrimRight(line, "\n"), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 3 {
			continue
		}
		e := mountEntry{Dir: unescapeMount(f[4]), Type: g[0], Source: unescapeMount(g[1]), Device: f[2], UID: -1}
		for opt := range strings.SplitSeq(g[2], ",") {
			if v, ok := strings.CutPrefix(opt, "user_id="); ok {
				if n, err := strconv.Atoi(v); err == nil {
					e.UID = n
				}
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// unescapeMount resolves the octal escapes of white space and backslash.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt returns the topmost mount at exactly dir.
func mountAt(dir string) (mountEntry, bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, false, err
	}
	defer f.Close()
	all, err := parseMountInfo(f)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Dir == dir {
			return all[i], true, err
		}
	}
	return mountEntry{}, false, err
}

// mountOf returns the Coffer mount that name lies in, and what name is below its
// root, "" for the root itself. Symbolic links are followed.
func mountOf(name string) (entry mountEntry, inside string, err error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return entry, "", err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return entry, "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(abs, &st); err != nil {
		return entry, "", &os.PathError{Op: "stat", Path: abs, Err: err}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return entry, "", err
	}
	defer f.Close()
	all, err := parseMountInfo(f)
	if err != nil {
		return entry, "", err
	}
	entry, inside = mountAbove(all, fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), abs)
	if entry.Type != fsType {
		return entry, "", fmt.Errorf("%s is in no mount of Coffer", abs)
	}
	return entry, inside, nil
}

// mountAbove returns the mount of a device that abs lies in, the zero value if there is
// none. The device tells it from what it may hide, and from what may hide it.
func mountAbove(all []mountEntry, device, abs string) (entry mountEntry, inside string) {
	for _, e := range all {
		below, ok := strings.CutPrefix(abs+"/", strings.TrimSuffix(e.Dir, "/")+"/")
		if ok && e.Device == device && len(e.Dir) >= len(entry.Dir) {
			entry, inside = e, strings.TrimSuffix(below, "/")
		}
	}
	return entry, inside
}

// inheritedFD returns N of a mount point /dev/fd/N: a descriptor of /dev/fuse
// that somebody else, such as a container runtime, has mounted already.
func inheritedFD(dir string) (int, bool) {
	v, ok := strings.CutPrefix(dir, "/dev/fd/")
	n, err := strconv.Atoi(v)
	return n, ok && err == nil && n >= 0
}

// canonicalMountPoint makes dir absolute and free of symbolic links, without
// asking a file system that may be mounted there and dead: only what lies
// above the last component is resolved, and the last only if it is a link.
func canonicalMountPoint(dir string) (string, error) {
	if _, ok := inheritedFD(dir); ok {
		return dir, nil
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if abs == "/" {
		return abs, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	abs = filepath.Join(parent, filepath.Base(abs))
	if _, mounted, err := mountAt(abs); err != nil || mounted {
		return abs, err
	}
	if st, err := os.Lstat(abs); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(abs)
	}
	return abs, nil
}

// prepareMountPoint checks that dir can be mounted on, and takes away a dead
// Coffer mount that a killed daemon left there.
func prepareMountPoint(dir string, nonEmpty bool) error {
	if n, ok := inheritedFD(dir); ok {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("mount point %s: no such descriptor was inherited", dir)
		}
		return nil
	}
	// Each turn removes one dead mount; several can lie upon each other.
	for range 16 {
		entry, mounted, err := mountAt(dir)
		if err != nil {
			return err
		}
		st, err := statTimeout(dir, 10*time.Second)
		switch {
		case mounted && entry.Type == fsType && errors.Is(err, unix.ENOTCONN):
			if err := detachMount(dir); err != nil {
				return fmt.Errorf("mount point %s: a dead mount is in the way: %w", dir, err)
			}
			continue
		case mounted && entry.Type == fsType:
			return fmt.Errorf("mount point %s: %s is mounted there already; coffer umount %s ends it", dir, entry.Source, dir)
		case errors.Is(err, unix.ENOTCONN):
			return fmt.Errorf("mount point %s: a dead mount of type %s is in the way; fusermount3 -u %s removes it", dir, entry.Type, dir)
		case err != nil:
			return fmt.Errorf("mount point: %w", err)
		case !st.IsDir():
			return fmt.Errorf("mount point %s is not a directory", dir)
		}
		if nonEmpty {
			return nil
		}
		names, err := firstName(dir)
		if err != nil {
			return fmt.Errorf("mount point: %w", err)
		}
		if names != "" {
			return fmt.Errorf("mount point %s is not empty (it holds %q); -o nonempty mounts over it", dir, names)
		}
		return nil
	}
	return fmt.Errorf("mount point %s: dead mounts keep coming back", dir)
}

// firstName returns one name in dir, "" when it is empty.
func firstName(dir string) (string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// statTimeout is os.Stat of a directory that may be a mount. It gives up on
// one that hangs; its goroutine ends with the process then, and only then. A
// dead FUSE mount gives ENOTCONN: its attributes may still be remembered by
// the kernel, so statfs(2), which always asks the daemon, is tried first.
func statTimeout(dir string, d time.Duration) (os.FileInfo, error) {
	type result struct {
		st  os.FileInfo
		err error
	}
	ch := make(chan result, 1)
	go func() {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); errors.Is(err, unix.ENOTCONN) {
			ch <- result{nil, &os.PathError{Op: "statfs", Path: dir, Err: err}}
			return
		}
		st, err := os.Stat(dir)
		ch <- result{st, err}
	}()
	select {
	case r := <-ch:
		return r.st, r.err
	case <-time.After(d):
		return nil, fmt.Errorf("stat %s: no answer within %v", dir, d)
	}
}

// detachMount takes dir out of the file tree at once; programs that hold
// files open there keep them ("lazy").
func detachMount(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", "-z", "--", dir)
}

// plainUnmount unmounts dir without the help of its daemon.
func plainUnmount(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", "--", dir)
}

// fusermount runs the set-user-id helper of libfuse that mounts and unmounts
// for plain users.
func fusermount(args ...string) error {
	name, err := fusermountPath()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// A fixed locale: the text is shown to the user, never interpreted.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}

func fusermountPath() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	for _, p := range []string{"/bin/fusermount3", "/usr/bin/fusermount3", "/bin/fusermount"} {
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", errors.New("fusermount3 is not installed (package fuse3)")
}

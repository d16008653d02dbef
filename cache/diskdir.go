package cache

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The directory of the user's disk tiers is DIR/coffer-cache-UID:
//
//	lock               held while a mount chooses its directory
//	mount-RANDOM/      of one mount without a key file; its lock is held as
//	                   long as the mount lives
//	key-ID/            of all mounts with one key file; its lock is held while
//	                   files of notes are taken over
//
// Everything is opened through directories that are held open (openat), never
// through a symbolic link.
const (
	diskLock       = "lock"
	diskOwnPrefix  = "mount-"
	diskKeyPrefix  = "key-"
	diskTempPrefix = "tmp-"
)

// diskDir is the open directory of one tier.
type diskDir struct {
	base *os.Root // coffer-cache-UID
	root *os.Root // the tier's own in it
	name string   // of root in base
	lock *os.File // nil when it is shared
}

// deadDir was left by a mount that was killed. Its lock is ours.
type deadDir struct {
	name string
	lock *os.File
}

// openDiskDir opens the tier's directory below dir, and makes it. Without a
// key ID it belongs to the caller alone, and what killed mounts left is found:
// the caller buries it.
func openDiskDir(dir, keyID string) (_ *diskDir, dead []deadDir, err error) {
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer parent.Close()
	d := &diskDir{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.base, err = ownDir(parent, "coffer-cache-"+strconv.Itoa(os.Getuid())); err != nil {
		return nil, nil, err
	}
	lock, err := lockIn(d.base, true)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close()
	if keyID != "" {
		d.name = diskKeyPrefix + keyID
		d.root, err = ownDir(d.base, d.name)
		return d, nil, err
	}
	d.name = diskOwnPrefix + rand.Text()
	if d.root, err = ownDir(d.base, d.name); err != nil {
		return nil, nil, err
	}
	if d.lock, err = lockIn(d.root, false); err != nil {
		return nil, nil, err
	}
	return d, d.findDead(), nil
}

// ownDir opens a directory that must belong to this user and be closed to
// others, and makes it if it is absent.
func ownDir(parent *os.Root, name string) (*os.Root, error) {
	if err := parent.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	st, err := parent.Lstat(name)
	if err != nil {
		return nil, err
	}
	sys, _ := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return nil, fmt.Errorf("%s/%s is not a directory", parent.Name(), name)
	case sys == nil || int(sys.Uid) != os.Getuid():
		return nil, fmt.Errorf("%s/%s belongs to another user", parent.Name(), name)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s/%s is open to others (mode %o, want 700)", parent.Name(), name, st.Mode().Perm())
	}
	root, err := parent.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	// A symbolic link may have taken its place meanwhile.
	if now, err := root.Stat("."); err != nil || !os.SameFile(st, now) {
		_ = root.Close()
		return nil, fmt.Errorf("%s/%s was replaced while it was opened", parent.Name(), name)
	}
	return root, nil
}

// lockIn takes the lock of a directory until the file is closed.
func lockIn(dir *os.Root, wait bool) (*os.File, error) {
	f, err := dir.OpenFile(diskLock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	if err := flock(f, how); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// flock takes the lock of an open file until that is closed.
func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// findDead returns the directories of mounts that were killed: nobody holds
// their locks. Called with the lock of base, under which such directories are
// made.
func (d *diskDir) findDead() (dead []deadDir) {
	for _, name := range namesIn(d.base, ".") {
		if name == d.name || !strings.HasPrefix(name, diskOwnPrefix) {
			continue
		}
		dir, err := d.base.OpenRoot(name)
		if err != nil {
			continue
		}
		if lock, err := lockIn(dir, false); err == nil {
			dead = append(dead, deadDir{name, lock})
		}
		_ = dir.Close()
	}
	return dead
}

// bury removes what findDead found.
func (d *diskDir) bury(dead []deadDir) {
	for _, x := range dead {
		_ = d.base.RemoveAll(x.name)
		_ = x.lock.Close()
	}
}

// close removes a directory of its own and gives everything back.
func (d *diskDir) close() {
	if d.lock != nil {
		_ = d.base.RemoveAll(d.name)
		_ = d.lock.Close()
	}
	for _, r := range []*os.Root{d.root, d.base} {
		if r != nil {
			_ = r.Close()
		}
	}
}

// write makes a file of a block: complete under its name, or not there. Nothing
// is synced: a file that a crash cut short does not verify.
func (d *diskDir) write(name diskName, image []byte) (err error) {
	temp := diskTempPrefix + rand.Text()
	f, err := d.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.root.Remove(temp)
		}
	}()
	_, err = f.Write(image)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	path := name.path()
	err = d.root.Rename(temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.root.Mkdir(path[:2], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		err = d.root.Rename(temp, path)
	}
	return err
}

// each calls do for every block file of one of the 256 directories.
func (d *diskDir) each(fan int, do func(diskName, fs.FileInfo)) {
	sub := hex.EncodeToString([]byte{byte(fan)})
	for _, name := range namesIn(d.root, sub) {
		n, ok := parseDiskName(name)
		if !ok {
			continue
		}
		if st, err := d.root.Lstat(sub + "/" + name); err == nil && st.Mode().IsRegular() {
			do(n, st)
		}
	}
}

// space returns the bytes of the file system that are free beyond the floor.
func (d *diskDir) space() (int64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	return (int64(st.Bavail) - int64(st.Blocks)/diskFloor) * st.Bsize, nil
}

func namesIn(dir *os.Root, sub string) []string {
	f, err := dir.Open(sub)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	return names
}

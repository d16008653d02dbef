package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"coffer/objstore/storetest"
)

// TestOpenFlags opens every kind of name with every combination of flags, reads,
// writes and truncates, and compares each answer and what is there afterwards
// with a local file system. The store must have what was there before until the
// close, and then what the local file system has.
func TestOpenFlags(t *testing.T) {
	m, s := bucketMount(t)
	o := &openFlags{t: t, m: m, local: storetest.DataDir(t), other: client(t, s.Env())}
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	var wg sync.WaitGroup
	for kind, extras := range map[string][]int{
		"file":      {0, unix.O_DIRECT, unix.O_DIRECTORY},
		"missing":   {0, unix.O_DIRECT, unix.O_DIRECTORY},
		"unstored":  {0, unix.O_DIRECT},
		"directory": {0, unix.O_DIRECTORY},
		"link":      {0, unix.O_NOFOLLOW},
		"dangling":  {0, unix.O_NOFOLLOW},
	} {
		wg.Go(func() {
			for _, extra := range extras {
				for _, access := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
					for set := range 16 {
						flags := access | extra
						for i, f := range []int{os.O_CREATE, os.O_EXCL, os.O_TRUNC, os.O_APPEND} {
							if set>>i&1 == 1 {
								flags |= f
							}
						}
						o.open(kind, flags)
					}
				}
			}
		})
	}
	wg.Wait()
	there := o.other.keys(t, "bucket")
	for _, key := range o.keys {
		if _, ok := there[key]; !ok {
			t.Errorf("the store has no %s", key)
		}
		delete(there, key)
	}
	if len(there) != 0 {
		t.Errorf("the store has more than there should be: %v", there)
	}
}

// openFlags is a mount, a local directory to compare it with, and the store.
type openFlags struct {
	t     *testing.T
	m     *mount
	local string
	other independent

	mu   sync.Mutex
	keys []string // that there must be
}

const (
	openedOld      = "0123456789"
	openedUnstored = "written by another descriptor"
)

// open is one case: what is done in both places has the same answers.
func (o *openFlags) open(kind string, flags int) {
	name := fmt.Sprintf("%s-%#x", kind, flags)
	key := name // of the file that the name leads to
	if kind == "link" || kind == "dangling" {
		key += "-target"
	}
	stored := "" // before the close
	if kind != "missing" && kind != "dangling" && kind != "directory" {
		o.other.put(o.t, "bucket", key, openedOld)
		must(o.t, os.WriteFile(filepath.Join(o.local, key), []byte(openedOld), 0o644))
		stored = openedOld
	}
	var said [2]string
	for i, top := range []string{o.m.path("bucket"), o.local} {
		path := filepath.Join(top, name)
		switch kind {
		case "directory":
			must(o.t, os.Mkdir(path, 0o755))
		case "link", "dangling":
			must(o.t, os.Symlink(key, path))
		}
		var writer *os.File
		if kind == "unstored" {
			var err error
			writer, err = os.OpenFile(path, os.O_WRONLY, 0)
			must(o.t, err)
			_, err = writer.WriteString(openedUnstored)
			must(o.t, err)
		}
		said[i] = o.use(path, flags, i == 1, func() {
			if got := o.other.get(o.t, "bucket", key); i == 0 && got != stored {
				o.t.Errorf("%s: before the close the store has %q", name, got)
			}
		})
		if writer != nil {
			must(o.t, writer.Close())
		}
		data, err := os.ReadFile(path)
		said[i] += fmt.Sprintf("then %q %v", data, errnoOf(err))
	}
	if said[0] != said[1] {
		o.t.Errorf("%s: the mount says\n%s\nand a local file system\n%s", name, said[0], said[1])
	}
	data, err := os.ReadFile(filepath.Join(o.local, key))
	if kind == "directory" {
		key, data, err = key+"/", nil, nil // its marker
	}
	if got := o.other.get(o.t, "bucket", key); got != string(data) {
		o.t.Errorf("%s: after the close the store has %q, want %q", name, got, data)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.keys = append(o.keys, key)
	}
	if kind == "link" || kind == "dangling" {
		o.keys = append(o.keys, name) // the link is an object, too
	}
}

// use opens a file, does something of each kind with it, and tells how all of
// that went.
func (o *openFlags) use(path string, flags int, local bool, beforeClose func()) string {
	if local {
		flags &^= unix.O_DIRECT // which tmpfs may not have, and asks for alignment
	}
	var b strings.Builder
	said := func(what string, value any, err error) { fmt.Fprintln(&b, what, value, errnoOf(err)) }
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	said("open", fd >= 0, err)
	if err != nil {
		return b.String()
	}
	read := func() {
		p := make([]byte, 100)
		n, err := unix.Pread(fd, p, 0)
		said("read", string(p[:max(n, 0)]), err)
	}
	read()
	n, err := unix.Write(fd, []byte("new!"))
	said("write", n, err)
	read()
	said("ftruncate", "", unix.Ftruncate(fd, 7))
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		st.Size = 0
	}
	said("fstat", fmt.Sprintf("%o %d", st.Mode, st.Size), err)
	beforeClose()
	said("close", "", unix.Close(fd))
	return b.String()
}

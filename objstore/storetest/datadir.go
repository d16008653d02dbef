package storetest

import (
	"cmp"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const dataDirPrefix = "coffer-test-"

// DataDir returns a new directory for a server's data that is removed when the
// test ends. It lies on /dev/shm where there is one, because a server that
// syncs every object to a disk makes a test run several times slower, and in
// the system's temporary directory otherwise; or in COFFER_DATA_DIR, for data
// that does not fit into memory.
//
// Memory that a killed test run left behind would be lost until the next
// boot, so every call first removes the directories of runs that have died:
// a living one holds a lock on its directory.
func DataDir(t testing.TB) string {
	t.Helper()
	root := cmp.Or(os.Getenv("COFFER_DATA_DIR"), "/dev/shm")
	if st, err := os.Stat(root); err != nil || !st.IsDir() || syscall.Access(root, 2 /* W_OK */) != nil {
		root = os.TempDir()
	}
	sweepDataDirs(root)
	dir, err := os.MkdirTemp(root, dataDirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(dir)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		os.RemoveAll(dir)
		t.Fatalf("lock %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the data of the test: %v", err)
		}
		lock.Close()
	})
	return dir
}

// sweepDataDirs removes directories below root that no living run has locked.
// A directory younger than a minute may be one whose lock is just being taken.
func sweepDataDirs(root string) {
	dirs, err := filepath.Glob(filepath.Join(root, dataDirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		st, err := os.Stat(dir)
		if err != nil || time.Since(st.ModTime()) < time.Minute {
			continue
		}
		lock, err := os.Open(dir)
		if err != nil {
			continue
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			os.RemoveAll(dir) // best effort: it may be another user's
		}
		lock.Close()
	}
}

package e2e

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// posixExceptions are the tests of go-fuse's suite that Coffer does not pass,
// each with the reason.
var posixExceptions = map[string]string{
	"Link":             "an object has one key: link(2) answers EPERM, as file systems without hard links do",
	"LinkUnlinkRename": "begins with a hard link, which answers EPERM",
	"FcntlFlockLocksFile": "asks that one process conflicts with its own POSIX lock; the kernel keeps locks of a mount " +
		"by itself, by process, as POSIX says",
	"XAttrLarge": "S3 limits an object's metadata to 2 KiB: a larger attribute answers ENOSPC",
}

// posixAttributes are tests that need another view of attributes than the
// default: where the type of an entry would cost a request for each, it is
// told with the first lookup, so the second reading of a directory knows more
// than the first, and DirSeek takes that for an inconsistency.
var posixAttributes = map[string]string{"DirSeek": "list"}

// TestPosix runs go-fuse's POSIX suite on a mount, each test in a directory of
// its own in a bucket.
func TestPosix(t *testing.T) {
	for name := range posixExceptions {
		if posixtest.All[name] == nil {
			t.Errorf("the exception %q names no test of the suite", name)
		}
	}
	mounts := map[string]*mount{}
	mounts["full"], _ = bucketMount(t)
	mounts["list"] = mountStore(t, mounts["full"].env, "--attributes", "list")
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			if why := posixExceptions[name]; why != "" {
				t.Skipf("not a promise of Coffer: %s", why)
			}
			m := mounts[cmp.Or(posixAttributes[name], "full")]
			dir := m.path("bucket", name)
			must(t, os.Mkdir(dir, 0o755))
			posixtest.All[name](t, dir)
		})
	}
}

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreignFiles are objects as other programs store them: the metadata is what
// rclone 1.60 sent, and what the manuals of the others say.
var foreignFiles = map[string]struct {
	meta  map[string]string
	mode  uint32
	uid   uint32
	mtime time.Time
	atime time.Time
}{
	"rclone": {
		map[string]string{
			"atime": "2019-01-01T00:00:00Z", "btime": "2026-11-25T17:38:18.058129384Z", "gid": "1000", "mode": "100640",
			"mtime": "1580702706.789012345", "uid": "1000",
		},
		0o640, 1000, time.Unix(1580702706, 789012345), time.Unix(1546300800, 0),
	},
	"s3fs": {
		map[string]string{
			"atime": "1546300800.5", "ctime": "1580702707", "gid": "1000", "mode": "33184", "mtime": "1580702706", "uid": "1000",
		},
		0o640, 1000, time.Unix(1580702706, 0), time.Unix(1546300800, 500_000_000),
	},
	"fsx": {
		map[string]string{
			"file-atime": "1546300800000000000ns", "file-group": "1000", "file-mtime": "1580702706789012345ns",
			"file-owner": "1000", "file-permissions": "0100640", "user-agent": "aws-fsx-lustre",
		},
		0o640, 1000, time.Unix(1580702706, 789012345), time.Unix(1546300800, 0),
	},
}

// attributeMeta returns the metadata that carries attributes.
func attributeMeta(t *testing.T, c independent, key string) map[string]string {
	t.Helper()
	meta := c.meta(t, "bucket", key)
	for _, other := range []string{"btime", "user-agent", "color"} {
		delete(meta, other)
	}
	return meta
}

// TestForeignAttributes shows files of other programs, changes one thing of
// each, under each convention, and looks at what is stored then.
func TestForeignAttributes(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, s.Env())
	for i, convention := range []string{"s3fs", "rclone", "fsx"} {
		if i > 0 {
			m.stop()
			config := filepath.Join(t.TempDir(), "config.yaml")
			must(t, os.WriteFile(config, []byte("metadata-convention: "+convention+"\n"), 0o600))
			m.start("--config", config)
		}
		for name, f := range foreignFiles {
			key := convention + "-" + name
			other.putWith(t, "bucket", key, "data", "text/plain", f.meta)
			var st unix.Stat_t
			must(t, unix.Stat(m.path("bucket", key), &st))
			if st.Mode != unix.S_IFREG|f.mode || st.Uid != f.uid || st.Gid != f.uid || st.Mtim != unix.NsecToTimespec(f.mtime.UnixNano()) ||
				st.Atim != unix.NsecToTimespec(f.atime.UnixNano()) {
				t.Errorf("%s shows as %o %d:%d, mtime %v, atime %v", key, st.Mode, st.Uid, st.Gid, st.Mtim, st.Atim)
			}
			for _, attr := range xattrNames(t, m.path("bucket", key)) {
				if strings.Contains(attr, "mode") || strings.Contains(attr, "mtime") || strings.Contains(attr, "file-") {
					t.Errorf("%s has the extended attribute %s", key, attr)
				}
			}
			must(t, os.Chmod(m.path("bucket", key), 0o600))
			var after unix.Stat_t
			must(t, unix.Stat(m.path("bucket", key), &after))
			if after.Mode != unix.S_IFREG|0o600 || after.Mtim != st.Mtim || after.Atim != st.Atim || after.Uid != st.Uid {
				t.Errorf("%s shows as %o %d:%d, mtime %v, atime %v after chmod", key, after.Mode, after.Uid, after.Gid, after.Mtim, after.Atim)
			}
			want := map[string]int{"s3fs": 5, "rclone": 5, "fsx": 5}[convention]
			meta := attributeMeta(t, other, key)
			for attr := range meta {
				if strings.HasPrefix(attr, "file-") != (convention == "fsx") || attr == "ctime" {
					t.Errorf("%s has %v after chmod", key, meta)
				}
			}
			if mode := map[string]string{"s3fs": "33152", "rclone": "100600", "fsx": ""}[convention]; len(meta) != want || meta["mode"] != mode {
				t.Errorf("%s has %v after chmod", key, meta)
			}
			// A new content has a new time, in every name.
			must(t, os.WriteFile(m.path("bucket", key), []byte("other"), 0o644))
			meta = attributeMeta(t, other, key)
			if len(meta) != want-1 || meta["mtime"]+meta["file-mtime"] != "" {
				t.Errorf("%s has %v after it was written anew", key, meta)
			}
		}
	}
	for _, name := range []string{"rclone", "fsx"} {
		key := "rewritten-" + name
		other.putWith(t, "bucket", key, "data", "text/plain", foreignFiles[name].meta)
		must(t, os.WriteFile(m.path("bucket", key), []byte("other"), 0o644))
		st, err := os.Stat(m.path("bucket", key))
		must(t, err)
		if age := time.Since(st.ModTime()); age > time.Minute {
			t.Errorf("%s is %v old after it was written", key, age)
		}
	}
}

// TestRenameKeepsMtime renames what other programs stored with and without a
// time of its own, in its directory and alone.
func TestRenameKeepsMtime(t *testing.T) {
	m, s := bucketMount(t, "--metadata-ttl", "0s") // the kernel would remember
	other := client(t, s.Env())
	for key, meta := range map[string]map[string]string{"d/plain": nil, "d/fsx": foreignFiles["fsx"].meta, "d/rclone": foreignFiles["rclone"].meta} {
		other.putWith(t, "bucket", key, "data", "text/plain", meta)
	}
	mtimes := func(dir string) string {
		t.Helper()
		all := ""
		for _, name := range []string{"plain", "fsx", "rclone"} {
			st, err := os.Stat(m.path("bucket", dir, name))
			must(t, err)
			all += fmt.Sprintln(name, st.ModTime())
		}
		return all
	}
	before := mtimes("d")
	time.Sleep(1100 * time.Millisecond)
	must(t, os.Rename(m.path("bucket", "d"), m.path("bucket", "e")))
	if after := mtimes("e"); after != before {
		t.Errorf("before the directory was renamed\n%safterwards\n%s", before, after)
	}
	must(t, os.Mkdir(m.path("bucket", "f"), 0o755))
	for _, name := range []string{"plain", "fsx", "rclone"} {
		must(t, os.Rename(m.path("bucket", "e", name), m.path("bucket", "f", name)))
	}
	if after := mtimes("f"); after != before {
		t.Errorf("before each was renamed\n%safterwards\n%s", before, after)
	}
	m.stop()
	m.start()
	if after := mtimes("f"); after != before {
		t.Errorf("before the renames\n%safter a remount\n%s", before, after)
	}
	if meta := other.meta(t, "bucket", "f/fsx"); meta["mtime"] != "" {
		t.Errorf("two times: %v", meta)
	}
}

// TestAtime: an access time that is set is shown and stored, and reading leaves
// it alone.
func TestAtime(t *testing.T) {
	m, _ := bucketMount(t)
	atime, mtime := time.Unix(1_500_000_000, 5), time.Unix(1_600_000_000, 6)
	names := []string{m.path("bucket", "f"), m.path("bucket", "d")}
	write(t, names[0], "data")
	must(t, os.Mkdir(names[1], 0o755))
	check := func(when string) {
		t.Helper()
		for _, name := range names {
			var st unix.Stat_t
			must(t, unix.Stat(name, &st))
			if st.Atim != unix.NsecToTimespec(atime.UnixNano()) || st.Mtim != unix.NsecToTimespec(mtime.UnixNano()) {
				t.Errorf("%s, %s has atime %v, mtime %v", when, name, st.Atim, st.Mtim)
			}
		}
	}
	for _, name := range names {
		must(t, os.Chtimes(name, atime, mtime))
	}
	check("set")
	want(t, names[0], "data")
	list(t, names[1])
	check("read")
	must(t, os.Chmod(names[0], 0o600))
	check("after chmod")
	must(t, os.Rename(names[0], names[0]+"x"))
	names[0] += "x"
	check("renamed")
	m.stop()
	m.start()
	check("after a remount")
	must(t, os.WriteFile(names[0], []byte("more"), 0o644))
	var st unix.Stat_t
	must(t, unix.Stat(names[0], &st))
	if st.Atim != unix.NsecToTimespec(atime.UnixNano()) || st.Mtim.Sec == mtime.Unix() {
		t.Errorf("written, it has atime %v, mtime %v", st.Atim, st.Mtim)
	}
}

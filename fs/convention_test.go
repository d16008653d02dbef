package fs

import (
	"maps"
	"syscall"
	"testing"
	"time"

	"coffer/objstore"
)

func TestTimeRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		sec, nsec int64
		want      string
	}{
		{0, 0, "0"},
		{1, 0, "1"},
		{1700000000, 123456789, "1700000000.123456789"},
		{1700000000, 500000000, "1700000000.5"},
		{-1, 0, "-1"},
		{-1, 750000000, "-0.25"},
		{-2, 750000000, "-1.25"},
	} {
		in := time.Unix(tt.sec, tt.nsec)
		if got := formatTime(in); got != tt.want {
			t.Errorf("formatTime(%v) = %q, want %q", in, got, tt.want)
		}
		if got, ok := parseTime(tt.want); !ok || !got.Equal(in) {
			t.Errorf("parseTime(%q) = %v, %v, want %v", tt.want, got, ok, in)
		}
	}
}

func TestParseTimeOfOthers(t *testing.T) {
	// rclone writes nine digits, s3fs a plain integer; anything else is absent.
	if got, ok := parseTime("1613000000.100000000"); !ok || !got.Equal(time.Unix(1613000000, 1e8)) {
		t.Errorf("rclone's mtime: %v, %v", got, ok)
	}
	for _, bad := range []string{"", "now", "1.-5", "0x10", "99999999999999999999"} {
		if got, ok := parseTime(bad); ok {
			t.Errorf("parseTime(%q) = %v, want nothing", bad, got)
		}
	}
}

func FuzzTime(f *testing.F) {
	f.Add(int64(0), int64(0))
	f.Add(int64(-1), int64(999999999))
	f.Fuzz(func(t *testing.T, sec, nsec int64) {
		if nsec < 0 || nsec > 999999999 || sec > 1<<40 || sec < -1<<40 {
			t.Skip()
		}
		in := time.Unix(sec, nsec)
		got, ok := parseTime(formatTime(in))
		if !ok || !got.Equal(in) {
			t.Errorf("%v -> %q -> %v, %v", in, formatTime(in), got, ok)
		}
	})
}

// conventions are all that can be written.
var conventions = []Convention{ConventionS3FS, ConventionRclone, ConventionFSx}

func TestAttributesRoundTrip(t *testing.T) {
	for _, c := range conventions {
		for _, in := range []attributes{
			{},
			{mode: syscall.S_IFREG | 0o640, hasMode: true},
			{uid: 1000, hasUID: true, mtime: time.Unix(-1, 5)},
			{gid: 0, hasGID: true, atime: time.Unix(1<<31, 0)},
			{
				mode: syscall.S_IFDIR | 0o2775, hasMode: true, uid: 1<<32 - 1, hasUID: true, gid: 100, hasGID: true,
				mtime: time.Unix(1700000000, 5), atime: time.Unix(1600000000, 123456789),
			},
			{mode: syscall.S_IFCHR | 0o600, hasMode: true, rdev: 259},
			{mode: syscall.S_IFIFO | 0o644, hasMode: true},
			{mode: syscall.S_IFLNK | 0o777, hasMode: true},
		} {
			meta := map[string]string{"color": "blue"}
			in.put(meta, c)
			got := attributesOf(meta)
			if !got.mtime.Equal(in.mtime) || !got.atime.Equal(in.atime) {
				t.Errorf("%s: %+v comes back from %v as %+v", c, in, meta, got)
			}
			got.mtime, got.atime = in.mtime, in.atime
			if got != in {
				t.Errorf("%s: %+v comes back from %v as %+v", c, in, meta, got)
			}
			delete(meta, "color")
			if n := objstore.MetaSize(meta); n > attributeRoom {
				t.Errorf("%s: %v takes %d bytes, and %d are kept free", c, meta, n, attributeRoom)
			}
		}
	}
}

// TestOneConventionIsLeft changes attributes that came in any convention, in
// any other: what is left says each thing once, and other metadata is kept.
func TestOneConventionIsLeft(t *testing.T) {
	a := attributes{
		mode: syscall.S_IFREG | 0o600, hasMode: true, uid: 1, hasUID: true, gid: 2, hasGID: true,
		mtime: time.Unix(3, 4), atime: time.Unix(5, 6),
	}
	for _, from := range conventions {
		for _, to := range conventions {
			meta := map[string]string{"color": "blue", "ctime": "7"}
			a.put(meta, from)
			b := a
			b.mode, b.mtime = syscall.S_IFREG|0o755, time.Unix(8, 9)
			b.put(meta, to)
			alone := map[string]string{"color": "blue"}
			b.put(alone, to)
			if !maps.Equal(meta, alone) {
				t.Errorf("from %s to %s: %v, want %v", from, to, meta, alone)
			}
		}
		meta := map[string]string{"color": "blue"}
		a.put(meta, from)
		if got := attributesOf(withoutMtime(meta)); !got.mtime.IsZero() || got.atime.IsZero() || !got.hasMode {
			t.Errorf("without its mtime, %s's %v is %+v", from, meta, got)
		}
		for _, to := range conventions {
			missing, unless := to.missingMtime(time.Unix(10, 0))
			copied, changed := objstore.CopyOptions{Missing: missing, MissingUnless: unless}.MetaOf(meta)
			if changed || !maps.Equal(copied, meta) {
				t.Errorf("%v gets %v", meta, missing)
			}
		}
	}
}

// TestMetadataThatOnlySharesAName stays, unless the name is needed.
func TestMetadataThatOnlySharesAName(t *testing.T) {
	others := map[string]string{
		"mode": "fast", "uid": "user-123", "gid": "-1", "ctime": "x", "rdev": "8:0", "atime": "yesterday",
		"file-permissions": "rwx", "file-owner": "root", "file-group": "", "file-atime": "1.5ns",
	}
	for _, c := range conventions {
		meta := maps.Clone(others)
		attributes{mtime: time.Unix(1, 0)}.put(meta, c)
		if rest := withoutMtime(meta); len(meta) == len(rest) || !maps.Equal(rest, others) {
			t.Errorf("%s: with an mtime it is %v", c, meta)
		}
		a := attributes{mode: 0o100644, hasMode: true, uid: 1, hasUID: true, gid: 2, hasGID: true}
		a.put(meta, c)
		if got := attributesOf(meta); got != a || meta["ctime"] != "x" {
			t.Errorf("%s: %v says %+v", c, meta, got)
		}
	}
}

// foreign is metadata as it was found on objects of other programs, and what
// it says.
var foreign = map[string]struct {
	meta map[string]string
	want attributes
}{
	"rclone 1.60": {map[string]string{"mtime": "1580702706.789012345"}, attributes{mtime: time.Unix(1580702706, 789012345)}},
	"rclone 1.60 --metadata": {
		map[string]string{
			"atime": "2019-01-01T00:00:00Z", "btime": "2026-11-25T17:38:18.058129384Z", "gid": "0", "mode": "100640",
			"mtime": "1580702706.789012345", "uid": "0",
		},
		attributes{
			mode: 0o100640, hasMode: true, hasUID: true, hasGID: true,
			mtime: time.Unix(1580702706, 789012345), atime: time.Unix(1546300800, 0),
		},
	},
	"rclone, a directory":            {map[string]string{"mode": "40755"}, attributes{mode: 0o40755, hasMode: true}},
	"rclone, a set-gid directory":    {map[string]string{"mode": "42775"}, attributes{mode: 0o42775, hasMode: true}},
	"rclone, a sticky directory":     {map[string]string{"mode": "41777"}, attributes{mode: 0o41777, hasMode: true}},
	"rclone, a program with set-uid": {map[string]string{"mode": "104755"}, attributes{mode: 0o104755, hasMode: true}},
	"rclone, as its manual has it":   {map[string]string{"mode": "0100664"}, attributes{mode: 0o100664, hasMode: true}},
	"s3fs": {
		map[string]string{"mode": "33188", "uid": "1000", "gid": "100", "mtime": "1536000000", "atime": "1536000001", "ctime": "1536000002"},
		attributes{
			mode: 0o100644, hasMode: true, uid: 1000, hasUID: true, gid: 100, hasGID: true,
			mtime: time.Unix(1536000000, 0), atime: time.Unix(1536000001, 0),
		},
	},
	"s3fs, a directory":          {map[string]string{"mode": "16877"}, attributes{mode: 0o40755, hasMode: true}},
	"s3fs, a set-gid directory":  {map[string]string{"mode": "17917"}, attributes{mode: 0o42775, hasMode: true}},
	"s3fs, a symbolic link":      {map[string]string{"mode": "41471"}, attributes{mode: 0o120777, hasMode: true}},
	"s3fs, a fifo":               {map[string]string{"mode": "4516"}, attributes{mode: 0o10644, hasMode: true}},
	"s3fs 1.90, with fractions":  {map[string]string{"mtime": "1536000000.000000001"}, attributes{mtime: time.Unix(1536000000, 1)}},
	"geesefs":                    {map[string]string{"mode": "33152", "mtime": "1536000000"}, attributes{mode: 0o100600, hasMode: true, mtime: time.Unix(1536000000, 0)}},
	"permissions without a type": {map[string]string{"mode": "420"}, attributes{mode: 0o644, hasMode: true}},
	"FSx for Lustre": {
		map[string]string{
			"file-permissions": "0100664", "file-owner": "500", "file-group": "501", "user-agent": "aws-fsx-lustre",
			"file-atime": "1595002920000000000ns", "file-mtime": "1595002920000000001ns",
		},
		attributes{
			mode: 0o100664, hasMode: true, uid: 500, hasUID: true, gid: 501, hasGID: true,
			mtime: time.Unix(1595002920, 1), atime: time.Unix(1595002920, 0),
		},
	},
	"DataSync": {
		map[string]string{"file-permissions": "0644", "file-owner": "503", "file-group": "20", "file-mtime": "1602647222222"},
		attributes{
			mode: 0o644, hasMode: true, uid: 503, hasUID: true, gid: 20, hasGID: true,
			mtime: time.Unix(1602647222, 222000000),
		},
	},
	"S3 Files, a directory":      {map[string]string{"file-permissions": "0040755"}, attributes{mode: 0o40755, hasMode: true}},
	"FSx, a symbolic link":       {map[string]string{"file-permissions": "0120777"}, attributes{mode: 0o120777, hasMode: true}},
	"two, the mount's own first": {map[string]string{"mode": "33188", "file-permissions": "0100600"}, attributes{mode: 0o100644, hasMode: true}},
	"something else": {map[string]string{
		"mode": "rw", "uid": "-1", "gid": "x", "mtime": "?", "atime": "yesterday", "rdev": "8:0",
		"file-permissions": "rwx", "file-owner": "root", "file-group": "", "file-mtime": "ns", "file-atime": "1.5ns",
	}, attributes{}},
}

func TestAttributesOfForeignMetadata(t *testing.T) {
	for name, tt := range foreign {
		got := attributesOf(tt.meta)
		if !got.mtime.Equal(tt.want.mtime) || !got.atime.Equal(tt.want.atime) {
			t.Errorf("%s: mtime %v, atime %v, want %v, %v", name, got.mtime, got.atime, tt.want.mtime, tt.want.atime)
		}
		got.mtime, got.atime = tt.want.mtime, tt.want.atime
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
	if attributesOf(foreign["FSx, a symbolic link"].meta).kind(9) != syscall.S_IFLNK {
		t.Error("a symbolic link is not one")
	}
}

// FuzzMode holds that what is written of any file is told apart, whoever writes
// it; of links s3fs writes one mode.
func FuzzMode(f *testing.F) {
	for _, mode := range []uint32{0o100644, 0o41777, 0o10644, 0o20440, 0o41471} {
		f.Add(mode)
	}
	f.Fuzz(func(t *testing.T, mode uint32) {
		if mode &= 0o177777; !isType(mode) || mode&syscall.S_IFMT == syscall.S_IFLNK && mode != syscall.S_IFLNK|0o777 {
			t.Skip()
		}
		for _, c := range []Convention{ConventionS3FS, ConventionRclone} {
			if got, ok := parseMode(c.mode(mode)); !ok || got != mode {
				t.Errorf("%s writes %o as %s, which is read as %o", c, mode, c.mode(mode), got)
			}
		}
	})
}

func TestKindOfObject(t *testing.T) {
	for _, c := range []struct {
		mode uint32
		size int64
		want uint32
	}{
		{syscall.S_IFLNK, 4095, syscall.S_IFLNK}, {syscall.S_IFLNK, 4096, syscall.S_IFREG},
		{syscall.S_IFIFO, 0, syscall.S_IFIFO}, {syscall.S_IFIFO, 1, syscall.S_IFREG}, {syscall.S_IFCHR, 1, syscall.S_IFREG},
		{syscall.S_IFDIR, 0, syscall.S_IFREG}, {0, 0, syscall.S_IFREG},
	} {
		if got := (attributes{mode: c.mode, hasMode: true}).kind(c.size); got != c.want {
			t.Errorf("mode %o and %d bytes make %o, want %o", c.mode, c.size, got, c.want)
		}
		if e := (objstore.Entry{SizeKnown: true, Size: c.size}); isPlain(e) && c.want != syscall.S_IFREG {
			t.Errorf("%d bytes are a file for sure, and %o", c.size, c.want)
		}
	}
	if isPlain(objstore.Entry{Size: 4096}) {
		t.Error("a size that is not known tells something")
	}
}

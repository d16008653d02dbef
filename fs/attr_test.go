package fs

import (
	"maps"
	"syscall"
	"testing"
	"time"
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

func TestAttributesRoundTrip(t *testing.T) {
	in := attributes{
		mode: syscall.S_IFREG | 0o640, hasMode: true, uid: 1000, hasUID: true, gid: 100, hasGID: true,
		mtime: time.Unix(1700000000, 5),
	}
	meta := map[string]string{"color": "blue"}
	in.put(meta)
	if got := attributesOf(meta); got != in {
		t.Errorf("attributesOf(%v) = %+v, want %+v", meta, got, in)
	}
	if meta["color"] != "blue" {
		t.Errorf("put lost foreign metadata: %v", meta)
	}
	in.mtime = time.Time{}
	in.put(meta)
	if _, ok := meta[metaMtime]; ok {
		t.Error("a time that is no longer set stays in the metadata")
	}
}

func TestAttributesOfForeignMetadata(t *testing.T) {
	if got := attributesOf(map[string]string{"mode": "rw", "uid": "-1", "gid": "x", "mtime": "?"}); got != (attributes{}) {
		t.Errorf("got %+v, want nothing", got)
	}
	if attributesOf(map[string]string{"mode": "41471"}).kind(9) != syscall.S_IFLNK { // 0120777
		t.Error("a symbolic link of s3fs is not one")
	}
}

func TestXattrValueRoundTrip(t *testing.T) {
	for _, v := range []string{"", "text", " lead", "trail ", "a\nb", "\x00\xff", "base64:x", "日本", "a b"} {
		enc := encodeValue([]byte(v))
		for _, c := range []byte(enc) {
			if c < ' ' || c >= 0x7f {
				t.Errorf("%q is stored as %q, which no header takes", v, enc)
			}
		}
		if got := decodeValue(enc); got != v {
			t.Errorf("%q -> %q -> %q", v, enc, got)
		}
	}
	if got := decodeValue("base64:%%%"); got != "base64:%%%" {
		t.Errorf("a foreign value is changed to %q", got)
	}
}

func FuzzXattrValue(f *testing.F) {
	f.Add([]byte("base64:"))
	f.Fuzz(func(t *testing.T, v []byte) {
		if got := decodeValue(encodeValue(v)); got != string(v) {
			t.Errorf("%q -> %q -> %q", v, encodeValue(v), got)
		}
	})
}

func TestMetaName(t *testing.T) {
	for attr, want := range map[string]string{
		"user.color": "color", "user.a-b_c.d1": "a-b_c.d1",
		"user.s3.etag": "", "user.s3.anything": "", "user.mode": "", "user.mtime": "", "user.": "",
		"user.Color": "", "user.a b": "", "security.capability": "", "trusted.x": "",
	} {
		got, ok := metaName(attr)
		if got != want || ok != (want != "") {
			t.Errorf("metaName(%q) = %q, %v, want %q", attr, got, ok, want)
		}
	}
}

func TestSetXattr(t *testing.T) {
	const create, replace = 1, 2
	big := make([]byte, metaMax)
	for _, tt := range []struct {
		name  string
		value []byte
		flags uint32
		want  error
	}{
		{"old", []byte("x"), 0, nil},
		{"new", []byte("x"), 0, nil},
		{"old", []byte("x"), create, syscall.EEXIST},
		{"new", []byte("x"), create, nil},
		{"old", []byte("x"), replace, nil},
		{"new", []byte("x"), replace, syscall.ENODATA},
		{"new", big, 0, syscall.ENOSPC},
	} {
		meta := map[string]string{"old": "1"}
		if err := setXattr(maps.Clone(meta), tt.name, tt.value, tt.flags); err != tt.want {
			t.Errorf("setXattr(%q, %d bytes, flags %d) = %v, want %v", tt.name, len(tt.value), tt.flags, err, tt.want)
		}
	}
}

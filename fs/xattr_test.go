package fs

import (
	"maps"
	"syscall"
	"testing"

	"coffer/objstore"
)

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
	big := make([]byte, objstore.MetaMax)
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

package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// xattr returns one attribute, "" when it is absent.
func xattr(t testing.TB, path, name string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Getxattr(path, name, buf)
	if err == unix.ENODATA {
		return ""
	}
	if err != nil {
		t.Fatalf("getxattr %s %s: %v", path, name, err)
	}
	return string(buf[:n])
}

// xattrNames returns what getfattr -d lists.
func xattrNames(t testing.TB, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		t.Fatalf("listxattr %s: %v", path, err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}

func TestXattrsShowProtection(t *testing.T) {
	m, _ := bucketMount(t)
	file, dir := m.path("bucket", "d", "file"), m.path("bucket", "d")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(file, []byte("data"), 0o644))
	for path, want := range map[string]map[string]string{
		file: {
			"user.s3.encryption": "SSE-S3", "user.s3.sse": "AES256", "user.s3.bucket": "bucket", "user.s3.key": "d/file",
			"user.s3.etag": "8d777f385d3dfec8815d20f7496026dc", // MD5 of the data
		},
		dir:              {"user.s3.encryption": "SSE-S3", "user.s3.sse": "AES256", "user.s3.bucket": "bucket", "user.s3.key": "d/"},
		m.path("bucket"): {"user.s3.encryption": "SSE-S3", "user.s3.sse": "AES256", "user.s3.bucket": "bucket"},
	} {
		names := xattrNames(t, path)
		for name, v := range want {
			if got := xattr(t, path, name); got != v {
				t.Errorf("%s: %s = %q, want %q", path, name, got, v)
			}
			if !slices.Contains(names, name) {
				t.Errorf("%s: %s is not listed: %q", path, name, names)
			}
		}
	}
}

func TestXattrsOfFileOpenForWriteShowWhatItGets(t *testing.T) {
	m, s := bucketMount(t)
	f, err := os.Create(m.path("bucket", "new"))
	must(t, err)
	defer f.Close()
	if got := xattr(t, f.Name(), "user.s3.encryption"); got != encryption(t, "SSE-S3") {
		t.Errorf("user.s3.encryption = %q before the first byte", got)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if got := xattr(t, f.Name(), "user.s3.sse"); got != "AES256" {
		t.Errorf("user.s3.sse = %q before close", got)
	}
	for _, r := range s.Requests() {
		if r.Key == "new" && r.Verb == "PutObject" {
			t.Error("the object was stored before close")
		}
	}
}

func TestXattrsReserved(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	must(t, os.WriteFile(p, nil, 0o644))
	wantErrno(t, "set user.s3.encryption", unix.Setxattr(p, "user.s3.encryption", []byte("none"), 0), syscall.ENOTSUP)
	_, err := unix.Getxattr(p, "user.s3.sse.kms-key-id", make([]byte, 64))
	wantErrno(t, "an attribute that is not set", err, syscall.ENODATA)
	s.ResetRequests()
	_, err = unix.Getxattr(p, "security.capability", make([]byte, 64))
	wantErrno(t, "security.capability", err, syscall.ENOTSUP)
	if reqs := s.Requests(); len(reqs) != 0 {
		t.Errorf("security.capability cost %d requests", len(reqs))
	}
}

func TestXattrsOfUserAreMetadata(t *testing.T) {
	m, s := bucketMount(t)
	p := m.path("bucket", "f")
	must(t, os.WriteFile(p, []byte("data"), 0o644))
	for name, v := range map[string]string{"user.color": "blue", "user.bin": "\x00\xff\n", "user.empty": ""} {
		must(t, unix.Setxattr(p, name, []byte(v), 0))
	}
	m.stop()
	m.start()
	for name, v := range map[string]string{"user.color": "blue", "user.bin": "\x00\xff\n", "user.empty": ""} {
		if got := xattr(t, p, name); got != v {
			t.Errorf("%s = %q after a remount, want %q", name, got, v)
		}
	}
	if got := xattr(t, p, "user.s3.encryption"); got != encryption(t, "SSE-S3") {
		t.Errorf("after the copy that set the metadata: %q", got)
	}
	must(t, unix.Removexattr(p, "user.color"))
	if slices.Contains(xattrNames(t, p), "user.color") {
		t.Error("a removed attribute is listed")
	}
	wantErrno(t, "too much metadata", unix.Setxattr(p, "user.big", make([]byte, 3000), 0), syscall.ENOSPC)
	if data, err := os.ReadFile(p); err != nil || string(data) != "data" {
		t.Errorf("content after all that: %q, %v", data, err)
	}
	_ = s
}

// TestXattrCalls holds setxattr(2) and its like to their pages, on a file and on
// a directory.
func TestXattrCalls(t *testing.T) {
	m, _ := bucketMount(t)
	file, dir := m.path("bucket", "f"), m.path("bucket", "d")
	write(t, file, "data")
	must(t, os.Mkdir(dir, 0o755))
	set := func(name, value string, flags int) func(string) error {
		return func(path string) error { return unix.Setxattr(path, name, []byte(value), flags) }
	}
	get := func(name string, size int) func(string) error {
		return func(path string) error { _, err := unix.Getxattr(path, name, make([]byte, size)); return err }
	}
	remove := func(name string) func(string) error {
		return func(path string) error { return unix.Removexattr(path, name) }
	}
	for _, path := range []string{file, dir} {
		for _, step := range []struct {
			what string
			do   func(path string) error
			want syscall.Errno
		}{
			{"replace what is absent", set("user.a", "1", unix.XATTR_REPLACE), syscall.ENODATA},
			{"get what is absent", get("user.a", 10), syscall.ENODATA},
			{"remove what is absent", remove("user.a"), syscall.ENODATA},
			{"create", set("user.a", "four", unix.XATTR_CREATE), 0},
			{"create what is there", set("user.a", "2", unix.XATTR_CREATE), syscall.EEXIST},
			{"get", get("user.a", 4), 0},
			{"get into too little", get("user.a", 3), syscall.ERANGE},
			{"list into too little", func(path string) error { _, err := unix.Listxattr(path, make([]byte, 4)); return err }, syscall.ERANGE},
			{"replace", set("user.a", "", unix.XATTR_REPLACE), 0},
			{"both flags", set("user.a", "", unix.XATTR_REPLACE|unix.XATTR_CREATE), syscall.EEXIST},
			{"an unknown flag", set("user.a", "", 4), syscall.EINVAL},
			{"a value beyond Linux", set("user.a", strings.Repeat("x", 64<<10+1), 0), syscall.E2BIG},
			{"a value beyond S3", set("user.a", strings.Repeat("x", 2<<10), 0), syscall.ENOSPC},
			{"a name of 255 bytes", set("user."+strings.Repeat("n", 250), "", 0), 0},
			{"its removal", remove("user." + strings.Repeat("n", 250)), 0},
			{"a name of 256 bytes", set("user."+strings.Repeat("n", 251), "", 0), syscall.ERANGE},
			{"a name in capitals", set("user.A", "", 0), syscall.ENOTSUP},
			{"a name with a space", set("user.a b", "", 0), syscall.ENOTSUP},
			{"a name beyond ASCII", set("user.ä", "", 0), syscall.ENOTSUP},
			{"a name of attributes", set("user.mode", "", 0), syscall.ENOTSUP},
			{"a name of others' attributes", set("user.file-mtime", "", 0), syscall.ENOTSUP},
			{"another namespace", set("trusted.a", "", 0), syscall.ENOTSUP},
			{"removal of what is the store's", remove("user.s3.encryption"), syscall.ENODATA},
			{"remove", remove("user.a"), 0},
			{"as much as there is room for", set("user.big", strings.Repeat("x", 2<<10-288-3), 0), 0},
			{"one byte more", set("user.b", "", 0), syscall.ENOSPC},
			{"chmod beside that", func(path string) error { return os.Chmod(path, 0o700) }, 0},
			{"utimensat beside that", func(path string) error { return os.Chtimes(path, longAgo, longAgo) }, 0},
			{"the removal of much", remove("user.big"), 0},
		} {
			if err := step.do(path); step.want == 0 && err != nil || step.want != 0 && !errors.Is(err, step.want) {
				t.Errorf("%s, %s: %v, want %v", path, step.what, err, step.want)
			}
		}
		size, err := unix.Getxattr(path, "user.s3.encryption", nil)
		if err != nil || size != len(encryption(t, "SSE-S3")) {
			t.Errorf("%s: the size of an attribute is %d, %v", path, size, err)
		}
	}
}

// TestXattrValues sets values that a header does not carry as they are, or that
// some program on the way might take for its own.
func TestXattrValues(t *testing.T) {
	m, _ := bucketMount(t)
	file, dir := m.path("bucket", "f"), m.path("bucket", "d")
	write(t, file, "data")
	must(t, os.Mkdir(dir, 0o755))
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	values := []string{
		"", "text", " ", " blanks ", "two  blanks", "tab\t", "line\n", "\r\nX-Injected: 1", "\x00", string(every), "日本", "caf\xe9",
		"=?UTF-8?B?w6Q=?=", "=?utf-8?q?x?=", "base64:", "base64:AAAA", "base64:%", "%41", "a,b;c=\"d\"", "\u2060x\u2060", strings.Repeat("ü", 500),
	}
	for _, path := range []string{file, dir} {
		for round, chunk := range slices.Collect(slices.Chunk(values, 11)) {
			for i, v := range chunk {
				must(t, unix.Setxattr(path, fmt.Sprintf("user.v%d-%d", round, i), []byte(v), 0))
			}
			m.stop()
			m.start()
			for i, v := range chunk {
				name := fmt.Sprintf("user.v%d-%d", round, i)
				if got := xattr(t, path, name); got != v {
					t.Errorf("%s: %s is %q after a remount, want %q", path, name, got, v)
				}
				must(t, unix.Removexattr(path, name))
			}
		}
	}
}

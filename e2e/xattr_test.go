package e2e

import (
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
	if got := xattr(t, f.Name(), "user.s3.encryption"); got != "SSE-S3" {
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
	wantErrno(t, "security.capability", err, syscall.ENODATA)
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
	if got := xattr(t, p, "user.s3.encryption"); got != "SSE-S3" {
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

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// customerKeyFile writes a customer key file and returns its name and every form in which
// the key could be seen in some output.
func customerKeyFile(t testing.TB) (name string, forms []string) {
	t.Helper()
	raw := random(t, 32)
	name = filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(name, []byte(base64.StdEncoding.EncodeToString(raw)+"\n"), 0o600))
	return name, []string{string(raw), hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)}
}

// modeCase is one mode of one server.
type modeCase struct {
	name string
	// start returns the environment of a client, and the directory of the server's data.
	start func(testing.TB) (env []string, dir string)
	args  []string
	mode  string
	xattr map[string]string
}

// spawned is the start of a server of its own.
func spawned(start func(testing.TB) *storetest.Server) func(testing.TB) ([]string, string) {
	return func(t testing.TB) ([]string, string) {
		s := start(t)
		return s.Env(), s.Dir
	}
}

// TestModes does what users do with files under each mode that real servers
// have, and with encryption on this side on every dialect, across a remount. It
// looks at what getfattr shows, and for plaintext in the server's directory.
func TestModes(t *testing.T) {
	key, _ := customerKeyFile(t)
	ring := []string{"--cse-keyring", keyringFile(t)}
	minio, minioTLS, radosgw := spawned(storetest.StartMinIO), spawned(storetest.StartMinIOTLS), spawned(storetest.StartRadosGW)
	bySSE, alone := map[string]string{"sse": "AES256", "cse": "esdk-2/0x0478/65536"}, map[string]string{"sse": "", "cse": "esdk-2/0x0478/65536"}
	cases := []modeCase{
		{"minio SSE-S3", minio, []string{"--sse", "aes256"}, "SSE-S3", map[string]string{"sse": "AES256", "cse": ""}},
		{"minio SSE-KMS", minio, []string{"--sse", "kms", "--sse-kms-key-id", "demo-key"}, "SSE-KMS",
			map[string]string{"sse": "aws:kms", "sse.kms-key-id": "arn:aws:kms:demo-key"}},
		{"minio SSE-C", minioTLS, []string{"--sse", "customer", "--sse-customer-key-file", key}, "SSE-C",
			map[string]string{"sse": "", "sse.kms-key-id": ""}},
		{"radosgw SSE-KMS", radosgw, []string{"--sse", "kms", "--sse-kms-key-id", "second-key"}, "SSE-KMS",
			map[string]string{"sse": "aws:kms", "sse.kms-key-id": "second-key"}},
		{"radosgw SSE-C", radosgw, []string{"--sse", "customer", "--sse-customer-key-file", key}, "SSE-C",
			map[string]string{"sse": "", "sse.kms-key-id": ""}},
		{"minio CSE-C", minio, ring, "CSE-C+SSE-S3", bySSE},
		{"versitygw CSE-C", spawned(storetest.StartVersityGW), ring, "CSE-C", alone},
		{"radosgw CSE-C", radosgw, ring, "CSE-C", alone},
	}
	for _, dialect := range emulator.Dialects() {
		c := modeCase{"emulator " + dialect + " CSE-C", func(t testing.TB) ([]string, string) {
			dir := filepath.Join(storetest.DataDir(t), "emulator")
			return startEmulatorIn(t, dialect, dir).Env(), dir
		}, ring, "CSE-C+SSE-S3", bySSE}
		if dialect == "nosse" || dialect == "liar" {
			c.mode, c.xattr = "CSE-C", alone
		}
		cases = append(cases, c)
	}
	for _, tc := range cases {
		t.Run(tc.name, tc.run)
	}
}

func (tc modeCase) run(t *testing.T) {
	env, dir := tc.start(t)
	m := mountStore(t, env, tc.args...)
	d := m.path("modes-bucket")
	must(t, os.Mkdir(d, 0o755))
	big, small := random(t, 21<<20+5), hex.EncodeToString(random(t, 500))
	must(t, os.WriteFile(filepath.Join(d, "big"), big, 0o644))
	write(t, filepath.Join(d, "small"), small)
	write(t, filepath.Join(d, "empty"), "")
	must(t, os.Mkdir(filepath.Join(d, "dir"), 0o755))
	must(t, os.Symlink("small", filepath.Join(d, "link")))
	// A change in the middle is staged, and all of it uploaded again.
	f, err := os.OpenFile(filepath.Join(d, "big"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("changed"), 9<<20)
	must(t, err)
	must(t, f.Close())
	copy(big[9<<20:], "changed")
	f, err = os.OpenFile(filepath.Join(d, "small"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString(" and more")
	must(t, err)
	must(t, f.Close())
	must(t, os.Chmod(filepath.Join(d, "small"), 0o600))
	must(t, os.Rename(filepath.Join(d, "empty"), filepath.Join(d, "dir", "empty")))
	must(t, os.Rename(filepath.Join(d, "dir"), filepath.Join(d, "dir2")))
	m.stop()
	m.start(tc.args...)
	if got := list(t, d); !slices.Equal(got, []string{"big", "dir2", "link", "small"}) {
		t.Errorf("ls: %q", got)
	}
	got, err := os.ReadFile(filepath.Join(d, "big"))
	must(t, err)
	if !bytes.Equal(got, big) {
		t.Error("the big file came back as another")
	}
	want(t, filepath.Join(d, "link"), small+" and more")
	want(t, filepath.Join(d, "dir2", "empty"), "")
	st, err := os.Stat(filepath.Join(d, "small"))
	must(t, err)
	if st.Mode().Perm() != 0o600 || st.Size() != int64(len(small+" and more")) {
		t.Errorf("mode %v, %d bytes", st.Mode(), st.Size())
	}
	for _, p := range []string{d, filepath.Join(d, "big"), filepath.Join(d, "small"), filepath.Join(d, "dir2"), filepath.Join(d, "dir2", "empty")} {
		if got := xattr(t, p, "user.s3.encryption"); got != tc.mode {
			t.Errorf("user.s3.encryption of %s is %q, want %q", p, got, tc.mode)
		}
	}
	for name, value := range tc.xattr {
		if got := xattr(t, filepath.Join(d, "big"), "user.s3."+name); got != value {
			t.Errorf("user.s3.%s is %q, want %q", name, got, value)
		}
	}
	m.stop()
	if dir != "" {
		w := &windows{}
		for _, off := range []int{0, 9 << 20, len(big) - 1<<20} { // of all of it, sorting would take longer than the job
			w.add(big[off:off+1<<20], nil)
		}
		w.add([]byte(small), nil)
		w.wantNone(t, "the server's directory", dir)
	}
}

// TestCustomerKeys changes the keys of a mount: the old one still reads, what
// is changed goes under the new one, and without the right one nothing is read,
// listed though it is. No output shows any key.
func TestCustomerKeys(t *testing.T) {
	first, firstForms := customerKeyFile(t)
	second, secondForms := customerKeyFile(t)
	all := []string{"--sse", "customer", "--log-level", "debug", "--sse-customer-key-file", first}
	m := mountStore(t, storetest.StartMinIOTLS(t).Env(), all...)
	var logs strings.Builder
	file := m.path("keys-bucket", "file")
	must(t, os.Mkdir(m.path("keys-bucket"), 0o755))
	write(t, file, "under the first key")
	write(t, m.path("keys-bucket", "other"), "too")
	old := xattr(t, file, "user.s3.sse.customer-key-md5")
	if old == "" {
		t.Error("no MD5 of the key is shown")
	}
	end := func() {
		m.stop()
		logs.WriteString(m.log.String())
	}
	end()

	m.start("--sse", "customer", "--log-level", "debug", "--sse-customer-key-file", second, "--sse-customer-key-file", first)
	want(t, file, "under the first key")
	if got := xattr(t, file, "user.s3.sse.customer-key-md5"); got != old {
		t.Errorf("MD5 %q, want %q", got, old)
	}
	must(t, os.Chmod(file, 0o640))
	end()

	m.start("--sse", "customer", "--log-level", "debug", "--sse-customer-key-file", second)
	want(t, file, "under the first key")
	if got := xattr(t, file, "user.s3.sse.customer-key-md5"); got == old || got == "" {
		t.Errorf("MD5 %q after the change", got)
	}
	_, err := os.ReadFile(m.path("keys-bucket", "other"))
	wantErrno(t, "read with the wrong key", err, syscall.EACCES)
	wantErrno(t, "remove with the wrong key", os.Remove(m.path("keys-bucket", "other")), syscall.EACCES)
	names, err := exec.Command("ls", m.path("keys-bucket")).CombinedOutput()
	if err != nil || string(names) != "file\nother\n" {
		t.Errorf("ls: %v\n%s", err, names)
	}
	if !strings.Contains(m.log.String(), "customer key") {
		t.Errorf("no log line says why:\n%s", m.log)
	}
	args, err := os.ReadFile("/proc/" + pidOf(m) + "/cmdline")
	must(t, err)
	logs.Write(args)
	environ, err := os.ReadFile("/proc/" + pidOf(m) + "/environ")
	if !errors.Is(err, fs.ErrPermission) || os.Getuid() == 0 {
		must(t, err) // a process that leaves no core shows its own user nothing
	}
	logs.Write(environ)
	end()

	m.start("--log-level", "debug")
	_, err = os.ReadFile(file)
	wantErrno(t, "read without a key", err, syscall.EACCES)
	end()

	for _, form := range append(firstForms, secondForms...) {
		if strings.Contains(logs.String(), form) {
			t.Error("a key is in the output")
		}
	}
}

func TestRenameBetweenPolicies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(file, []byte("encryption:\n  - match: bucket/named/\n    sse: aes256\n"), 0o600))
	m, _ := bucketMount(t, "--config", file)
	must(t, os.Mkdir(m.path("bucket", "named"), 0o755))
	write(t, m.path("bucket", "f"), "data")
	wantErrno(t, "rename", os.Rename(m.path("bucket", "f"), m.path("bucket", "named", "f")), syscall.EXDEV)
	out, err := exec.Command("mv", m.path("bucket", "f"), m.path("bucket", "named", "f")).CombinedOutput()
	if err != nil || len(out) != 0 {
		t.Errorf("mv: %v\n%s", err, out)
	}
	want(t, m.path("bucket", "named", "f"), "data")
	must(t, os.Rename(m.path("bucket", "named", "f"), m.path("bucket", "named", "g")))
	wantErrno(t, "rename of a directory", os.Rename(m.path("bucket", "named"), m.path("bucket", "other")), syscall.EXDEV)
}

// pidOf returns the process id of a mount's daemon.
func pidOf(m *mount) string { return strconv.Itoa(m.cmd.Process.Pid) }

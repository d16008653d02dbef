package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// verified is what "coffer verify --json" prints.
type verified struct {
	Objects, Bytes, Gone int64
	Damaged, Skipped     []struct{ Bucket, Key, Error, Reason string }
}

// verify runs "coffer verify" and returns what it found, and its exit code.
func (m *mount) verify(t testing.TB, args ...string) (r verified, code int) {
	t.Helper()
	out, err := m.run(append([]string{"verify", "--json"}, args...)...)
	begin := strings.Index(out, "{\n") // behind lines of the log
	if begin < 0 {
		t.Fatalf("verify: %v\n%s", err, out)
	}
	must(t, json.NewDecoder(strings.NewReader(out[begin:])).Decode(&r))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	return r, code
}

// damaged returns the keys, sorted.
func (r verified) damaged() []string {
	keys := []string{}
	for _, d := range r.Damaged {
		keys = append(keys, d.Bucket+"/"+d.Key)
	}
	slices.Sort(keys)
	return keys
}

// cseStats is what the status tells of encryption on this side.
func (m *mount) cseStats() (s struct {
	Failures int `json:"verification_failures"`
	Plain    int `json:"plaintext_refused"`
}) {
	m.t.Helper()
	out, err := m.run("status", m.dir)
	must(m.t, err)
	var reply struct{ Status struct{ CSE json.RawMessage } }
	must(m.t, json.Unmarshal([]byte(out), &reply))
	must(m.t, json.Unmarshal(reply.Status.CSE, &s))
	return s
}

// A path of a mount is verified by its daemon: what is in the store, wherever in it, with
// the keys of the mount; what is damaged is EIO for who reads it, and counted.
func TestVerifyMounted(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.MkdirAll(filepath.Join(d, "dir", "sub"), 0o755))
	must(t, os.Mkdir(m.path("other-bucket"), 0o755))
	data := string(random(t, 200_000))
	for _, name := range []string{"dir/one", "dir/two", "dir/sub/three", "dir-1"} {
		write(t, filepath.Join(d, name), data)
		want(t, filepath.Join(d, name), data) // it is cached by now
	}
	write(t, m.path("other-bucket", "four"), data)
	for path, objects := range map[string]int64{
		m.dir: 5, d: 4, m.path("other-bucket"): 1, filepath.Join(d, "dir"): 3, filepath.Join(d, "dir", "sub"): 1, filepath.Join(d, "dir", "one"): 1,
	} {
		before := m.status().Cache
		s.ResetRequests()
		r, code := m.verify(t, path)
		if code != 0 || r.Objects != objects || r.Bytes != objects*200_000 || len(r.Damaged)+len(r.Skipped) > 0 {
			t.Errorf("%s: exit code %d, %+v", path, code, r)
		}
		if n := count(s, "GetObject", ""); n != int(objects) {
			t.Errorf("%s: %d GETs for %d objects", path, n, objects)
		}
		after := m.status().Cache
		if after.CachedBytes != before.CachedBytes || after.FetchedBytes != before.FetchedBytes || after.ReadBytes != before.ReadBytes {
			t.Errorf("%s: the cache was %+v and is %+v", path, before, after)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(filepath.Join(d, "dir"), link))
	if out, err := m.run("verify", link); err != nil || !strings.Contains(out, "3 objects with 600000 bytes were read, 0 cannot be trusted\n") {
		t.Errorf("by a link: %v, %s", err, out)
	}
	for path, text := range map[string]string{filepath.Join(d, "absent"): "no such file", t.TempDir(): "in no mount of Coffer"} {
		if out, err := m.run("verify", path); err == nil || !strings.Contains(out, text) {
			t.Errorf("%s: %v, %s", path, err, out)
		}
	}

	c := client(t, m.env)
	store := func(from, to string, change func(p []byte) []byte) {
		c.putWith(t, "bucket", to, string(change([]byte(c.get(t, "bucket", from)))), "", c.meta(t, "bucket", from))
	}
	store("dir/two", "dir/two", func(p []byte) []byte { p[1024+2*(64<<10+32)+100] ^= 1; return p })
	store("dir/one", "dir/cut", func(p []byte) []byte { return p[:100_000] })
	c.put(t, "bucket", "dir/sub/plain", "plaintext")
	bad := []string{"bucket/dir/cut", "bucket/dir/sub/plain", "bucket/dir/two"}
	r, code := m.verify(t, d)
	if code != 1 || r.Objects != 6 || !slices.Equal(r.damaged(), bad) {
		t.Errorf("exit code %d, %+v", code, r)
	}
	for _, x := range r.Damaged {
		if x.Key == "dir/two" && !strings.Contains(x.Error, "frame 2") {
			t.Errorf("%+v names no frame", x)
		}
	}
	if out, err := m.run("verify", filepath.Join(d, "dir", "two")); err == nil || !strings.Contains(out, "s3://bucket/dir/two") || !strings.Contains(out, "1 of 1 objects") {
		t.Errorf("a file: %v, %s", err, out)
	}
	if _, code := m.verify(t, filepath.Join(d, "dir", "one")); code != 0 {
		t.Errorf("a file beside: exit code %d", code)
	}
	m.stop()

	m.start("--cse-keyring", ring)
	if got := m.cseStats(); got.Failures != 0 || got.Plain != 0 {
		t.Errorf("at first: %+v", got)
	}
	for range 3 {
		for _, name := range []string{"dir/cut", "dir/two", "dir/sub/plain"} {
			_, err := os.ReadFile(filepath.Join(d, name))
			wantErrno(t, name, err, syscall.EIO)
		}
		want(t, filepath.Join(d, "dir", "one"), data)
	}
	if got := m.cseStats(); got.Failures < 6 || got.Plain < 3 {
		t.Errorf("after reading: %+v", got)
	}
	m.wantLog(t, "is damaged", "bucket/dir/two", "frame 2")
	for _, text := range []string{"is damaged", "operation failed"} {
		for _, name := range []string{"dir/cut", "dir/two", "dir/sub/plain"} {
			n := 0
			for line := range strings.Lines(m.log.String()) {
				if strings.Contains(line, text) && strings.Contains(line, "=bucket/"+name+" ") {
					n++
				}
			}
			if n > 1 {
				t.Errorf("%d lines of the log say %q of %s", n, text, name)
			}
		}
	}
	m.stop()

	m.env = append(m.env, "COFFER_CSE_MODE=auto")
	m.start("--cse-keyring", ring, "s3://bucket/dir")
	if r, code := m.verify(t, m.dir); code != 1 || r.Objects != 5 || !slices.Equal(r.damaged(), []string{"bucket/dir/cut", "bucket/dir/two"}) {
		t.Errorf("of a prefix, with plain objects: exit code %d, %+v", code, r)
	}
	if r, code := m.verify(t, m.path("sub")); code != 0 || r.Objects != 2 {
		t.Errorf("a directory below a prefix: exit code %d, %+v", code, r)
	}
}

// Without encryption on this side it is the store's checksum that is compared.
func TestVerifyMountedByChecksum(t *testing.T) {
	m, s := bucketMount(t)
	d := m.path("bucket")
	for _, name := range []string{"one", "two"} {
		write(t, filepath.Join(d, name), string(random(t, 300_000)))
	}
	s.Inject(emulator.Fault{Verb: "GetObject", KeyPattern: "two", FlipBit: true})
	if r, code := m.verify(t, d); code != 1 || r.Objects != 2 || !slices.Equal(r.damaged(), []string{"bucket/two"}) {
		t.Errorf("exit code %d, %+v", code, r)
	}
	s.ClearFaults()
	if r, code := m.verify(t, d); code != 0 || r.Bytes != 600_000 {
		t.Errorf("exit code %d, %+v", code, r)
	}
}

// What is not stored yet is named and is no damage, nor is what goes while it is verified.
func TestVerifyMountedWhileItChanges(t *testing.T) {
	s := startEmulator(t, "nosse")
	m := mountStore(t, s.Env(), "--cse-keyring", keyringFile(t))
	d := m.path("bucket")
	must(t, os.MkdirAll(filepath.Join(d, "dir"), 0o755))
	for _, name := range []string{"a", "b", "c", "z"} {
		write(t, filepath.Join(d, "dir", name), name)
	}
	var open []*os.File
	for _, name := range []string{"dir/new", "dir/z", "beside"} {
		f, err := os.OpenFile(filepath.Join(d, name), os.O_WRONLY|os.O_CREATE, 0o644)
		must(t, err)
		defer f.Close()
		_, err = f.WriteString("not stored yet")
		must(t, err)
		open = append(open, f)
	}
	r, code := m.verify(t, filepath.Join(d, "dir"))
	skipped := []string{}
	for _, x := range r.Skipped {
		skipped = append(skipped, x.Key+": "+x.Reason)
	}
	slices.Sort(skipped)
	if code != 0 || r.Objects != 4 || !slices.Equal(skipped, []string{"dir/new: not stored yet", "dir/z: not stored yet"}) {
		t.Errorf("exit code %d, %+v", code, r)
	}
	if out, err := m.run("verify", filepath.Join(d, "dir", "new")); err != nil || !strings.Contains(out, "0 objects with 0 bytes were read, 0 cannot be trusted, 1 are not stored yet") {
		t.Errorf("a file that is not stored: %v, %s", err, out)
	}
	for _, f := range open {
		must(t, f.Close())
	}
	if r, code := m.verify(t, d); code != 0 || r.Objects != 6 || len(r.Skipped) > 0 {
		t.Errorf("all is stored: exit code %d, %+v", code, r)
	}

	s.Inject(emulator.Fault{Verb: "GetObject", KeyPattern: "dir/a", Delay: 2 * time.Second, Count: 1})
	s.ResetRequests()
	type result struct {
		r    verified
		code int
	}
	done := make(chan result, 1)
	go func() {
		r, code := m.verify(t, "--jobs", "1", filepath.Join(d, "dir"))
		done <- result{r, code}
	}()
	await(t, "the listing", func() bool { return count(s, "ListObjectsV2", "") > 1 })
	must(t, os.Remove(filepath.Join(d, "dir", "c")))
	must(t, os.Rename(filepath.Join(d, "dir", "b"), filepath.Join(d, "b")))
	if x := <-done; x.code != 0 || x.r.Gone != 2 || x.r.Objects != 3 {
		t.Errorf("removed meanwhile: exit code %d, %+v", x.code, x.r)
	}
}

// Ctrl-C ends what the daemon does for the command, and the end of the mount ends both;
// meanwhile the mount goes on to be of use.
func TestVerifyMountedEnds(t *testing.T) {
	s := startEmulator(t, "nosse")
	m := mountStore(t, s.Env(), "--cse-keyring", keyringFile(t))
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	for i := range 20 {
		write(t, filepath.Join(d, fmt.Sprint(i)), string(random(t, 100_000)))
	}
	// stuck returns a command that waits for the store, and what it prints.
	stuck := func() (*exec.Cmd, *syncBuffer) {
		s.Inject(emulator.Fault{Verb: "GetObject", StallBody: true})
		s.ResetRequests()
		cmd, out := exec.Command(coffer(t), "verify", d), &syncBuffer{}
		cmd.Env, cmd.Stdout, cmd.Stderr = m.env, out, out
		must(t, cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill() })
		await(t, "a request", func() bool { return count(s, "GetObject", "") == 8 })
		return cmd, out
	}
	cmd, out := stuck()
	write(t, filepath.Join(d, "beside"), "of use")
	began := time.Now()
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("interrupted: %v, %s", err, out)
	}
	s.ClearFaults()
	// It has its turn only when the one before has ended.
	if r, code := m.verify(t, d); code != 0 || r.Objects != 21 {
		t.Errorf("after that: exit code %d, %+v", code, r)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("its end took %v", took)
	}
	cmd, out = stuck()
	began = time.Now()
	m.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("umount took %v", took)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "the mount is being ended") {
		t.Errorf("unmounted: %v, %s", err, out)
	}
}

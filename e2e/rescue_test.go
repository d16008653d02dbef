package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// Data whose commit failed, and what becomes of it.

// rescued is one line of "coffer rescue list".
type rescued struct {
	ID, Bucket, Key, File, Error, Cause string
	Size                                int64
	PID                                 int
	Upload                              bool
	NeedsBase                           bool `json:"needs_base"`
}

// rescued lists what is kept.
func (m *mount) rescued(args ...string) []rescued {
	m.t.Helper()
	out, err := m.run(append([]string{"rescue", "list", "--json"}, args...)...)
	must(m.t, err)
	var items []rescued
	if err := json.Unmarshal([]byte(out), &items); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	return items
}

// onlyRescued is the one thing that is kept.
func (m *mount) onlyRescued(args ...string) rescued {
	m.t.Helper()
	items := m.rescued(args...)
	if len(items) != 1 {
		m.t.Fatalf("%d things are kept: %+v\n%s", len(items), items, m.log)
	}
	return items[0]
}

// refuse makes the store refuse to make objects, one way or the other.
func refuse(s *emulator.Server) {
	s.Inject(
		emulator.Fault{Verb: "PutObject", KeyPattern: "f", Code: "AccessDenied"},
		emulator.Fault{Verb: "CompleteMultipartUpload", Code: "AccessDenied"},
	)
}

// failing opens the file f, does change to it, and closes it, which fails.
func (m *mount) failing(flags int, change func(f *os.File) error, want syscall.Errno) {
	m.t.Helper()
	f, err := os.OpenFile(m.path("bucket", "f"), flags, 0o640)
	must(m.t, err)
	must(m.t, change(f))
	wantErrno(m.t, "close", f.Close(), want)
}

// inOrder writes data in pieces.
func inOrder(data []byte) func(*os.File) error {
	return func(f *os.File) error {
		for piece := range slices.Chunk(data, 1<<20) {
			if _, err := f.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestRescue: what was not stored outlives the mount, sealed, and is stored
// later as it would have been.
func TestRescue(t *testing.T) {
	small, large := random(t, 100_000), random(t, 30<<20)
	old := random(t, 30<<20)
	changed := bytes.Clone(old)
	copy(changed[12<<20:], small)
	for name, test := range map[string]struct {
		before []byte // what the store has
		flags  int
		change func(*os.File) error
		after  []byte
		check  func(t *testing.T, r rescued)
	}{
		"small":      {nil, os.O_WRONLY | os.O_CREATE, inOrder(small), small, func(t *testing.T, r rescued) {}},
		"small over": {old, os.O_WRONLY | os.O_TRUNC, inOrder(small), small, func(t *testing.T, r rescued) {}},
		"stream": {nil, os.O_WRONLY | os.O_CREATE, inOrder(large), large, func(t *testing.T, r rescued) {
			if !r.Upload {
				t.Error("it is no upload")
			}
		}},
		"changed": {old, os.O_RDWR, func(f *os.File) error {
			_, err := f.WriteAt(small, 12<<20)
			return err
		}, changed, func(t *testing.T, r rescued) {
			if !r.NeedsBase {
				t.Error("it does not need what it was made of")
			}
		}},
		"out of order": {nil, os.O_WRONLY | os.O_CREATE, func(f *os.File) error {
			for off := len(large) - 3<<20; off >= 0; off -= 3 << 20 {
				if _, err := f.WriteAt(large[off:off+3<<20], int64(off)); err != nil {
					return err
				}
			}
			return nil
		}, large, func(t *testing.T, r rescued) {}},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := bucketMount(t)
			other := client(t, m.env)
			if test.before != nil {
				other.put(t, "bucket", "f", string(test.before))
			}
			refuse(s)
			m.failing(test.flags, test.change, syscall.EACCES)
			r := m.onlyRescued()
			if r.Bucket != "bucket" || r.Key != "f" || r.Size != int64(len(test.after)) || r.PID != 0 || r.Error != "" || !strings.Contains(r.Cause, "AccessDenied") {
				t.Errorf("kept: %+v", r)
			}
			test.check(t, r)
			if !strings.Contains(m.log.String(), "kept="+r.File) {
				t.Errorf("the log does not say where:\n%s", m.log)
			}
			st, err := os.Stat(r.File)
			must(t, err)
			if st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", st.Mode())
			}
			sealed, err := os.ReadFile(r.File)
			must(t, err)
			for _, secret := range [][]byte{small[:32], large[:32], changed[:32], []byte("bucket"), []byte("AccessDenied")} {
				if bytes.Contains(sealed, secret) {
					t.Errorf("%q rests there in plaintext", secret)
				}
			}
			if out, err := m.run("rescue", "commit", r.ID); err == nil {
				t.Errorf("commit while the store refuses: %s", out)
			}
			out, err := m.run("umount", m.dir)
			must(t, err)
			if !strings.Contains(out, r.File) {
				t.Errorf("umount says nothing of what is kept: %s", out)
			}
			m.waitExit(10 * time.Second)

			s.ClearFaults()
			out, err = m.run("rescue", "commit", r.ID)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := other.get(t, "bucket", "f"); got != string(test.after) {
				t.Errorf("the store has %d other bytes", len(got))
			}
			if items := m.rescued(); len(items) != 0 {
				t.Errorf("still kept: %+v", items)
			}
			m.start()
			if test.before == nil {
				if st, err = os.Stat(m.path("bucket", "f")); err != nil || st.Mode().Perm() != 0o640 {
					t.Errorf("mode %v, %v", st.Mode(), err)
				}
			}
			if n := len(uploads(t, m)); n != 0 {
				t.Errorf("%d uploads are left", n)
			}
		})
	}
}

// uploads are the unfinished uploads of all buckets.
func uploads(t testing.TB, m *mount) []string {
	t.Helper()
	out, err := m.run("check", "--read-only", "--uploads", "--json")
	var report struct{ Uploads []struct{ ID string } }
	if jerr := json.Unmarshal([]byte(out), &report); jerr != nil {
		t.Fatalf("%v, %v\n%s", err, jerr, out)
	}
	var ids []string
	for _, u := range report.Uploads {
		ids = append(ids, u.ID)
	}
	return ids
}

// TestRescueOfLostUpdate: somebody else's version is replaced only on demand.
func TestRescueOfLostUpdate(t *testing.T) {
	for _, size := range []int{1000, 20 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			m, _ := bucketMount(t)
			other := client(t, m.env)
			write(t, m.path("bucket", "f"), "old")
			mine := random(t, size)
			m.failing(os.O_WRONLY|os.O_TRUNC, func(f *os.File) error {
				other.put(t, "bucket", "f", "theirs")
				return inOrder(mine)(f)
			}, syscall.ESTALE)
			r := m.onlyRescued()
			if out, err := m.run("rescue", "commit", r.ID); err == nil || !strings.Contains(out, "changed in the meantime") {
				t.Errorf("commit over somebody else's version: %v, %s", err, out)
			}
			other.put(t, "bucket", "taken", "x")
			if out, err := m.run("rescue", "commit", r.ID, "s3://bucket/taken"); err == nil {
				t.Errorf("commit over another object: %s", out)
			}
			if got := other.get(t, "bucket", "f") + other.get(t, "bucket", "taken"); got != "theirsx" {
				t.Errorf("the store has %.60q", got)
			}
			place, args := "f", []string{"rescue", "commit", "--force", r.ID}
			if !r.Upload {
				place, args = "mine", []string{"rescue", "commit", r.ID, "s3://bucket/mine"}
			}
			out, err := m.run(args...)
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := other.get(t, "bucket", place); got != string(mine) {
				t.Errorf("the store has %.60q", got)
			}
			if n := len(m.rescued()); n != 0 {
				t.Errorf("%d things are still kept", n)
			}
			m.stop()
		})
	}
}

// TestRescueKeepsNothingUseless: what could not be had back is not called kept.
func TestRescueKeepsNothingUseless(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, m.env)
	why := func(words string) {
		t.Helper()
		m.wantLog(t, "data not stored", "kept=\"no: "+words)
		if items := m.rescued(); len(items) != 0 {
			t.Errorf("kept: %+v", items)
		}
	}
	other.put(t, "bucket", "f", string(random(t, 12<<20)))
	m.failing(os.O_RDWR, func(f *os.File) error {
		_, err := f.WriteAt([]byte("change"), 1000)
		other.put(t, "bucket", "f", "theirs")
		return err
	}, syscall.ESTALE)
	why("it is changes of a version that is gone")

	s.Inject(emulator.Fault{Verb: "UploadPart", Nth: 2, Code: "AccessDenied"})
	m.failing(os.O_WRONLY|os.O_TRUNC, inOrder(random(t, 12<<20)), syscall.EACCES)
	why("it went out as a stream")
	if n := len(uploads(t, m)); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	s.ClearFaults()
	refuse(s)
	m.failing(os.O_WRONLY|os.O_TRUNC, func(*os.File) error { return nil }, syscall.EACCES)
	why("it is empty")
	s.ClearFaults()
	m.stop()

	m.start("--rescue", "off")
	refuse(s)
	m.failing(os.O_WRONLY|os.O_TRUNC, inOrder([]byte("data")), syscall.EACCES)
	why("--rescue off")
}

// TestRescueKeepsTheLast: a program that tries again fills no disk.
func TestRescueKeepsTheLast(t *testing.T) {
	for _, size := range []int{1000, 12 << 20} {
		for _, mode := range []string{"file", "mount"} {
			t.Run(fmt.Sprint(size, " ", mode), func(t *testing.T) {
				m, s := bucketMount(t, "--rescue", mode)
				refuse(s)
				var last []byte
				for range 3 {
					last = random(t, size)
					m.failing(os.O_WRONLY|os.O_CREATE|os.O_TRUNC, inOrder(last), syscall.EACCES)
				}
				r := m.onlyRescued()
				if n := len(uploads(t, m)); n > 1 {
					t.Errorf("%d uploads wait", n)
				}
				s.ClearFaults()
				out, err := m.run("rescue", "commit", r.ID)
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if got := client(t, m.env).get(t, "bucket", "f"); got != string(last) {
					t.Errorf("the store has %d other bytes", len(got))
				}
				if n := len(uploads(t, m)); n != 0 {
					t.Errorf("%d uploads are left", n)
				}
			})
		}
	}
}

// TestRescueAfterKill: an upload that only the mount holds is ended when the
// mount is killed; one that a file names is not.
func TestRescueAfterKill(t *testing.T) {
	for mode, want := range map[string]int{"file": 1, "mount": 0} {
		t.Run(mode, func(t *testing.T) {
			m, s := bucketMount(t, "--rescue", mode)
			refuse(s)
			m.failing(os.O_WRONLY|os.O_CREATE, inOrder(random(t, 12<<20)), syscall.EACCES)
			m.kill()
			s.ClearFaults()
			m.start()
			if mode == "mount" {
				await(t, "the end of the upload", func() bool { return len(uploads(t, m)) == 0 })
			} else {
				time.Sleep(300 * time.Millisecond) // it is not ended by and by
			}
			if n := len(uploads(t, m)); n != want {
				t.Errorf("%d uploads wait, want %d", n, want)
			}
			if n := len(m.rescued()); n != want {
				t.Errorf("%d things are kept, want %d", n, want)
			}
			m.stop()
		})
	}
}

// TestRescueDirOfOthers: nobody else prepares the directory for kept data.
func TestRescueDirOfOthers(t *testing.T) {
	scratch := t.TempDir()
	dir := filepath.Join(scratch, fmt.Sprint("coffer-rescue-", os.Getuid()))
	must(t, os.Mkdir(dir, 0o777))
	must(t, os.Chmod(dir, 0o777))
	must(t, syscall.Mkfifo(filepath.Join(dir, "x.kept"), 0o600))
	m, _ := bucketMount(t, "--scratch-dir", scratch)
	m.wantLog(t, "no directory", "open to others")
	if out, err := m.run("rescue", "list", "--scratch-dir", scratch); err == nil {
		t.Errorf("list: %s", out)
	}
	must(t, os.Chmod(dir, 0o700))
	if items := m.rescued("--scratch-dir", scratch); len(items) != 1 || !strings.Contains(items[0].Error, "no regular file") {
		t.Errorf("list: %+v", items)
	}
}

// TestRescueDiscard: also of what waits in the store.
func TestRescueDiscard(t *testing.T) {
	m, s := bucketMount(t)
	refuse(s)
	for _, size := range []int{1000, 12 << 20} {
		m.failing(os.O_WRONLY|os.O_CREATE|os.O_TRUNC, inOrder(random(t, size)), syscall.EACCES)
		r := m.onlyRescued()
		out, err := m.run("rescue", "discard", r.ID)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if n, u := len(m.rescued()), len(uploads(t, m)); n+u != 0 {
			t.Errorf("%d things and %d uploads are still kept", n, u)
		}
	}
	victim := filepath.Join(t.TempDir(), "precious.kept")
	must(t, os.WriteFile(victim, bytes.Repeat([]byte("x"), 1000), 0o600))
	if out, err := m.run("rescue", "discard", victim); err == nil {
		t.Errorf("discard of any file: %s", out)
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

// TestRescueHeldByMount: without a key the mount keeps it, and does not end
// without a word.
func TestRescueHeldByMount(t *testing.T) {
	m, s := bucketMount(t, "--rescue", "mount")
	other := client(t, m.env)
	for _, size := range []int{1000, 12 << 20} {
		for _, verb := range []string{"commit", "discard"} {
			data := random(t, size)
			refuse(s)
			m.failing(os.O_WRONLY|os.O_CREATE|os.O_TRUNC, inOrder(data), syscall.EACCES)
			r := m.onlyRescued()
			if r.PID != m.cmd.Process.Pid || r.File != "" {
				t.Errorf("kept: %+v", r)
			}
			if out, err := m.run("umount", m.dir); err == nil || !strings.Contains(out, r.ID) {
				t.Fatalf("umount: %v, %s", err, out)
			}
			if out, err := m.run("rescue", "commit", r.ID); err == nil {
				t.Errorf("commit while the store refuses: %s", out)
			}
			s.ClearFaults()
			out, err := m.run("rescue", verb, r.ID)
			if err != nil {
				t.Fatalf("%s: %v, %s", verb, err, out)
			}
			if verb == "commit" && other.get(t, "bucket", "f") != string(data) {
				t.Error("the store has other bytes")
			}
			if n, u := len(m.rescued()), len(uploads(t, m)); n+u != 0 {
				t.Errorf("after %s %d things and %d uploads are still kept", verb, n, u)
			}
		}
	}
	refuse(s)
	m.failing(os.O_WRONLY|os.O_TRUNC, inOrder([]byte("lost")), syscall.EACCES)
	out, err := m.run("umount", "--discard", m.dir)
	if err == nil || !strings.Contains(out, "bucket/f: only this mount has it") {
		t.Errorf("umount --discard: %v, %s", err, out)
	}
	m.waitExit(10 * time.Second)
}

// TestRescueKeyFile: data is sealed under the key of a file, if there is one.
func TestRescueKeyFile(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(keyFile, random(t, 32), 0o600))
	m, s := bucketMount(t, "--rescue-key-file", keyFile)
	refuse(s)
	m.failing(os.O_WRONLY|os.O_CREATE, inOrder([]byte("data")), syscall.EACCES)
	s.ClearFaults()
	r := m.onlyRescued()
	if !strings.Contains(r.Error, "which is not here") || r.Key != "" {
		t.Errorf("without its key: %+v", r)
	}
	if out, err := m.run("rescue", "commit", r.ID); err == nil {
		t.Errorf("commit without the key: %s", out)
	}
	if r = m.onlyRescued("--rescue-key-file", keyFile); r.Error != "" || r.Key != "f" {
		t.Errorf("with its key: %+v", r)
	}
	out, err := m.run("rescue", "commit", "--rescue-key-file", keyFile, r.ID)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want(t, m.path("bucket", "f"), "data")
}

// TestRescueAfterRun: a job's end does not wait for anybody to decide.
func TestRescueAfterRun(t *testing.T) {
	s := startEmulator(t, "aws")
	env := append(baseEnv(t), s.Env()...)
	if code, _, errs := coffers(t, env, "mb", "s3://bucket"); code != 0 {
		t.Fatal(errs)
	}
	refuse(s)
	for mode, says := range map[string]string{"file": "kept, not stored: coffer rescue commit /", "mount": "bucket/f: only this mount has it"} {
		begun := time.Now()
		code, _, errs := coffers(t, env, "run", "--rescue", mode, "s3://bucket", "--", "sh", "-c", `! cp /proc/version "$COFFER_MNT/f"`)
		if !strings.Contains(errs, says) {
			t.Errorf("--rescue %s: %s", mode, errs)
		}
		if want := map[string]int{"file": 0, "mount": 125}[mode]; code != want {
			t.Errorf("--rescue %s: exit code %d, want %d: %s", mode, code, want, errs)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("--rescue %s: it took %v", mode, took)
		}
	}
}

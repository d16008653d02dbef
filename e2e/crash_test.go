package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// objects are what a bucket holds, markers of directories left out.
type objects map[string]string

// String names the objects with the beginnings of their bytes.
func (o objects) String() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(o)) {
		fmt.Fprintf(&b, "%s has %s\n", key, brief(o[key]))
	}
	return b.String()
}

// objects returns what "bucket" holds.
func (i independent) objects(t testing.TB) objects {
	t.Helper()
	got := objects{}
	for key := range i.keys(t, "bucket") {
		if !strings.HasSuffix(key, "/") {
			got[key] = i.get(t, "bucket", key)
		}
	}
	return got
}

// anyOf accepts each of some states.
func anyOf(states ...objects) func(objects) bool {
	return func(got objects) bool {
		return slices.ContainsFunc(states, func(o objects) bool { return maps.Equal(o, got) })
	}
}

// crash is a moment at which the daemon dies, and what may be in the bucket then.
type crash struct {
	name   string
	before objects
	// verb and key choose the request at which it dies; with no verb it dies
	// when do has returned, which leaves its files open.
	verb, key string
	do        func(t *testing.T, m *mount) error
	want      func(objects) bool
}

// TestCrash kills the daemon in every state that a file can be in and in the
// middle of everything that writes, at a moment that the store's requests tell:
// when one has arrived that the emulator is made to hold back. Afterwards every
// object is the old or the new one, whole; a mount over the dead one works, and
// ends the uploads that were under way. Nothing readable stays on this machine.
func TestCrash(t *testing.T) {
	t.Parallel()
	fresh, long := random(t, largeSize), random(t, 24<<20)
	old := string(oldData)
	changed := bytes.Clone(long)
	copy(changed[12<<20:], "CHANGED")
	dir := func(top string) objects {
		o := objects{}
		for i := range 5 {
			o[fmt.Sprint(top, "/", i)] = fmt.Sprint("data ", i)
		}
		return o
	}
	// open leaves a file open that the daemon knows more of than the store.
	open := func(writes func(f *os.File) error) func(*testing.T, *mount) error {
		return func(t *testing.T, m *mount) error {
			f, err := os.OpenFile(m.path("bucket", "there"), os.O_RDWR, 0)
			must(t, err)
			t.Cleanup(func() { f.Close() })
			return writes(f)
		}
	}
	overwrite := func(n int) func(*testing.T, *mount) error {
		return func(_ *testing.T, m *mount) error {
			return os.WriteFile(m.path("bucket", "there"), fresh[:n], 0o644)
		}
	}
	change := func(off int64) func(*testing.T, *mount) error {
		return open(func(f *os.File) error {
			_, err := f.WriteAt([]byte("CHANGED"), off)
			return errors.Join(err, f.Sync())
		})
	}
	rename := func(from, to string) func(*testing.T, *mount) error {
		return func(_ *testing.T, m *mount) error {
			return os.Rename(m.path("bucket", from), m.path("bucket", to))
		}
	}
	was := objects{"there": old}
	scratch := t.TempDir()
	t.Run("states", func(t *testing.T) {
		for _, tc := range []crash{
			{"clean", was, "", "", open(func(*os.File) error { return nil }), anyOf(was)},
			{"buffered", was, "", "", open(func(f *os.File) error {
				return errors.Join(f.Truncate(0), second(f.Write(fresh[:100_000])))
			}), anyOf(was)},
			{"streaming", was, "", "", open(func(f *os.File) error {
				return errors.Join(f.Truncate(0), second(f.Write(fresh)))
			}), anyOf(was)},
			{"staged", was, "", "", open(func(f *os.File) error {
				return second(f.WriteAt(fresh[:3<<20], 50_000))
			}), anyOf(was)},
			{"unlinked", was, "", "", func(t *testing.T, m *mount) error {
				return errors.Join(open(func(*os.File) error { return nil })(t, m), os.Remove(m.path("bucket", "there")))
			}, anyOf(was)},
			{"put", was, "PutObject", "there", overwrite(100_000), anyOf(was, objects{"there": string(fresh[:100_000])})},
			{"upload begins", was, "CreateMultipartUpload", "there", overwrite(largeSize), anyOf(was)},
			{"part", was, "UploadPart", "there", overwrite(largeSize), anyOf(was)},
			{"complete", was, "CompleteMultipartUpload", "there", overwrite(largeSize), anyOf(was, objects{"there": string(fresh)})},
			{"truncate", was, "PutObject", "there", func(_ *testing.T, m *mount) error {
				return os.Truncate(m.path("bucket", "there"), 1000)
			}, anyOf(was, objects{"there": old[:1000]})},
			{"change in the middle", was, "PutObject", "there", change(50_000),
				anyOf(was, objects{"there": old[:50_000] + "CHANGED" + old[50_007:]})},
			{"copy of a part", objects{"there": string(long)}, "UploadPartCopy", "there", change(12 << 20), anyOf(objects{"there": string(long)})},
			{"complete of a changed part", objects{"there": string(long)}, "CompleteMultipartUpload", "there", change(12 << 20),
				anyOf(objects{"there": string(long)}, objects{"there": string(changed)})},
			{"rename, copy", was, "CopyObject", "moved", rename("there", "moved"), anyOf(was, objects{"there": old, "moved": old})},
			{"rename, delete", was, "DeleteObject", "there", rename("there", "moved"),
				anyOf(objects{"there": old, "moved": old}, objects{"moved": old})},
			{"rename of a directory, copy", dir("dir"), "CopyObject", "to/3", rename("dir", "to"), func(got objects) bool {
				return holds(got, dir("dir")) && isPart(got, dir("dir"), dir("to"))
			}},
			{"rename of a directory, delete", dir("dir"), "DeleteObjects", "", rename("dir", "to"), func(got objects) bool {
				return holds(got, dir("to")) && isPart(got, dir("dir"), dir("to"))
			}},
			{"remove", was, "DeleteObject", "there", func(_ *testing.T, m *mount) error {
				return os.Remove(m.path("bucket", "there"))
			}, anyOf(was, objects{})},
		} {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel() // most of the time is waiting
				tc.run(t, filepath.Join(scratch, strings.ReplaceAll(tc.name, " ", "-")))
			})
		}
	})
	w := &windows{}
	w.add(fresh, nil)
	w.add(long, nil)
	w.wantNone(t, "the scratch directories", scratch)
}

// second drops the first of two results.
func second[T any](_ T, err error) error { return err }

// holds reports whether all of want is in got.
func holds(got, want objects) bool { return isPart(want, got) }

// isPart reports whether all of o is in some of the others.
func isPart(o objects, others ...objects) bool {
	for key, data := range o {
		if !slices.ContainsFunc(others, func(e objects) bool { return e[key] == data }) {
			return false
		}
	}
	return true
}

func (tc crash) run(t *testing.T, scratch string) {
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	for key, data := range tc.before {
		other.put(t, "bucket", key, data)
	}
	must(t, os.Mkdir(scratch, 0o700))
	m := mountStore(t, s.Env(), "--scratch-dir", scratch)
	write(t, m.path("bucket", "committed"), "committed")
	s.ResetRequests()
	if tc.verb == "" {
		must(t, tc.do(t, m))
		m.kill()
	} else {
		// The request arrives, is held back, and then carried out although
		// nobody waits for the answer any more.
		s.Inject(emulator.Fault{Verb: tc.verb, KeyPattern: tc.key, Delay: 2 * time.Second})
		done := make(chan error, 1)
		go func() { done <- tc.do(t, m) }()
		await(t, "the request", func() bool { return s.Strikes() > 0 })
		m.kill()
		select {
		case err := <-done:
			if err == nil {
				t.Error("the program was told of a success that never came")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the program still waits for a daemon that is dead")
		}
		await(t, "the end of the request", func() bool { return count(s, tc.verb, "") > 0 })
		s.ClearFaults()
	}
	_, err := os.ReadDir(m.dir)
	wantErrno(t, "readdir of a dead mount", err, syscall.ENOTCONN)

	m.start("--scratch-dir", scratch) // over the dead mount
	got := other.objects(t)
	delete(got, "committed")
	for key := range got {
		if strings.HasPrefix(key, notePrefix) {
			delete(got, key) // of a rename, for whoever finishes it; no mount shows it
		}
	}
	if !tc.want(got) {
		t.Errorf("after the crash neither the old nor a new state: %s", got)
	}
	for key, data := range got {
		want(t, m.path("bucket", key), data)
	}
	want(t, m.path("bucket", "committed"), "committed")
	write(t, m.path("bucket", "afterwards"), "works")
	uploads := func() (n int) {
		for u := range other.c.ListIncompleteUploads(t.Context(), "bucket", "", true) {
			must(t, u.Err)
			n++
		}
		return n
	}
	if tc.verb != "CreateMultipartUpload" { // whose answer never came: nobody knows that one
		await(t, "the end of the dead daemon's uploads", func() bool { return uploads() == 0 })
	}
	m.stop()
	if out, err := m.run("check", "--uploads", "--abort-stale", "--older-than", "0s", "s3://bucket"); err != nil {
		t.Errorf("check --uploads: %v\n%s", err, out)
	}
	if n := uploads(); n > 0 {
		t.Errorf("%d uploads are left", n)
	}
}

// await waits for what will come; twenty seconds of it are a failure.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// TestCrashAnywhere kills the daemon at moments of no particular choice while
// four programs overwrite files: each file is whole, and of a version that was
// not older than the last one whose close succeeded.
func TestCrashAnywhere(t *testing.T) {
	s := startEmulator(t, "aws")
	m := mountStore(t, s.Env())
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	other := client(t, s.Env())
	const writers = 4
	content := func(w, version int) []byte {
		return bytes.Repeat([]byte(fmt.Sprintf("%d:%08d ", w, version)), 2000+w*40_000)
	}
	// Each writer's versions go on over the crashes; -1 is none yet.
	var acknowledged, attempted [writers]int
	for w := range writers {
		acknowledged[w], attempted[w] = -1, -1
	}
	for round := range 6 {
		done := make(chan int, writers)
		for w := range writers {
			go func() {
				defer func() { done <- w }()
				for {
					attempted[w]++
					if os.WriteFile(m.path("bucket", fmt.Sprint("f", w)), content(w, attempted[w]), 0o644) != nil {
						return
					}
					acknowledged[w] = attempted[w]
				}
			}()
		}
		time.Sleep(time.Duration(50+round*67) * time.Millisecond)
		m.kill()
		for range writers {
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("a program still waits for a daemon that is dead")
			}
		}
		m.start()
		for w := range writers {
			name := fmt.Sprint("f", w)
			got := []byte(other.get(t, "bucket", name))
			ok := acknowledged[w] < 0 && len(got) == 0
			for v := max(0, acknowledged[w]); v <= attempted[w]; v++ {
				ok = ok || bytes.Equal(got, content(w, v))
			}
			if !ok {
				t.Errorf("round %d: %s holds %d bytes (%.20q), neither version %d nor %d", round, name, len(got), got, acknowledged[w], attempted[w])
			}
			if len(got) > 0 {
				want(t, m.path("bucket", name), string(got))
			}
		}
	}
}

// TestMountOverDeadMount replaces a mount whose daemon is gone, and removes one.
func TestMountOverDeadMount(t *testing.T) {
	s := startEmulator(t, "aws")
	m := mountStore(t, s.Env())
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	write(t, m.path("bucket", "f"), "data")
	m.kill()
	_, err := os.ReadDir(m.dir)
	wantErrno(t, "readdir of a dead mount", err, syscall.ENOTCONN)
	m.start()
	want(t, m.path("bucket", "f"), "data")
	m.kill()
	// It is taken away; but nobody knows what its daemon had still to write.
	if out, err := m.run("umount", m.dir); err == nil || !strings.Contains(out, "killed") {
		t.Errorf("umount of a dead mount: %v, want a failure that tells of the killed daemon\n%s", err, out)
	}
	if mounted(m.dir) {
		t.Error("the dead mount is still there")
	}
	m.start()
	want(t, m.path("bucket", "f"), "data")
	m.stop()
}

// TestForcedUnmount ends a mount under open files: the kernel then tells of no
// close any more, and may drop the last ones of an unmount in any case.
func TestForcedUnmount(t *testing.T) {
	needRoot(t, "only root can umount -f")
	m, s := bucketMount(t)
	data := random(t, 12<<20)
	for _, name := range []string{"read", "unlinked"} {
		must(t, os.WriteFile(m.path("bucket", name), data, 0o644))
	}
	read, err := os.Open(m.path("bucket", "read"))
	must(t, err)
	defer read.Close()
	_, err = io.ReadFull(read, make([]byte, 5<<20))
	must(t, err)
	unlinked, err := os.Open(m.path("bucket", "unlinked"))
	must(t, err)
	defer unlinked.Close()
	must(t, os.Remove(m.path("bucket", "unlinked")))
	for name, n := range map[string]int{"small": 1000, "large": 9 << 20, "staged": 100} {
		f, err := os.Create(m.path("bucket", name))
		must(t, err)
		defer f.Close()
		_, err = f.Write(data[:n])
		must(t, err)
		if name == "staged" {
			_, err = f.WriteAt(data[5000:5010], 5000)
			must(t, err)
		}
	}
	must(t, syscall.Unmount(m.dir, syscall.MNT_FORCE|syscall.MNT_DETACH))
	m.waitExit(30 * time.Second)
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the mount ended with exit code %d\n%s", code, m.log)
	}
	// What was written is in the store, and what was unlinked is not.
	staged := make([]byte, 5010)
	copy(staged, data[:100])
	copy(staged[5000:], data[5000:5010])
	other := client(t, s.Env())
	for name, want := range map[string][]byte{"read": data, "small": data[:1000], "large": data[:9<<20], "staged": staged} {
		if got := other.get(t, "bucket", name); got != string(want) {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
	if keys := other.keys(t, "bucket"); len(keys) != 4 {
		t.Errorf("the bucket holds %v", keys)
	}
}

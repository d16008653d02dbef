package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// TestCrash kills the daemon in the middle of everything that writes, at a
// moment that the store's requests tell: when one has arrived that the emulator
// is made to hold back. Afterwards every object is the old or the new one,
// whole, and a mount over the dead one works.
func TestCrash(t *testing.T) {
	t.Parallel()
	fresh := random(t, largeSize)
	old := string(oldData)
	type state struct{ there, moved string } // "" is absent
	for _, tc := range []struct {
		name string
		verb string // the request at which the daemon dies
		do   func(m *mount) error
		want []state // any of them
	}{
		{"before anything", "", func(*mount) error { return nil }, []state{{old, ""}}},
		{"overwrite", "PutObject", func(m *mount) error {
			return os.WriteFile(m.path("bucket", "there"), fresh[:100_000], 0o644)
		}, []state{{old, ""}, {string(fresh[:100_000]), ""}}},
		{"upload begins", "CreateMultipartUpload", func(m *mount) error {
			return os.WriteFile(m.path("bucket", "there"), fresh, 0o644)
		}, []state{{old, ""}}},
		{"part", "UploadPart", func(m *mount) error {
			return os.WriteFile(m.path("bucket", "there"), fresh, 0o644)
		}, []state{{old, ""}}},
		{"complete", "CompleteMultipartUpload", func(m *mount) error {
			return os.WriteFile(m.path("bucket", "there"), fresh, 0o644)
		}, []state{{old, ""}, {string(fresh), ""}}},
		{"truncate", "PutObject", func(m *mount) error {
			return os.Truncate(m.path("bucket", "there"), 1000)
		}, []state{{old, ""}, {old[:1000], ""}}},
		{"change in the middle", "PutObject", func(m *mount) error {
			f, err := os.OpenFile(m.path("bucket", "there"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("CHANGED"), 50_000); err != nil {
				return err
			}
			return f.Sync()
		}, []state{{old, ""}, {old[:50_000] + "CHANGED" + old[50_007:], ""}}},
		{"rename, copy", "CopyObject", func(m *mount) error {
			return os.Rename(m.path("bucket", "there"), m.path("bucket", "moved"))
		}, []state{{old, ""}, {old, old}}},
		{"rename, delete", "DeleteObject", func(m *mount) error {
			return os.Rename(m.path("bucket", "there"), m.path("bucket", "moved"))
		}, []state{{old, old}, {"", old}}},
		{"remove", "DeleteObject", func(m *mount) error {
			return os.Remove(m.path("bucket", "there"))
		}, []state{{old, ""}, {"", ""}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // most of the time is waiting
			s := startEmulator(t, "aws")
			other := client(t, s.Env())
			other.makeBucket(t, "bucket")
			other.put(t, "bucket", "there", old)
			m := mountStore(t, s.Env())
			must(t, os.WriteFile(m.path("bucket", "committed"), fresh[:5000], 0o644))
			s.ResetRequests()
			if tc.verb != "" {
				// The request arrives, is held back, and then carried out
				// although nobody waits for the answer any more.
				for _, key := range []string{"there", "moved"} { // and no scratch object
					s.Inject(emulator.Fault{Verb: tc.verb, KeyPattern: key, Delay: 2 * time.Second})
				}
			}
			done := make(chan error, 1)
			go func() { done <- tc.do(m) }()
			time.Sleep(700 * time.Millisecond)
			m.kill()
			select {
			case err := <-done:
				if err == nil && tc.verb != "" {
					t.Error("the program was told of a success that never came")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the program still waits for a daemon that is dead")
			}
			time.Sleep(2 * time.Second) // what was held back is done by now
			s.ClearFaults()
			_, err := os.ReadDir(m.dir)
			wantErrno(t, "readdir of a dead mount", err, syscall.ENOTCONN)

			m.start() // over the dead mount
			got := state{other.get(t, "bucket", "there"), other.get(t, "bucket", "moved")}
			ok := false
			for _, w := range tc.want {
				ok = ok || got == w
			}
			if !ok {
				t.Errorf("after the crash: %d bytes as there, %d as moved: neither the old nor the new state", len(got.there), len(got.moved))
			}
			for name, data := range map[string]string{"there": got.there, "moved": got.moved, "committed": string(fresh[:5000])} {
				if data == "" {
					absent(t, m.path("bucket", name))
				} else {
					want(t, m.path("bucket", name), data)
				}
			}
			must(t, os.WriteFile(m.path("bucket", "afterwards"), []byte("works"), 0o644))
			m.stop()
			if out, err := m.run("check", "--uploads", "s3://bucket"); err != nil {
				t.Errorf("check --uploads: %v\n%s", err, out)
			}
		})
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

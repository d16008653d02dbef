package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// atRestJob writes unique random data in every way that can bring it to rest
// somewhere: small files, a multipart file, a staged file with random writes,
// copies, reads through the cache; and in the end, a process that is killed
// with a stage and an upload under way. It returns the windows of all of it.
func atRestJob(t *testing.T, env []string, scratch string, more ...string) (*mount, *windows) {
	t.Helper()
	logFile := filepath.Join(scratch, "log") // beside the scratch files, scanned with them
	args := []string{"--allow-unencrypted", "--scratch-dir", scratch, "--log-file", logFile, "--log-level", "debug"}
	args = append(args, more...)
	m := mountStore(t, env, args...)
	w := &windows{}
	fresh := func(n int) []byte {
		data := random(t, n)
		w.add(data, nil)
		return data
	}
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	for i := range 60 {
		must(t, os.WriteFile(m.path("bucket", fmt.Sprintf("small-%d", i)), fresh(i*i*20+16), 0o644))
	}
	must(t, os.WriteFile(m.path("bucket", "multipart"), fresh(20<<20), 0o644))
	must(t, os.Rename(m.path("bucket", "multipart"), m.path("bucket", "renamed")))

	staged, err := os.OpenFile(m.path("bucket", "staged"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = staged.Write(fresh(6 << 20))
	must(t, err)
	for i := range 20 {
		_, err = staged.WriteAt(fresh(100_000), int64(i*290_001))
		must(t, err)
	}
	if _, err := staged.ReadAt(make([]byte, 1<<20), 12345); err != nil {
		t.Fatal(err)
	}
	m.scanOpenScratch(t, w, scratch)
	must(t, staged.Close())

	m.stop()
	m.start(args...)
	for _, name := range []string{"renamed", "staged", "small-59"} {
		if _, err := os.ReadFile(m.path("bucket", name)); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := os.Create(m.path("bucket", "stream"))
	must(t, err)
	defer stream.Close()
	_, err = stream.Write(fresh(20 << 20))
	must(t, err)
	staged, err = os.OpenFile(m.path("bucket", "renamed"), os.O_RDWR, 0)
	must(t, err)
	defer staged.Close()
	_, err = staged.WriteAt(fresh(3<<20), 7777)
	must(t, err)
	m.scanOpenScratch(t, w, scratch)
	m.kill()
	if st, err := os.Stat(logFile); err != nil || st.Size() == 0 {
		t.Errorf("no log to look into: %v", err)
	}
	return m, w
}

// scanOpenScratch looks into the daemon's scratch files while they are open;
// they have no names. It fails when there is none: then nothing was staged and
// the test would prove nothing.
func (m *mount) scanOpenScratch(t *testing.T, w *windows, scratch string) {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.cmd.Process.Pid))
	must(t, err)
	files, total := 0, int64(0)
	found := map[[windowBytes]byte]bool{}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(target, scratch) || target == filepath.Join(scratch, "log") {
			continue
		}
		f, err := os.Open(fd)
		must(t, err)
		n, err := w.findIn(f, found)
		f.Close()
		must(t, err)
		files++
		total += n
	}
	if os.Getuid() != 0 && files == 0 {
		t.Log("the daemon's open files can only be looked into by root: not scanned")
		return
	}
	if files == 0 || total == 0 {
		t.Errorf("%d scratch files with %d bytes: nothing is staged", files, total)
	}
	if len(found) > 0 {
		t.Errorf("%d windows of plaintext in scratch files", len(found))
	}
}

// TestAtRest scans everything that a mount of an encrypting store leaves on
// disks: the server's directory, the scratch directory, the user's home with
// logs and sockets.
func TestAtRest(t *testing.T) {
	dir, scratch := filepath.Join(t.TempDir(), "emulator"), t.TempDir()
	s := startEmulatorIn(t, "aws", dir)
	m, w := atRestJob(t, s.Env(), scratch)
	w.wantNone(t, "the server's directory", dir)
	w.wantNone(t, "the scratch directory and the log", scratch)
	w.wantNone(t, "home and sockets", m.home())
}

// TestAtRestClientSide is TestAtRest where only this side encrypts.
func TestAtRestClientSide(t *testing.T) {
	dir, scratch := filepath.Join(t.TempDir(), "emulator"), t.TempDir()
	s := startEmulatorIn(t, "nosse", dir)
	m, w := atRestJob(t, s.Env(), scratch, "--cse-keyring", keyringFile(t))
	w.wantNone(t, "the server's directory", dir)
	w.wantNone(t, "the scratch directory and the log", scratch)
	w.wantNone(t, "home and sockets", m.home())
}

// TestAtRestFindsPlaintext is the control: the same job on a store that keeps
// plaintext shows every window of what was committed. Without it a blind
// scanner would pass TestAtRest.
func TestAtRestFindsPlaintext(t *testing.T) {
	dir, scratch := filepath.Join(t.TempDir(), "emulator"), t.TempDir()
	s := startEmulatorIn(t, "nosse", dir)
	_, w := atRestJob(t, s.Env(), scratch)
	found, _, _ := w.scan(t, dir)
	// Overwritten parts of the staged file and the data of the killed process
	// are not all there: but the rest, 26 of 52 MiB, must be.
	if len(found) < 25<<20/windowBytes {
		t.Errorf("only %d of %d windows are found where plaintext lies", len(found), len(w.all))
	}
	w.wantNone(t, "the scratch directory and the log", scratch)
}

// home returns the directory that the mount's process has as home and for
// temporary files.
func (m *mount) home() string {
	for _, v := range m.env {
		if dir, ok := strings.CutPrefix(v, "HOME="); ok {
			return dir
		}
	}
	m.t.Fatal("no HOME in the environment of the mount")
	return ""
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

// What the mount settles with the kernel, and what the kernel makes of it.

func TestKernelCapabilities(t *testing.T) {
	m, _ := bucketMount(t, "--log-level", "debug")
	must(t, os.WriteFile(m.path("bucket", "f"), random(t, 3<<20), 0o644))
	m.stop()
	m.start("--log-level", "debug")
	if _, err := os.ReadFile(m.path("bucket", "f")); err != nil {
		t.Fatal(err)
	}
	init := regexp.MustCompile(`tx \d+:\s+OK, \{7\.\d+ [^}]*\}`).FindString(m.log.String())
	for _, has := range []string{"ATOMIC_O_TRUNC", "EXPLICIT_INVAL_DATA", "ASYNC_READ", "PARALLEL_DIROPS", "READDIRPLUS", "Wr 1048576"} {
		if !strings.Contains(init, has) {
			t.Errorf("%s is not settled: %s", has, init)
		}
	}
	// Kernel write-back would hold dirty pages that no commit knows of, see
	// BENCH.md; with READDIRPLUS_AUTO the kernel would choose which names come with
	// attributes, where only we know what they cost;
	// automatic invalidation would drop pages whenever a time changes.
	for _, not := range []string{"WRITEBACK_CACHE", "READDIRPLUS_AUTO", "AUTO_INVAL_DATA", "SPLICE_WRITE", "POSIX_LOCKS", "OVER_IO_URING"} {
		if strings.Contains(init, not) {
			t.Errorf("%s is settled: %s", not, init)
		}
	}
	if strings.Contains(m.log.String(), "splice") || strings.Contains(m.log.String(), "trySplice") {
		t.Error("replies are spliced")
	}
}

// The kernel reads a MiB ahead where root has mounted, and as it always does
// elsewhere, which is no reason to fail.
func TestKernelReadsAhead(t *testing.T) {
	m := mountStore(t, startEmulator(t, "aws").Env())
	var st syscall.Stat_t
	must(t, syscall.Stat(m.dir, &st))
	want := "128\n"
	if os.Getuid() == 0 {
		want = "1024\n"
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it is served before that is set
		text, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev)))
		must(t, err)
		if string(text) == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the kernel reads %q KiB ahead, not %q", text, want)
		}
	}
}

// A reply pins the blocks that it is made of until the kernel has its copy
// (ReadResult.Done): were one kept, a small budget would be used up soon.
func TestRepliesGiveTheirBlocksBack(t *testing.T) {
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	other.put(t, "bucket", "f", string(random(t, 160<<20)))
	m := mountStore(t, s.Env(), "--memory", "64MiB", "--read-only")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		if out, err := exec.CommandContext(ctx, "cksum", m.path("bucket", "f")).CombinedOutput(); err != nil {
			t.Fatalf("cksum: %v\n%s", err, out)
		}
	}
	// What is counted and not cached is held by nobody once all is closed; the
	// kernel tells of a close later.
	deadline := time.Now().Add(10 * time.Second)
	for {
		st := m.status()
		if st.OpenHandles == 0 && st.Cache.BudgetBytes == st.Cache.CachedBytes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d handles are open, %d bytes in use, %d of them cached", st.OpenHandles, st.Cache.BudgetBytes, st.Cache.CachedBytes)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestKernelCachesNoNegativeEntries(t *testing.T) {
	m, _ := bucketMount(t, "--metadata-ttl", "1h")
	absent(t, m.path("bucket", "f"))
	client(t, m.env).put(t, "bucket", "f", "data")
	want(t, m.path("bucket", "f"), "data")
}

// TestLocks: the kernel keeps locks of a mount, whole files' and ranges'.
func TestLocks(t *testing.T) {
	m, _ := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	open := func() *os.File {
		f, err := os.OpenFile(m.path("bucket", "f"), os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	a, b := open(), open()
	must(t, unix.Flock(int(a.Fd()), unix.LOCK_EX))
	wantErrno(t, "flock of a locked file", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK)
	must(t, unix.Flock(int(a.Fd()), unix.LOCK_UN))
	must(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	must(t, unix.Flock(int(b.Fd()), unix.LOCK_UN))

	lock := func(f *os.File, start int64) error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 1})
	}
	must(t, lock(a, 0))
	must(t, lock(b, 1))
	wantErrno(t, "fcntl of a locked range", lock(b, 0), syscall.EAGAIN)
	must(t, a.Close())
	must(t, lock(b, 0))
}

func TestModeZeroIsModeZero(t *testing.T) {
	m, _ := bucketMount(t)
	p := m.path("bucket", "f")
	write(t, p, "data")
	must(t, os.Chmod(p, 0))
	must(t, os.Mkdir(m.path("bucket", "d"), 0))
	m.stop()
	m.start()
	for _, p := range []string{p, m.path("bucket", "d")} {
		st, err := os.Stat(p)
		must(t, err)
		if st.Mode().Perm() != 0 {
			t.Errorf("%s shows mode %v", p, st.Mode())
		}
	}
}

func TestKernelChecksPermissions(t *testing.T) {
	needRoot(t, "only root can become two other users")
	m, _ := bucketMount(t, "--allow-other")
	for dir := m.dir; dir != "/"; dir = dir[:max(1, strings.LastIndexByte(dir, '/'))] {
		st, err := os.Stat(dir)
		must(t, err)
		// Only ever opened: /tmp above keeps its sticky bit and stays
		// writable for everybody.
		if st.Mode()&0o055 == 0o055 {
			continue
		}
		if err := os.Chmod(dir, st.Mode()|0o055); err != nil && !errors.Is(err, syscall.EPERM) {
			t.Fatal(err)
		}
	}
	p := m.path("bucket", "private")
	write(t, p, "data")
	must(t, os.Chmod(p, 0o600))
	must(t, os.Chown(p, 1234, 1234))
	read := func(uid uint32) error {
		cmd := exec.Command("cat", p)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	if err := read(1234); err != nil {
		t.Errorf("the owner cannot read: %v", err)
	}
	if err := read(1235); err == nil {
		t.Error("another user reads a file of mode 0600")
	}
}

func TestListingNamesCostsNoHead(t *testing.T) {
	m, s := bucketMount(t)
	for i := range 300 {
		write(t, m.path("bucket", fmt.Sprint(i)), "x")
	}
	m.stop()
	m.start()
	s.ResetRequests()
	// ls, which takes names as they are; os.ReadDir would ask for every type
	// that is not told.
	if out, err := exec.Command("ls", m.path("bucket")).CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 300 {
		t.Errorf("ls: %v\n%.300s", err, out)
	}
	if n := count(s, "HeadObject", ""); n != 0 {
		t.Errorf("listing the names of 300 files cost %d HEADs", n)
	}
}

func TestHeadsOfListingRunAhead(t *testing.T) {
	m, s := bucketMount(t)
	const files = 300
	for i := range files {
		write(t, m.path("bucket", fmt.Sprint(i)), "x")
	}
	m.stop()
	m.start()
	const delay = 50 * time.Millisecond
	s.Inject(emulator.Fault{Verb: "HeadObject", Delay: delay})
	s.ResetRequests()
	if out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput(); err != nil {
		t.Fatalf("ls -l: %v\n%s", err, out)
	}
	var heads []time.Time
	for _, r := range s.Requests() {
		if r.Verb == "HeadObject" {
			heads = append(heads, r.Time)
		}
	}
	if len(heads) < files || len(heads) > files+5 {
		t.Errorf("%d HEADs for %d files", len(heads), files)
	}
	most := 0
	for _, from := range heads {
		n := 0
		for _, at := range heads {
			if !at.Before(from) && at.Sub(from) < delay {
				n++
			}
		}
		most = max(most, n)
	}
	if most < 32 {
		t.Errorf("at most %d HEADs were under way together", most)
	}
	s.ClearFaults()
	s.ResetRequests()
	if out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput(); err != nil {
		t.Fatalf("ls -l: %v\n%s", err, out)
	}
	if n := count(s, "HeadObject", ""); n != 0 {
		t.Errorf("ls -l of the same files again cost %d HEADs", n)
	}
}

// TestSignalsOfGoDoNotInterrupt lets a lookup take long while this process, a
// Go program, gets SIGURG as its own scheduler would send it.
func TestSignalsOfGoDoNotInterrupt(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	m.stop()
	m.start()
	s.Inject(emulator.Fault{Verb: "HeadObject", Delay: 500 * time.Millisecond})
	s.ResetRequests()
	done := make(chan error)
	tid := make(chan int)
	go func() {
		tid <- unix.Gettid()
		var st unix.Stat_t
		done <- unix.Stat(m.path("bucket", "f"), &st) // no retry of EINTR
	}()
	thread := <-tid
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("stat: %v", err)
			}
			if n := count(s, "HeadObject", "f"); n != 1 {
				t.Errorf("%d HEADs", n)
			}
			return
		case <-time.After(5 * time.Millisecond):
			_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG)
		}
	}
}

func TestKillEndsAWaitingLookup(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	m.stop()
	m.start()
	s.Inject(emulator.Fault{Verb: "HeadObject", Stall: true}, emulator.Fault{Verb: "ListObjectsV2", Stall: true})
	cmd := exec.Command("stat", m.path("bucket", "f"))
	must(t, cmd.Start())
	time.Sleep(300 * time.Millisecond)
	must(t, cmd.Process.Signal(os.Interrupt))
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		t.Error("Ctrl-C does not end a stat that waits for a dead store")
	}
	s.ClearFaults()
	write(t, m.path("bucket", "g"), "data") // the mount is as good as before
	want(t, m.path("bucket", "g"), "data")
}

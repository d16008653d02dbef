package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// Both builds of the program, each made once and only when a test wants it.
var (
	program      = sync.OnceValues(func() (string, error) { return build(raceEnabled && os.Getenv("COFFER_E2E_RACE") != "0") })
	plainProgram = sync.OnceValues(func() (string, error) { return build(os.Getenv("COFFER_E2E_RACE") == "1") })
)

// buildDir holds the builds; it is removed when all tests have run.
var buildDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "coffer-e2e-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755) // other users run the program, too
})

// build makes the coffer binary.
func build(race bool) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, fmt.Sprintf("race-%v", race), "coffer")
	args := []string{"build", "-o", bin}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "coffer/cmd/coffer")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}

func TestMain(m *testing.M) {
	flag.Parse()
	// Tests that run in parallel are those that wait, for a fault to pass or
	// a deadline: more of them at a time than there are processors.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("8") // a number, which it takes
	}
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// coffer returns the path of the built program, with the race detector when
// the tests have it (COFFER_E2E_RACE=0 turns that off).
func coffer(t testing.TB) string {
	t.Helper()
	bin, err := program()
	must(t, err)
	return bin
}

// plainCoffer returns the path of the program as users get it, without the
// race detector even where the tests have it (COFFER_E2E_RACE=1 turns it on):
// for tests that move gigabytes, which the detector makes four times slower.
func plainCoffer(t testing.TB) string {
	t.Helper()
	bin, err := plainProgram()
	must(t, err)
	return bin
}

// needFUSE skips, loudly, or fails where no file system can be mounted.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		storetest.Missing(t, "no FUSE here: %v", err)
		return
	}
	f.Close()
}

// needRoot skips, loudly, what only root can do.
func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Getuid() != 0 {
		storetest.Skip(t, "%s", why)
	}
}

// goSources returns the sources of the Go toolchain, a real tree of more than
// 10,000 files that every machine has that runs these tests.
func goSources(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "src")
}

// startEmulator runs an S3 server in this process.
func startEmulator(t testing.TB, dialect string) *emulator.Server {
	t.Helper()
	return startEmulatorIn(t, dialect, filepath.Join(storetest.DataDir(t), "emulator"))
}

func startEmulatorIn(t testing.TB, dialect, dir string) *emulator.Server {
	t.Helper()
	s, err := emulator.New(emulator.Config{Dir: dir, Dialect: dialect})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return s
}

// mount is a mounted file system under test, served by a process of its own.
type mount struct {
	t   testing.TB
	bin string // the program; set before start
	dir string // the mount point
	cmd *exec.Cmd
	env []string
	log *syncBuffer

	exited chan struct{} // closed when the process has ended
}

// syncBuffer is a buffer that a process writes and a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// raceOptions make the race detector stop a program at the first race, and not
// sleep for a second at every exit.
const raceOptions = "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=0"

// baseEnv is what every process under test gets besides the store's own
// variables: nothing of the user's configuration.
func baseEnv(t testing.TB) []string {
	t.Helper()
	home := t.TempDir()
	env := []string{
		"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home, "XDG_RUNTIME_DIR=" + home,
		"AWS_EC2_METADATA_DISABLED=true", raceOptions, "LC_ALL=C.UTF-8",
	}
	if clientSide(t) {
		k, err := sharedKeyring()
		must(t, err)
		env = append(env, "COFFER_CSE_KEYRING="+k.file)
	}
	return env
}

// mountStore mounts in the foreground of a child process; args are flags and
// the source. The mount is ended when the test is.
func mountStore(t testing.TB, storeEnv []string, args ...string) *mount {
	t.Helper()
	return mountWith(t, coffer(t), storeEnv, args...)
}

// mountWith is mountStore with a build of the program.
func mountWith(t testing.TB, bin string, storeEnv []string, args ...string) *mount {
	t.Helper()
	needFUSE(t)
	if clientSide(t) && slices.Contains(args, "--cse-keyring") {
		t.Skip("it encrypts on this side in any case")
	}
	m := &mount{t: t, bin: bin, dir: filepath.Join(t.TempDir(), "mnt"), env: append(baseEnv(t), storeEnv...)}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.cleanup)
	m.start(args...)
	return m
}

// start serves m.dir, again after stop or kill.
func (m *mount) start(args ...string) {
	m.t.Helper()
	args = append([]string{"mount", "--foreground", "--log-level", "info"}, args...)
	m.cmd = exec.Command(m.bin, append(args, m.dir)...)
	m.cmd.Env = m.env
	m.log = &syncBuffer{}
	m.cmd.Stderr, m.cmd.Stdout = m.log, m.log
	// A test process that dies, by a panic or a time limit, runs no cleanup:
	// the kernel then tells the mount to end, which unmounts. It does so when
	// the thread that forked ends, so that thread waits for the child.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	m.exited = make(chan struct{})
	started := make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan struct{}) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(exited)
		}
	}(m.cmd, m.exited)
	if err := <-started; err != nil {
		m.t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for !serves(m.dir) {
		select {
		case <-m.exited:
			m.t.Fatalf("mount ended: %v\n%s", m.cmd.ProcessState, m.log)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("not mounted after 30 s\n%s", m.log)
		}
	}
}

// serves reports whether a living coffer file system is at dir; the mount of
// a daemon that was killed is still there, and answers nothing. It may be taken
// away between the two looks: then the answer is of the directory below.
func serves(dir string) bool {
	var st syscall.Statfs_t
	return mounted(dir) && syscall.Statfs(dir, &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
}

// mounted reports whether a coffer file system is at dir.
func mounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(mounts), " "+dir+" fuse.coffer ")
}

// stop ends the mount as a user would, and fails the test when it cannot.
func (m *mount) stop() {
	m.t.Helper()
	out, err := m.run("umount", m.dir)
	if err != nil {
		m.t.Fatalf("umount: %v\n%s\n%s", err, out, m.log)
	}
	m.waitExit(30 * time.Second)
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		m.t.Errorf("the mount ended with exit code %d\n%s", code, m.log)
	}
}

func (m *mount) waitExit(d time.Duration) {
	m.t.Helper()
	select {
	case <-m.exited:
	case <-time.After(d):
		m.t.Fatalf("the mount's process did not end within %v\n%s", d, m.log)
	}
}

// kill ends the process with SIGKILL, as the OOM killer would.
func (m *mount) kill() {
	m.t.Helper()
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		m.t.Fatal(err)
	}
	m.waitExit(10 * time.Second)
}

// run executes another coffer command in the environment of the mount.
func (m *mount) run(args ...string) (string, error) {
	m.t.Helper()
	return runCoffer(m.t, m.env, args...)
}

// runCoffer executes a coffer command and returns all that it printed.
func runCoffer(t testing.TB, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, coffer(t), args...)
	cmd.Env = env
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *mount) cleanup() {
	if m.cmd != nil && m.cmd.Process != nil {
		m.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-m.exited:
		case <-time.After(10 * time.Second):
			m.cmd.Process.Kill()
			<-m.exited
		}
		if m.cmd.ProcessState.ExitCode() == 66 || strings.Contains(m.log.String(), "DATA RACE") {
			m.t.Errorf("the race detector stopped the mount")
		}
	}
	if mounted(m.dir) {
		exec.Command("fusermount3", "-u", "-z", m.dir).Run()
	}
	if m.t.Failed() && m.log != nil {
		m.t.Logf("log of the mount:\n%s", lastLines(m.log.String(), 60))
	}
}

// lastLines returns the end of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{fmt.Sprintf("[%d lines before]", len(lines)-n)}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}

// path joins names below the mount point.
func (m *mount) path(names ...string) string {
	return filepath.Join(append([]string{m.dir}, names...)...)
}

// bucketMount is a mount of all buckets of a fresh emulator, with one bucket
// made through it.
func bucketMount(t testing.TB, args ...string) (*mount, *emulator.Server) {
	t.Helper()
	s := startEmulator(t, "aws")
	m := mountStore(t, s.Env(), args...)
	if err := os.Mkdir(m.path("bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m, s
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno fails the test unless err is the errno.
func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// status is what the daemon tells over its control socket.
type status struct {
	OpenHandles int        `json:"open_handles"`
	Cache       cacheStats `json:"cache"`
}

type cacheStats struct {
	Hits, Misses, Joins int64
	ReadBytes           int64 `json:"read_bytes"`
	Fetches             int64
	FetchedBytes        int64 `json:"fetched_bytes"`
	BudgetBytes         int64 `json:"budget_bytes"`
	CachedBytes         int64 `json:"cached_bytes"`
	DiskHits            int64 `json:"disk_hits"`
	DiskBytes           int64 `json:"disk_bytes"`
}

// reads returns how many bytes the daemon was asked for.
func (c cacheStats) reads() int64 { return c.ReadBytes }

func (m *mount) status() status {
	m.t.Helper()
	out, err := m.run("status", m.dir)
	if err != nil {
		m.t.Fatalf("status: %v\n%s", err, out)
	}
	var reply struct {
		Status *status `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil || reply.Status == nil {
		m.t.Fatalf("status: %v\n%s", err, out)
	}
	return *reply.Status
}

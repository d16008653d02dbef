package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// The tests of this file mount for real: this test binary is the program, the
// emulator is the store, and what is tested is the life of the daemon.

// live is a place with a store, a mount point and the program.
type live struct {
	t   *testing.T
	mnt string
	env []string
	srv *emulator.Server
}

func newLive(t *testing.T) *live {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		storetest.Missing(t, "no FUSE here: %v", err)
	} else {
		require.NoError(t, f.Close())
	}
	dir := shortTempDir(t)
	srv, err := emulator.New(emulator.Config{Dir: filepath.Join(storetest.DataDir(t), "store")})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	require.NoError(t, srv.Listen("127.0.0.1:0"))
	l := &live{t: t, mnt: filepath.Join(dir, "mnt"), srv: srv}
	require.NoError(t, os.Mkdir(l.mnt, 0o700))
	l.env = append(demoEnviron(os.Environ()), srv.Env()...)
	// The race detector waits a second at each exit unless told not to.
	l.env = append(l.env, "COFFER_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0 halt_on_error=1 exitcode=66", "XDG_RUNTIME_DIR="+dir, "TMPDIR="+dir, "AWS_EC2_METADATA_DISABLED=true")
	t.Cleanup(func() {
		if _, mounted, err := mountAt(l.mnt); err != nil || mounted {
			_ = detachMount(l.mnt)
		}
	})
	code, _, errOut := l.run("mb", "s3://bucket")
	require.Zero(t, code, errOut)
	return l
}

func (l *live) command(args ...string) *exec.Cmd {
	cmd := exec.Command(ownBinary(), args...)
	cmd.Env = l.env
	return cmd
}

// run runs the program to its end.
func (l *live) run(args ...string) (code int, out, errOut string) {
	l.t.Helper()
	cmd := l.command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// ok runs the program and demands success.
func (l *live) ok(args ...string) string {
	l.t.Helper()
	code, out, errOut := l.run(args...)
	require.Zero(l.t, code, "%v: %s", args, errOut)
	return out
}

func (l *live) file(name string) string { return filepath.Join(l.mnt, name) }

func (l *live) write(name, text string) {
	l.t.Helper()
	require.NoError(l.t, os.WriteFile(l.file(name), []byte(text), 0o600))
}

// stored reads an object past the mount, through another one.
func (l *live) stored(name string) string {
	l.t.Helper()
	return l.ok("run", "s3://bucket", "--", "sh", "-c", `cat "$COFFER_MNT/`+name+`"`)
}

// pid returns the daemon's process id.
func (l *live) pid() int {
	l.t.Helper()
	var reply controlReply
	require.NoError(l.t, json.Unmarshal([]byte(l.ok("status", l.mnt)), &reply))
	return reply.PID
}

func (l *live) mounted() bool {
	_, mounted, err := mountAt(l.mnt)
	require.NoError(l.t, err)
	return mounted
}

func (l *live) eventually(what string, cond func() bool) {
	l.t.Helper()
	require.Eventually(l.t, cond, 20*time.Second, 20*time.Millisecond, what)
}

func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func TestMountDetachesAndUmountWaits(t *testing.T) {
	l := newLive(t)
	l.ok("mount", "s3://bucket", l.mnt)
	require.True(t, l.mounted(), "it serves when the command returns")
	pid := l.pid()
	sid, err := unix.Getsid(pid)
	require.NoError(t, err)
	require.Equal(t, pid, sid, "a session of its own")
	if os.Getuid() == 0 {
		cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
		require.NoError(t, err)
		require.Equal(t, "/", cwd)
		limits, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits")
		require.NoError(t, err)
		require.Regexp(t, `Max core file size\s+0\s+0`, string(limits))
	}
	l.write("f", "hello")

	code, _, errOut := l.run("mount", "s3://bucket", l.mnt)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errOut, "is mounted there already")

	l.ok("umount", l.mnt)
	require.False(t, l.mounted())
	l.eventually("the daemon has ended", func() bool { return gone(pid) })
	require.Equal(t, "hello", l.stored("f"))
	code, _, errOut = l.run("umount", l.mnt)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errOut, "nothing is mounted there")
}

func TestMountFailsBeforeItDetaches(t *testing.T) {
	l := newLive(t)
	code, _, errOut := l.run("mount", "s3://no-such-bucket", l.mnt)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errOut, "does not exist")
	require.Equal(t, 1, strings.Count(errOut, "\n"), errOut)

	l.env = append(l.env, "AWS_SECRET_ACCESS_KEY=wrong")
	for _, args := range [][]string{{"mount", "s3://bucket", l.mnt}, {"mount", l.mnt}} {
		code, _, errOut = l.run(args...)
		require.Equal(t, exitPermission, code, errOut)
		require.False(t, l.mounted())
	}
	require.NotContains(t, errOut, "wrong")
}

func TestUmountOfAMountInUse(t *testing.T) {
	l := newLive(t)
	l.ok("mount", "s3://bucket", l.mnt)
	f, err := os.Create(l.file("open"))
	require.NoError(t, err)
	_, err = f.WriteString("one ")
	require.NoError(t, err)
	code, _, errOut := l.run("umount", l.mnt)
	require.Equal(t, exitFailure, code)
	require.Contains(t, errOut, "in use")
	require.True(t, l.mounted())

	pid := l.pid()
	l.ok("umount", "--lazy", l.mnt)
	require.False(t, l.mounted())
	_, err = f.WriteString("two")
	require.NoError(t, err, "who has it open can go on")
	require.NoError(t, f.Close())
	l.eventually("the daemon ends with the last file", func() bool { return gone(pid) })
	require.Equal(t, "one two", l.stored("open"))
}

func TestDeadMountIsReplaced(t *testing.T) {
	l := newLive(t)
	kill := func() {
		pid := l.pid()
		require.NoError(t, unix.Kill(pid, unix.SIGKILL))
		l.eventually("killed", func() bool {
			var st unix.Statfs_t
			return errors.Is(unix.Statfs(l.mnt, &st), unix.ENOTCONN)
		})
	}
	l.ok("mount", "s3://bucket", l.mnt)
	l.write("f", "x")
	kill()
	l.ok("mount", "s3://bucket", l.mnt)
	text, err := os.ReadFile(l.file("f"))
	require.NoError(t, err)
	require.Equal(t, "x", string(text))
	kill()
	code, _, errOut := l.run("umount", l.mnt)
	require.Equal(t, exitFailure, code, "nobody can tell what was lost")
	require.Contains(t, errOut, "had been killed")
	require.False(t, l.mounted())
}

func TestSIGTERMFlushesAnOpenFile(t *testing.T) {
	l := newLive(t)
	log := filepath.Join(filepath.Dir(l.mnt), "log")
	l.ok("mount", "s3://bucket", l.mnt, "--log-file", log)
	f, err := os.Create(l.file("open"))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString("written before the signal")
	require.NoError(t, err)
	pid := l.pid()
	require.NoError(t, unix.Kill(pid, unix.SIGTERM))
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, unix.Kill(pid, unix.SIGTERM)) // does not wait for f
	l.eventually("ended", func() bool { return gone(pid) })
	require.False(t, l.mounted())
	require.Equal(t, "written before the signal", l.stored("open"))
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Contains(t, string(text), "still in use")
}

func TestForegroundEndsOnASignal(t *testing.T) {
	l := newLive(t)
	cmd := l.command("mount", "--foreground", "s3://bucket", l.mnt)
	require.NoError(t, cmd.Start())
	l.eventually("mounted", l.mounted)
	l.write("f", "x")
	require.NoError(t, cmd.Process.Signal(unix.SIGINT))
	require.NoError(t, cmd.Wait(), "all is in the store: exit code 0")
	require.False(t, l.mounted())
	require.Equal(t, "x", l.stored("f"))
}

func TestRunReturnsTheCommandsCode(t *testing.T) {
	l := newLive(t)
	for script, want := range map[string]int{
		`printf data > "$COFFER_MNT/f" && test "$COFFER_MNT" = "` + l.mnt + `"`: 0,
		"exit 7":        7,
		"kill -KILL $$": 128 + 9,
	} {
		code, _, errOut := l.run("run", "s3://bucket", l.mnt, "--", "sh", "-c", script)
		require.Equal(t, want, code, "%s: %s", script, errOut)
		require.False(t, l.mounted())
	}
	require.Equal(t, "data", l.stored("f"))
	code, _, errOut := l.run("run", "s3://bucket", "--", "/no/such/program")
	require.Equal(t, exitNoSuchExec, code)
	require.Contains(t, errOut, "/no/such/program")
	code, _, errOut = l.run("run", "s3://no-such-bucket", "--", "true")
	require.NotZero(t, code)
	require.Contains(t, errOut, "does not exist")
	left, err := filepath.Glob(filepath.Join(filepath.Dir(l.mnt), "coffer-mnt-*"))
	require.NoError(t, err)
	require.Empty(t, left, "mount points of its own are removed")
}

// startRun starts "coffer run" of a script and waits until that says "working".
func (l *live) startRun(script string) (*exec.Cmd, func() string) {
	l.t.Helper()
	cmd := l.command("run", "s3://bucket", l.mnt, "--", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	require.NoError(l.t, err)
	require.NoError(l.t, cmd.Start())
	buf := make([]byte, len("working\n"))
	_, err = io.ReadFull(out, buf)
	require.NoError(l.t, err)
	return cmd, func() string { rest, _ := io.ReadAll(out); return string(rest) }
}

func TestRunPassesSignalsOn(t *testing.T) {
	l := newLive(t)
	cmd, _ := l.startRun(`trap 'printf saved > "$COFFER_MNT/state"; exit 3' TERM; echo working; while :; do sleep 0.05; done`)
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.False(t, l.mounted())
	require.Equal(t, "saved", l.stored("state"))
}

func TestMountOfAKilledRunEndsByItself(t *testing.T) {
	l := newLive(t)
	cmd, rest := l.startRun(`echo working; printf x > "$COFFER_MNT/f"; echo wrote; exec sleep 3`)
	pid := l.pid()
	l.eventually("written", func() bool { _, err := os.Stat(l.file("f")); return err == nil })
	require.NoError(t, cmd.Process.Kill())
	l.eventually("unmounted", func() bool { return !l.mounted() })
	l.eventually("ended", func() bool { return gone(pid) })
	require.Contains(t, rest(), "wrote")
	_ = cmd.Wait()
	require.Equal(t, "x", l.stored("f"))
}

func TestMountByOptions(t *testing.T) {
	l := newLive(t)
	// As mount.fuse calls it, with the endpoint from -o alone.
	endpoint := l.srv.Endpoint()
	l.env = append(l.env, "AWS_ENDPOINT_URL=")
	l.ok("s3://bucket", l.mnt, "-o", "ro,noexec,_netdev,x-systemd.automount,uid=12,umask=027,endpoint_url="+endpoint)
	entry, mounted, err := mountAt(l.mnt)
	require.NoError(t, err)
	require.True(t, mounted)
	require.Equal(t, []string{fsType, "s3://bucket"}, []string{entry.Type, entry.Source})
	require.Error(t, os.WriteFile(l.file("f"), nil, 0o600), "read-only")
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(l.mnt, &st))
	require.NotZero(t, st.Flags&unix.ST_NOEXEC)
	l.ok("umount", l.mnt)
}

func TestCheckLive(t *testing.T) {
	l := newLive(t)
	var report struct {
		Store struct{ Encryption, SSE string }
	}
	require.NoError(t, json.Unmarshal([]byte(l.ok("check", "s3://bucket", "--json")), &report))
	require.Equal(t, "SSE-S3", report.Store.Encryption)
	require.Equal(t, "AES256", report.Store.SSE)
	require.Contains(t, l.ok("check", "s3://bucket", "--uploads"), "new objects are encrypted")
	code, _, errOut := l.run("mb", "s3://bucket")
	require.Equal(t, exitFailure, code)
	require.Contains(t, errOut, "exists already")
}

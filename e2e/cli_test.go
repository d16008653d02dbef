package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// coffers runs the program in an environment and returns exit code and both
// outputs; it fails the test when that takes longer than a minute.
func coffers(t testing.TB, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, coffer(t), args...)
	cmd.Env, cmd.Dir = env, t.TempDir()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Errorf("coffer %q did not end within a minute", args)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// with returns env with settings that win over it.
func with(env []string, settings ...string) []string {
	return append(append([]string{}, env...), settings...)
}

// TestMountFails gives every mistake that users make its exit code and one
// line that names it; nothing stays mounted, and no secret is told.
func TestMountFails(t *testing.T) {
	needFUSE(t)
	s := startEmulator(t, "aws")
	env := append(baseEnv(t), s.Env()...)
	client(t, env).makeBucket(t, "bucket")
	config := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(config, []byte("endpoint-ulr: http://127.0.0.1:1\n"), 0o600))
	empty, file := t.TempDir(), filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	full := t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "f"), nil, 0o600))
	open := t.TempDir()
	must(t, os.Mkdir(filepath.Join(open, fmt.Sprint("coffer-cache-", os.Getuid())), 0o755))

	for _, tc := range []struct {
		name string
		env  []string
		args []string
		code int
		says string
	}{
		{"nothing listens", with(env, "AWS_ENDPOINT_URL=http://127.0.0.1:1"), []string{"mount", empty}, 4, "127.0.0.1:1"},
		{"unknown key", with(env, "AWS_ACCESS_KEY_ID=AKIAUNKNOWN"), []string{"mount", empty}, 3, ""},
		{"wrong secret", with(env, "AWS_SECRET_ACCESS_KEY=wrong-secret-wrong"), []string{"mount", empty}, 3, ""},
		{"no credentials", with(env, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="), []string{"mount", empty}, 3, "credentials"},
		{"missing bucket", env, []string{"mount", "s3://not-there", empty}, 1, "not-there"},
		{"unknown flag", env, []string{"mount", "--no-such-flag", empty}, 2, "no-such-flag"},
		{"bad value", env, []string{"mount", "-o", "list_version=3", empty}, 2, "list_version"},
		{"unknown option", env, []string{"mount", "-o", "nosuchoption", empty}, 2, "nosuchoption"},
		{"unknown config key", env, []string{"mount", "--config", config, empty}, 2, "endpoint-ulr"},
		{"no config file", env, []string{"mount", "--config", "/nonexistent/c.yaml", empty}, 2, "/nonexistent/c.yaml"},
		{"bad environment", with(env, "COFFER_UMASK=999"), []string{"mount", empty}, 2, "COFFER_UMASK"},
		{"no place for a cache directory", env, []string{"mount", "--cache-dir", filepath.Join(file, "cache"), empty}, 2, file},
		{"no cache key file", env, []string{"mount", "--cache-dir", full, "--cache-key-file", "/nonexistent/key", empty}, 2, "/nonexistent/key"},
		{"a cache key file that is none", env, []string{"mount", "--cache-dir", full, "--cache-key-file", file, empty}, 2, file},
		{"a cache directory that is open to others", env, []string{"mount", "--cache-dir", open, empty}, 2, "open to others"},
		{"no mount point", env, []string{"mount", filepath.Join(empty, "nope")}, 1, filepath.Join(empty, "nope")},
		{"mount point is a file", env, []string{"mount", file}, 1, file},
		{"mount point is not empty", env, []string{"mount", full}, 1, "empty"},
		{"plain http to another machine", with(env, "AWS_ENDPOINT_URL=http://192.0.2.1:9"), []string{"mount", empty}, 1, "plain http"},
		{"no argument", env, []string{"mount"}, 2, "MOUNTPOINT"},
		{"umount of nothing", env, []string{"umount", empty}, 1, empty},
		{"unknown command", env, []string{"mnt"}, 2, "mnt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := coffers(t, tc.env, tc.args...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			// A mistake in the command line or the config file gets a hint,
			// or the place in the file, below its line.
			line, rest, ended := strings.Cut(stderr, "\n")
			if !strings.HasPrefix(line, "coffer: ") || !ended || rest != "" && code != 2 {
				t.Errorf("stderr is not one line that begins with \"coffer: \":\n%s", stderr)
			}
			if !strings.Contains(line, tc.says) || stdout != "" {
				t.Errorf("said %q and %q, want it to name %q on stderr", stdout, line, tc.says)
			}
			for _, v := range tc.env {
				if secret, ok := strings.CutPrefix(v, "AWS_SECRET_ACCESS_KEY="); ok && secret != "" && strings.Contains(stderr, secret) {
					t.Errorf("the secret is told:\n%s", stderr)
				}
			}
			for _, dir := range []string{empty, full} {
				if mounted(dir) {
					t.Errorf("%s is mounted", dir)
					coffers(t, env, "umount", dir)
				}
			}
		})
	}
}

// TestRunPassesTheExitCode runs commands on mounts of their own.
func TestRunPassesTheExitCode(t *testing.T) {
	needFUSE(t)
	s := startEmulator(t, "aws")
	env := append(baseEnv(t), s.Env()...)
	other := client(t, env)
	other.makeBucket(t, "bucket")
	for _, tc := range []struct {
		command []string
		code    int
	}{
		{[]string{"true"}, 0},
		{[]string{"sh", "-c", "exit 7"}, 7},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15},
		{[]string{"/nonexistent/program"}, 127},
		{[]string{"/etc/hostname"}, 126},
		{[]string{"sh", "-c", `echo data > "$COFFER_MNT/out" && exit 3`}, 3},
	} {
		code, _, stderr := coffers(t, env, append([]string{"run", "s3://bucket", "--"}, tc.command...)...)
		if code != tc.code {
			t.Errorf("run -- %q: exit code %d, want %d\n%s", tc.command, code, tc.code, stderr)
		}
	}
	if got := other.get(t, "bucket", "out"); got != "data\n" {
		t.Errorf("what the command wrote is stored as %q", got)
	}
	if code, _, stderr := coffers(t, env, "run", "s3://not-there", "--", "true"); code != 125 {
		t.Errorf("run without a mount: exit code %d, want 125\n%s", code, stderr)
	}
	left, err := filepath.Glob(filepath.Join(envOf(env, "TMPDIR"), "coffer-mnt-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("mount points left behind: %q, %v", left, err)
	}
}

func envOf(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// detached mounts as users do: the command returns, a daemon stays.
func detached(t *testing.T, env []string, args ...string) (mnt string) {
	t.Helper()
	needFUSE(t)
	mnt = filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	t.Cleanup(func() {
		if mounted(mnt) {
			t.Error("still mounted at the end of the test")
			exec.Command("fusermount3", "-u", "-z", mnt).Run()
		}
	})
	code, stdout, stderr := coffers(t, env, append(append([]string{"mount"}, args...), mnt)...)
	if code != 0 || stdout != "" || stderr != "" {
		t.Fatalf("mount: exit code %d, %q, %q", code, stdout, stderr)
	}
	if !serves(mnt) {
		t.Fatal("mount has returned, and nothing is mounted")
	}
	return mnt
}

// TestSIGTERMFlushes ends a daemon by its signal while a file is still open:
// what was written is in the store when the process is gone.
func TestSIGTERMFlushes(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			m, _ := bucketMount(t)
			f, err := os.Create(m.path("bucket", "f"))
			must(t, err)
			defer f.Close()
			_, err = f.WriteString("not yet committed")
			must(t, err)
			must(t, m.cmd.Process.Signal(sig))
			deadline := time.Now().Add(30 * time.Second)
			other := client(t, m.env)
			for other.keys(t, "bucket")["f"] == 0 {
				if time.Now().After(deadline) {
					t.Fatal("nothing is in the store 30 s after the signal")
				}
				time.Sleep(20 * time.Millisecond)
			}
			f.Close() // the last user is gone: the mount can end
			m.waitExit(30 * time.Second)
			if got := other.get(t, "bucket", "f"); got != "not yet committed" {
				t.Errorf("stored: %q", got)
			}
			if mounted(m.dir) {
				t.Error("still mounted")
			}
		})
	}
}

// TestUmount waits for the last byte, and refuses while files are open.
func TestUmount(t *testing.T) {
	m, s := bucketMount(t)
	write(t, m.path("bucket", "f"), "data")
	f, err := os.Open(m.path("bucket", "f"))
	must(t, err)
	defer f.Close()
	code, _, stderr := coffers(t, m.env, "umount", m.dir)
	if code != 1 || !strings.Contains(stderr, "in use") || !mounted(m.dir) {
		t.Errorf("umount with an open file: exit code %d, %q, mounted: %v", code, stderr, mounted(m.dir))
	}
	must(t, f.Close())
	w, err := os.Create(m.path("bucket", "g"))
	must(t, err)
	_, err = w.WriteString("last words")
	must(t, err)
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "g", Delay: time.Second})
	closed := make(chan error, 1)
	go func() { closed <- w.Close() }()
	time.Sleep(100 * time.Millisecond) // the commit is under way
	deadline := time.Now().Add(30 * time.Second)
	for code = 1; code != 0; {
		if code, _, stderr = coffers(t, m.env, "umount", m.dir); time.Now().After(deadline) {
			t.Fatalf("umount: exit code %d, %s", code, stderr)
		}
	}
	must(t, <-closed)
	if got := client(t, m.env).get(t, "bucket", "g"); got != "last words" {
		t.Errorf("when umount has returned, the store holds %q", got)
	}
	m.waitExit(10 * time.Second)
}

// TestFstabOptions mounts with the options of an fstab line, as mount(8) hands
// them to mount.fuse.coffer.
func TestFstabOptions(t *testing.T) {
	s := startEmulator(t, "aws")
	env := append(baseEnv(t), s.Env()...)
	other := client(t, env)
	other.makeBucket(t, "bucket")
	other.put(t, "bucket", "dir/f", "data")
	uid, gid := 1234, 2345
	if os.Getuid() != 0 { // whoever is not root has to be the owner to enter
		uid, gid = os.Getuid(), os.Getgid()
	}
	mnt := detached(t, env, "-o", fmt.Sprintf("_netdev,ro,noatime,uid=%d,gid=%d,umask=027,attributes=list", uid, gid), "s3://bucket/dir")
	want(t, filepath.Join(mnt, "f"), "data")
	var st syscall.Stat_t
	must(t, syscall.Stat(filepath.Join(mnt, "f"), &st))
	if int(st.Uid) != uid || int(st.Gid) != gid || st.Mode&0o777 != 0o640 {
		t.Errorf("uid %d, gid %d, mode %o; want %d, %d, 640", st.Uid, st.Gid, st.Mode&0o777, uid, gid)
	}
	wantErrno(t, "create on a read-only mount", os.WriteFile(filepath.Join(mnt, "new"), nil, 0o644), syscall.EROFS)
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	if !strings.Contains(string(mounts), fmt.Sprintf("s3://bucket/dir %s fuse.coffer ro,nosuid,nodev", mnt)) {
		t.Errorf("the kernel's list of mounts lacks the expected line for %s", mnt)
	}
	if code, _, stderr := coffers(t, env, "umount", mnt); code != 0 {
		t.Errorf("umount: %d, %s", code, stderr)
	}
	for _, r := range s.Requests() {
		if strings.HasPrefix(r.Verb, "Put") && !strings.Contains(r.Key, "dir/f") && r.Verb != "PutBucket" {
			t.Errorf("a read-only mount sent %s %s/%s", r.Verb, r.Bucket, r.Key)
		}
	}
}

// TestNoCoreFile: a daemon that crashes writes no core, whatever the limit of
// the shell; and only root may look into its memory.
func TestNoCoreFile(t *testing.T) {
	m, _ := bucketMount(t)
	limits, err := os.ReadFile("/proc/" + pidOf(m) + "/limits")
	must(t, err)
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 +bytes`).Match(limits) {
		t.Errorf("the limits of the daemon:\n%s", limits)
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(m.log.String(), "msg=mounted") && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // fusermount3 has to be able to look until then
	}
	var st syscall.Stat_t
	must(t, syscall.Stat("/proc/"+pidOf(m)+"/environ", &st))
	if st.Uid != 0 {
		t.Errorf("user %d may read the memory of the daemon", st.Uid)
	}
}

// TestSystemdIsTold plays the service manager of a unit with Type=notify:
// it is told that the mount serves, and that it ends.
func TestSystemdIsTold(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	must(t, err)
	defer manager.Close()
	must(t, manager.SetReadDeadline(time.Now().Add(30*time.Second)))
	hears := func(what string) {
		t.Helper()
		buf := make([]byte, 4096)
		n, err := manager.Read(buf)
		must(t, err)
		if !slices.Contains(strings.Split(string(buf[:n]), "\n"), what) {
			t.Errorf("the service manager is told %q, want %q", buf[:n], what)
		}
	}
	s := startEmulator(t, "aws")
	m := mountStore(t, append(s.Env(), "NOTIFY_SOCKET="+socket))
	hears("READY=1")
	m.stop()
	hears("STOPPING=1")
}

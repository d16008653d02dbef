package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A mount detaches by starting the program once more with the same arguments
// in a session of its own. Go cannot fork, and a fresh process has no threads,
// terminal or working directory of the old one that a job step's end could
// reach. Credentials travel in the inherited environment only.
//
// The new process reports over a pipe: that the kernel serves, or why not. It
// keeps the caller's standard error until then, so that warnings are seen.

// detachedEnv tells a process that it is the detached one: "READY" or
// "READY,OWNER", the numbers of inherited pipes.
const detachedEnv = "_COFFER_DETACHED"

// readiness is the one line that a detached process reports.
type readiness struct {
	// Error is the reason why nothing is mounted, "" when the mount serves.
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"`
	PID   int    `json:"pid"`
}

// detachedProcess is the side of the new process.
type detachedProcess struct {
	ready *os.File
	// owner ends when the process that wants this mount is gone; nil for a
	// mount without an owner.
	owner *os.File
	once  sync.Once
}

// detachedFromEnv returns the pipes of a detached process, nil in any other.
// The variable is removed, so that children of the daemon do not see it.
func detachedFromEnv() (*detachedProcess, error) {
	v, ok := os.LookupEnv(detachedEnv)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(detachedEnv)
	d := &detachedProcess{}
	var keep []int
	for i, field := range strings.SplitN(v, ",", 2) {
		n, err := strconv.Atoi(field)
		if err != nil || n < 3 {
			return nil, fmt.Errorf("%s: bad value", detachedEnv)
		}
		unix.CloseOnExec(n)
		keep = append(keep, n)
		f := os.NewFile(uintptr(n), "pipe")
		if i == 0 {
			d.ready = f
		} else {
			d.owner = f
		}
	}
	return d, closeInherited(keep)
}

// closeInherited closes the descriptors that came from the process before
// this one: whoever waits for the end of a pipe there, or for a lock, must not
// wait for the daemon. Descriptors of this process are close-on-exec, which
// inherited ones cannot be.
func closeInherited(keep []int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || slices.Contains(keep, fd) {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	return nil
}

// report tells the waiting process how it went; only the first call counts.
// The error is that of a process that does not wait any more.
func (d *detachedProcess) report(cause error) (err error) {
	d.once.Do(func() {
		r := readiness{PID: os.Getpid()}
		if cause != nil {
			r.Error, r.Code = cause.Error(), exitCode(cause)
		}
		err = errors.Join(json.NewEncoder(d.ready).Encode(r), d.ready.Close())
	})
	return err
}

// startDetached runs the program with args (without its name) as a daemon and
// returns when its mount serves. With owned, the daemon ends, as by SIGTERM,
// once the returned pipe is closed or this process dies; without, it is nil.
// stderr is the daemon's until then, and so has to be a file.
func startDetached(ctx context.Context, args []string, stderr *os.File, owned bool) (owner *os.File, err error) {
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer readyR.Close()
	extra := []*os.File{readyW}
	value := "3"
	var ownerR *os.File
	if owned {
		if ownerR, owner, err = os.Pipe(); err != nil {
			return nil, errors.Join(err, readyW.Close())
		}
		extra = append(extra, ownerR)
		value = "3,4"
	}
	cmd := exec.Command(ownBinary(), args...)
	cmd.Args[0] = "coffer"
	cmd.ExtraFiles = extra
	cmd.Stderr = stderr
	// NOTIFY_SOCKET is the foreground's: with Type=forking, systemd takes
	// the exit of the first process as readiness.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
	cmd.Env = append(cmd.Env, detachedEnv+"="+value)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = readyW.Close()
	if ownerR != nil {
		_ = ownerR.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the daemon: %w", err)
	}
	defer func() {
		if err != nil && owner != nil {
			_ = owner.Close()
			owner = nil
		}
	}()

	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	var r readiness
	if json.NewDecoder(readyR).Decode(&r) != nil {
		// The daemon died without a word: its exit status is all there is.
		werr := cmd.Wait()
		if ctx.Err() != nil {
			return owner, errors.New("interrupted before the mount served")
		}
		return owner, fmt.Errorf("the daemon ended before the mount served: %v", werr)
	}
	if r.Error != "" {
		_ = cmd.Wait()
		return owner, &exitError{r.Code, errors.New(r.Error)}
	}
	if owned {
		// Reaped when it ends, which for an owned daemon is before us.
		go func() { _ = cmd.Wait() }()
		return owner, nil
	}
	return owner, cmd.Process.Release()
}

// ownBinary returns the path to run this program again. The link in /proc
// works even where the file was replaced or removed meanwhile; the real path
// gives the daemon its proper name in process listings.
func ownBinary() string {
	const link = "/proc/self/exe"
	p, err := os.Executable()
	if err != nil {
		return link
	}
	a, errA := os.Stat(p)
	b, errB := os.Stat(link)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return link
	}
	return p
}

// redirectStdio points standard output and error at fd, or at /dev/null when
// fd is negative, so that whoever reads the old ones sees the end of file.
func redirectStdio(fd int) error {
	if fd < 0 {
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer null.Close()
		fd = int(null.Fd())
	}
	return errors.Join(unix.Dup3(fd, 1, 0), unix.Dup3(fd, 2, 0))
}

// leaveWorkingDir moves to the root directory, so that the daemon keeps no
// file system busy. Files that the environment names for the credentials are
// read again later, so relative names become absolute first.
func leaveWorkingDir() error {
	for _, name := range []string{"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"} {
		v := os.Getenv(name)
		if v == "" || filepath.IsAbs(v) || strings.HasPrefix(v, "~") {
			continue
		}
		abs, err := filepath.Abs(v)
		if err != nil {
			return err
		}
		if err := os.Setenv(name, abs); err != nil {
			return err
		}
	}
	return os.Chdir("/")
}

// forbidCore keeps keys and cached plaintext out of core files.
func forbidCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}

// hideMemory keeps other processes of the same user out of this one's memory
// and environment, and its memory out of dumps that know no limit (a pipe in
// core_pattern).
func hideMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const runLong = `Mount, run a command, write everything to the store, unmount, and return the
command's exit code: a mount that lives exactly as long as a job needs it.

Without MOUNTPOINT a directory is made in the scratch directory and removed
again. Its path is in the command's environment as COFFER_MNT, in both cases.
Signals are passed on to the command; a command that they end still gets its
data flushed. When this process is killed, the mount flushes and ends by
itself. All flags of "coffer mount" but those of the process are taken.

Exit codes: the command's own; 128+N when signal N ended it; 126 and 127 when
it could not be started or found; 125 when Coffer failed: nothing was mounted
(one line on stderr says why), or the command succeeded and some data did not
reach the store or the mount was still in use.`

const runExample = `  coffer run s3://dataset -- sh -c 'wc -l "$COFFER_MNT"/*.csv'
  coffer run s3://results /tmp/out -- ./simulate --output /tmp/out
  srun coffer run --profile hpc -- python train.py`

// newRun builds "coffer run".
func newRun(a *app) *cobra.Command {
	scratch := defaultConfig()
	var options []string
	cmd := &cobra.Command{
		Use:     "run [mount flags] [s3://BUCKET[/PREFIX]] [MOUNTPOINT] -- COMMAND [ARGUMENT...]",
		Short:   "Mount for the time of one command",
		Long:    runLong,
		Example: runExample,
		Args: func(cmd *cobra.Command, args []string) error {
			n := cmd.ArgsLenAtDash()
			if n < 0 || n == len(args) {
				return usageErrorf("no command: coffer run [s3://BUCKET] [MOUNTPOINT] -- COMMAND")
			}
			if n > 2 {
				return usageErrorf("%d arguments before --; wanted: [s3://BUCKET[/PREFIX]] [MOUNTPOINT]", n)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			n := cmd.ArgsLenAtDash()
			err := a.runCommand(cmd, args[:n], args[n:], options)
			var e *exitError
			if err != nil && !errors.As(err, &e) {
				return &exitError{exitRun, err}
			}
			return err
		},
	}
	bindFlags(cmd.Flags(), &scratch, everyGroup...)
	cmd.Flags().StringArrayVarP(&options, "options", "o", nil, "mount `options` as in fstab")
	return cmd
}

// runCommand mounts what places name, runs command, and unmounts.
func (a *app) runCommand(cmd *cobra.Command, places, command, options []string) (err error) {
	if len(places) == 0 || (len(places) == 1 && strings.HasPrefix(places[0], "s3://")) {
		dir, err := a.makeMountPoint(cmd, options)
		if err != nil {
			return err
		}
		// Fails while something is mounted there, as it should.
		defer os.Remove(dir)
		places = slices.Concat(places, []string{dir})
	}
	plan, err := a.planMount(cmd, places, options)
	if err != nil {
		return err
	}
	if _, inherited := inheritedFD(plan.dir); inherited {
		return usageErrorf("run needs a directory as mount point, not %s", plan.dir)
	}

	// From here on signals must not end this process: the mount has to be
	// taken down. Until the command runs they interrupt the mounting.
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT)
	defer signal.Stop(sigs)
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer cancel()
	owner, err := startDetached(ctx, append([]string{"mount"}, mountArgs(cmd, plan, options)...), os.Stderr, true)
	if err != nil {
		return &exitError{exitRun, err}
	}
	defer owner.Close()
	cancel()

	runErr := a.supervise(plan.dir, command, sigs)
	umountErr := a.umountAfter(plan.dir)
	if umountErr == nil {
		return runErr
	}
	if runErr != nil {
		// The command's code wins; what Coffer has to say is said.
		fmt.Fprintf(a.stderr, "coffer: %v\n", umountErr)
		return runErr
	}
	return &exitError{exitRun, umountErr}
}

// makeMountPoint makes an empty directory for a mount without a place.
func (a *app) makeMountPoint(cmd *cobra.Command, options []string) (string, error) {
	opts, _, err := parseMountOptions(strings.Join(options, ","))
	if err != nil {
		return "", &exitError{exitUsage, err}
	}
	cfg, err := resolveConfig(cmd.Flags(), a.env, opts)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(scratchDir(cfg.ScratchDir, a.env), "coffer-mnt-")
	if err != nil {
		return "", fmt.Errorf("mount point: %w", err)
	}
	return filepath.EvalSymlinks(dir)
}

// supervise runs the command with signals passed on, and returns nil or an
// exitError with the code that stands for its end.
func (a *app) supervise(dir string, command []string, sigs <-chan os.Signal) error {
	child := exec.Command(command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = a.stdin, a.stdout, a.stderr
	child.Env = append(os.Environ(), "COFFER_MNT="+dir)
	if err := child.Start(); err != nil {
		code := exitCannotExec
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = exitNoSuchExec
		}
		return &exitError{code, fmt.Errorf("%s: %w", command[0], err)}
	}
	done := make(chan error, 1)
	go func() { done <- child.Wait() }()
	for {
		select {
		case sig := <-sigs:
			if !fromTerminal(sig) {
				_ = child.Process.Signal(sig)
			}
		case err := <-done:
			return commandEnd(err)
		}
	}
}

// fromTerminal tells that the terminal has sent sig to the command as well:
// both are in its foreground process group.
func fromTerminal(sig os.Signal) bool {
	if sig != unix.SIGINT && sig != unix.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	pgrp, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// commandEnd turns the end of a command into the exit code of a shell.
func commandEnd(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return &exitError{exitRun, err}
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return &exitError{code: exitSignalStart + int(status.Signal())}
	}
	return &exitError{code: exit.ExitCode()}
}

// busyPatience is how long run waits for background processes of its command
// to let go of the mount.
const busyPatience = 10 * time.Second

// umountAfter unmounts. A mount that stays in use by what the command left
// running is detached in the end, and reported.
func (a *app) umountAfter(dir string) error {
	// No signal cuts this short: it is what keeps the data.
	ctx := context.Background()
	var unflushed []string
	discard := false
	err := errInUse
	deadline := time.Now().Add(busyPatience)
	for pause := 50 * time.Millisecond; err != nil && time.Now().Before(deadline); pause = min(2*pause, time.Second) {
		var texts []string
		texts, err = a.umount(ctx, dir, false, discard)
		unflushed = union(unflushed, texts)
		switch {
		case errors.Is(err, errUnflushed):
			discard = true // nobody is left who could decide otherwise
		case errors.Is(err, errNotMounted):
			// The command has unmounted it itself.
			err = nil
		case errors.Is(err, errDied):
			return err
		case err != nil:
			time.Sleep(pause)
		}
	}
	if err != nil {
		var texts []string
		if texts, err = a.umount(ctx, dir, true, discard); err == nil {
			err = fmt.Errorf("%s was still in use %v after the command had ended and was detached: what is written there from now on may be lost", dir, busyPatience)
		}
		unflushed = union(unflushed, texts)
	}
	a.sayUnflushed(unflushed)
	if err == nil && len(unflushed) > 0 {
		err = fmt.Errorf("the data of %d files did not reach the store", len(unflushed))
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// mountPlan is a mount as it was asked for.
type mountPlan struct {
	cfg    Config
	src    source
	dir    string
	kernel mountFlags
}

// logOutput is where the log goes: the standard error while somebody waits,
// a file as well once there is one, and the file alone when detached.
type logOutput struct {
	stderr   io.Writer
	file     *logFile
	auto     bool // the file was not asked for and goes when nothing is in it
	warnings atomic.Int64
	quiet    atomic.Bool
}

func (o *logOutput) Write(p []byte) (int, error) {
	if o.file == nil {
		return o.stderr.Write(p)
	}
	if !o.quiet.Load() {
		_, _ = o.stderr.Write(p)
	}
	return o.file.Write(p)
}

// openLog prepares the log of a mount. A detached mount without --log-file
// keeps a small one beside its control socket: that a write was refused, and
// why, must be readable somewhere.
func openLog(plan mountPlan, dir string, detached bool, stderr io.Writer) (*logOutput, *slog.Logger, error) {
	o := &logOutput{stderr: stderr}
	name, limit := plan.cfg.LogFile, int64(0)
	if name == "" && detached {
		name, limit, o.auto = filepath.Join(dir, controlName(plan.dir, ".log")), maxAutoLog, true
	}
	if name != "" {
		f, err := openLogFile(name, limit)
		if err != nil {
			return nil, nil, err
		}
		o.file = f
		// Nobody reads a foreground log twice.
		o.quiet.Store(!detached)
	}
	return o, slog.New(countingHandler{newLogger(o, plan.cfg).Handler(), &o.warnings}), nil
}

// close ends the log; an automatic one in which nobody has to look goes.
func (o *logOutput) close(clean bool) {
	if o.file == nil {
		return
	}
	_ = o.file.Close()
	if o.auto && clean && o.warnings.Load() == 0 {
		o.file.remove()
	}
}

// serve mounts and returns when the mount has ended. det is nil in the
// foreground. An error before the mount served has been reported to whoever
// waits by the caller; one after is a mount that ended badly.
func (a *app) serve(plan mountPlan, det *detachedProcess) (err error) {
	if det != nil {
		if err := leaveWorkingDir(); err != nil {
			return err
		}
	}
	if err := prepareMountPoint(plan.dir, plan.cfg.NonEmpty); err != nil {
		return err
	}
	// Log, socket and scratch files are the user's alone. Modes of files in
	// the mount come with the kernel's requests and do not depend on it.
	unix.Umask(0o077)
	// A log pipe that is closed must not end a mount.
	signal.Ignore(unix.SIGPIPE)
	stop, force, stopSignals := watchSignals(det)
	defer stopSignals()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()

	dir, err := makeControlDir(a.env)
	if err != nil {
		return err
	}
	out, log, err := openLog(plan, dir, det != nil, a.stderr)
	if err != nil {
		return err
	}
	clean := false
	defer func() { out.close(clean) }()

	if err := forbidCore(); err != nil { // before there is any plaintext
		log.Warn("core files are not prevented", "err", err)
	}
	st, err := mountStack(ctx, plan, a.env, log)
	if err != nil {
		clean = true // told to the caller, not in the log
		return err
	}
	_, borrowed := inheritedFD(plan.dir)
	detach := func() error { return detachMount(plan.dir) }
	if borrowed {
		detach = nil
	}
	s := newSession(servedMount{st.mnt, plan.src, st.store}, detach, log)
	if out.file != nil {
		s.logFile = out.file.name
	}
	ctl, err := a.announce(plan, s, det, dir, out, log)
	if err != nil {
		_, endErr := s.run(closed(), force)
		if s.ended() {
			endErr = errors.Join(endErr, st.Close())
		}
		return errors.Join(err, endErr)
	}
	log.Info("mounted", "control", ctl.name, "source", plan.src.String(), "mountpoint", plan.dir, "pid", os.Getpid())
	unflushed, err := s.run(stop, force)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	for _, text := range unflushed {
		log.Error("data is not in the store", "err", text)
	}
	// Below a mount that still has users nothing is closed: they would wait
	// for each other. The end of the process takes it all down.
	if s.ended() {
		err = errors.Join(err, st.Close())
	}
	if err != nil {
		log.Error("unmounted", "err", err)
	} else {
		log.Info("unmounted", "mountpoint", plan.dir)
	}
	// Last, so that its end tells umount that all is done.
	err = errors.Join(err, ctl.Close())
	if len(unflushed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d files are not in the store", len(unflushed)))
	}
	clean = err == nil
	return err
}

// announce opens the control socket of a mount that serves, and tells whoever
// waits for it.
func (a *app) announce(plan mountPlan, s *session, det *detachedProcess, dir string, out *logOutput, log *slog.Logger) (*controlServer, error) {
	// After the mount: a process that is not dumpable could not be helped by
	// fusermount3 on kernels that look at its /proc entries.
	if err := hideMemory(); err != nil {
		log.Warn("the memory of this process is not hidden", "err", err)
	}
	name := controlName(plan.dir, ".sock")
	if _, borrowed := inheritedFD(plan.dir); borrowed {
		// The same number means another mount in another process.
		name = controlName(fmt.Sprintf("%s of %d", plan.dir, os.Getpid()), ".sock")
	}
	ctl, err := listenControl(filepath.Join(dir, name), s.handle, log)
	if err != nil {
		return nil, err
	}
	if det == nil {
		_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
		if err != nil {
			log.Warn("systemd was not told", "err", err)
		}
		return ctl, nil
	}
	fd := -1
	if out.file != nil {
		fd = int(out.file.Fd())
	}
	err = redirectStdio(fd)
	out.quiet.Store(true)
	if err == nil {
		// Fails when the waiting process is gone: its user takes the mount
		// for failed, so it must not stay.
		err = det.report(nil)
	}
	if err != nil {
		return nil, errors.Join(err, ctl.Close())
	}
	return ctl, nil
}

// closed returns a channel that is closed.
func closed() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// watchSignals returns a channel that is closed by the first request to end,
// by SIGTERM, SIGINT or the owner's end, and one closed by the second signal.
func watchSignals(det *detachedProcess) (stop, force <-chan struct{}, release func()) {
	stopC, forceC, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, unix.SIGTERM, unix.SIGINT)
	if det == nil {
		signal.Notify(sigs, unix.SIGHUP)
	} else {
		signal.Ignore(unix.SIGHUP)
	}
	var ownerGone chan struct{}
	if det != nil && det.owner != nil {
		ownerGone = make(chan struct{})
		go func() {
			// Nothing is ever written: this returns when the last holder
			// of the other end is gone.
			_, _ = io.Copy(io.Discard, det.owner)
			close(ownerGone)
		}()
	}
	go func() {
		stopped, forced := false, false
		for {
			select {
			case <-sigs:
			case <-ownerGone:
				ownerGone = nil
				if stopped {
					continue
				}
			case <-done:
				return
			}
			switch {
			case !stopped:
				stopped = true
				close(stopC)
			case !forced:
				forced = true
				close(forceC)
			}
		}
	}()
	return stopC, forceC, func() {
		signal.Stop(sigs)
		close(done)
		if det != nil && det.owner != nil {
			_ = det.owner.Close()
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"coffer/fs"
)

// mounted is what a session needs of *fs.Mounted.
type mounted interface {
	// Wait returns when the kernel has let go of the mount.
	Wait()
	// Flush commits every dirty file and returns an error for each that
	// could not be, and once for each that was lost since the last call.
	Flush(ctx context.Context) []error
	// Unmount fails while files are open or a process works inside.
	Unmount() error
	// Status returns a value for encoding/json.
	Status() any
	// Verify reads what lies below a path in the store, and tells its news from
	// one goroutine, until it returns.
	Verify(ctx context.Context, path string, jobs int, tell func(verifyReport) error) error
	// Kept names the files with data that could not be stored; Rescued is such
	// data that only the mount has.
	Kept() []string
	Rescued() []fs.Rescued
	CommitRescued(ctx context.Context, id string, to fs.Destination) error
	DiscardRescued(id string) error
}

// session is one mount that serves, and the ways in which it ends: unmounted
// by anybody, through the control socket, or by a signal.
type session struct {
	mnt mounted
	log *slog.Logger
	// detach takes the mount out of the file tree at once; nil where the
	// mount point is not ours to unmount (/dev/fd/N).
	detach  func() error
	logFile string

	// patience is how long a signalled session waits for open files to be
	// closed; flushTime bounds one attempt to flush.
	patience, flushTime time.Duration

	// turn holds one token: flushing and unmounting are done one at a time.
	turn chan struct{}
	// verifying holds one as well; serving ends before it is taken away for good.
	verifying chan struct{}
	serving   context.Context
	end       context.CancelCauseFunc
	// gone is closed when the kernel has let go.
	gone chan struct{}
	// detached is set once the mount has no place in the file tree any more.
	detached atomic.Bool
}

// newSession takes over mnt. The goroutine that waits for the kernel ends with
// the mount, which every way through run and unmount leads to.
func newSession(mnt mounted, detach func() error, log *slog.Logger) *session {
	s := &session{
		mnt: mnt, detach: detach, log: log,
		// A batch system gives 10 to 60 s between SIGTERM and SIGKILL.
		patience: 8 * time.Second, flushTime: 5 * time.Minute,
		turn: make(chan struct{}, 1), verifying: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	s.serving, s.end = context.WithCancelCause(context.Background())
	s.turn <- struct{}{}
	s.verifying <- struct{}{}
	go func() {
		mnt.Wait()
		close(s.gone)
	}()
	return s
}

// flush commits what is dirty; one text for each file that could not be.
func (s *session) flush(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, s.flushTime)
	defer cancel()
	var texts []string
	for _, err := range s.mnt.Flush(ctx) {
		if err != nil {
			texts = append(texts, err.Error())
		}
	}
	return texts
}

// handle answers one request of the control socket.
func (s *session) handle(ctx context.Context, req controlRequest, client *controlPeer) controlReply {
	reply := controlReply{Log: s.logFile}
	switch req.Op {
	case "status":
		reply.Done, reply.Status = true, s.mnt.Status()
		reply.Kept, reply.Rescued = s.mnt.Kept(), s.mnt.Rescued()
		return reply
	case "verify":
		err := s.verify(ctx, req, client)
		if reply.Done = err == nil; err != nil {
			reply.Error, reply.Code = err.Error(), exitCode(err)
		}
		return reply
	}
	select {
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	case <-ctx.Done():
		reply.Error = ctx.Err().Error()
		return reply
	}
	switch req.Op {
	case "flush":
		reply.Unflushed = s.flush(ctx)
		reply.Done = len(reply.Unflushed) == 0
	case "unmount":
		s.unmount(ctx, req, &reply)
		reply.Kept = s.mnt.Kept()
	case "commit", "discard":
		err := s.rescue(ctx, req)
		if reply.Done = err == nil; err != nil {
			reply.Error = err.Error()
		}
	default:
		reply.Error = fmt.Sprintf("unknown operation %q", req.Op)
	}
	return reply
}

// errEnding is told to who wants something of a mount that is being ended.
var errEnding = errors.New("the mount is being ended")

// verify reads for a client what lies in the store, one client after the other. It
// ends with the client, and with the mount.
func (s *session) verify(ctx context.Context, req controlRequest, client *controlPeer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.serving, func() { cancel(context.Cause(s.serving)) })
	defer stop()
	ctx, release := client.attend(ctx)
	defer release()
	select {
	case <-s.verifying:
		defer func() { s.verifying <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.mnt.Verify(ctx, req.Path, req.Jobs, func(news verifyReport) error {
		return client.send(controlReply{Verify: &news})
	})
}

// rescue ends the keeping of data that only this mount has.
func (s *session) rescue(ctx context.Context, req controlRequest) error {
	ctx, cancel := context.WithTimeout(ctx, s.flushTime)
	defer cancel()
	if req.Op == "discard" {
		return s.mnt.DiscardRescued(req.ID)
	}
	var to fs.Destination
	if req.To != nil {
		to = *req.To
	}
	return s.mnt.CommitRescued(ctx, req.ID, to)
}

func (s *session) unmount(ctx context.Context, req controlRequest, reply *controlReply) {
	if reply.Unflushed = s.flush(ctx); len(reply.Unflushed) > 0 && !req.Discard {
		reply.Error = "data is not in the store; it stays mounted"
		return
	}
	if s.detach == nil {
		reply.Error = "whoever opened the descriptor of this mount has to unmount it"
		return
	}
	if err := s.mnt.Unmount(); err != nil {
		if !req.Lazy {
			reply.Busy, reply.Error = true, err.Error()
			return
		}
		if err := s.takeAway(); err != nil {
			reply.Error = err.Error()
			return
		}
		reply.Done = true
		return
	}
	select {
	case <-s.gone:
	case <-ctx.Done():
	}
	// Files that were closed in the last moment.
	reply.Unflushed = union(reply.Unflushed, s.flush(ctx))
	reply.Done = true
}

// run returns when the mount has ended: unmounted by anybody, or because stop
// was closed. In that case it flushes, unmounts, and detaches as a last
// resort; closing force cuts every wait short. The texts name the files whose
// data did not reach the store.
func (s *session) run(stop, force <-chan struct{}) (unflushed []string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-force:
			cancel()
		case <-ctx.Done():
		}
	}()
	select {
	case <-s.gone:
		s.end(errEnding)
	case <-stop:
		s.end(errEnding)
		// Only unmounting has to wait for its turn: somebody may be storing
		// what was kept.
		unflushed = s.flush(ctx)
		select {
		case <-s.turn:
			unflushed = union(unflushed, s.flush(ctx))
			err = s.shutDown(ctx)
			s.turn <- struct{}{}
		case <-ctx.Done():
			err = s.leave()
		}
	}
	// Requests of the control socket that are under way end first.
	for _, token := range []chan struct{}{s.turn, s.verifying} {
		select {
		case <-token:
		case <-ctx.Done():
		}
	}
	// Releases may still be on their way after the kernel has let go.
	return union(unflushed, s.flush(ctx)), err
}

// union returns the texts of a, and those of b that a has not.
func union(a, b []string) []string {
	for _, t := range b {
		if !slices.Contains(a, t) {
			a = append(a, t)
		}
	}
	return a
}

// shutDown unmounts, waiting a while for files to be closed.
func (s *session) shutDown(ctx context.Context) error {
	deadline := time.Now().Add(s.patience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		if s.detach == nil {
			// The mount is not ours to end: its maker closes it when we
			// are gone.
			return nil
		}
		err := errInUse
		if !s.detached.Load() {
			err = s.mnt.Unmount()
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			s.log.Warn("still in use, detaching", "err", strings.TrimSpace(err.Error()))
			return s.leave()
		}
		select {
		case <-s.gone:
			return nil
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	select {
	case <-s.gone:
	case <-ctx.Done():
	}
	return nil
}

// takeAway detaches the mount from the file tree, once.
func (s *session) takeAway() error {
	if s.detached.Load() {
		return nil
	}
	err := s.detach()
	s.detached.Store(err == nil)
	return err
}

// ended reports whether the kernel has let go of the mount.
func (s *session) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// errInUse tells that the mount was taken away from programs that used it.
var errInUse = errors.New("unmounted while programs still used it")

// leave takes the mount out of the file tree under the feet of its users. A
// mount without users ends by that; one with users ends with this process.
func (s *session) leave() error {
	if s.detach == nil {
		return nil
	}
	if err := s.takeAway(); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	select {
	case <-s.gone:
		return nil
	case <-time.After(time.Second):
		return errInUse
	}
}

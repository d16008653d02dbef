package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// questionTimeout bounds an operation that asks. One that changes something
// has no deadline of its own: each of its requests has one, and how many
// there are depends on how much there is to move.
const questionTimeout = 5 * time.Minute

// watchAfter is how long a question is asked before its caller is watched.
const watchAfter = 50 * time.Millisecond

// question returns a context that ends when the caller is being killed. The
// kernel reports every signal the same way, and only once a request: a Go
// program's own SIGURG (sent to preempt goroutines) would end each slow
// lookup, for ever. So after an interrupt the pending signals of the caller
// are looked at, again and again, until one is there that can end it.
// The returned function must be called before the request is answered.
func question(ctx context.Context) (context.Context, context.CancelFunc) {
	q, cancel := context.WithTimeout(context.WithoutCancel(ctx), questionTimeout)
	return untilKilled(ctx, q, cancel)
}

// proof is question without the deadline: all of an object may have to be read, and the
// bucket bounds that by how long it is.
func proof(ctx context.Context) (context.Context, context.CancelFunc) {
	q, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return untilKilled(ctx, q, cancel)
}

// untilKilled cancels q when the caller of ctx is being killed.
func untilKilled(ctx, q context.Context, cancel context.CancelFunc) (context.Context, context.CancelFunc) {
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return q, cancel
	}
	interrupted := ctx.Done()
	ended := make(chan struct{})
	// Most questions are answered before anybody could be tired of waiting, and
	// a goroutine for each costs more than the rest of this.
	watch := time.AfterFunc(watchAfter, func() {
		defer close(ended)
		select {
		case <-q.Done():
			return
		case <-interrupted:
		}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for !killed(caller.Pid) {
			select {
			case <-q.Done():
				return
			case <-tick.C:
			}
		}
		cancel()
	})
	return q, func() {
		cancel()
		if !watch.Stop() {
			<-ended
		}
	}
}

// killed reports whether a signal other than SIGURG waits for the thread.
// A thread that cannot be looked at (another PID namespace) counts as killed.
func killed(tid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return true
	}
	const urgent = uint64(1) << (uint(syscall.SIGURG) - 1)
	pending := statusMask(status, "SigPnd:") | statusMask(status, "ShdPnd:")
	return pending&^urgent&^statusMask(status, "SigIgn:")&^statusMask(status, "SigBlk:") != 0
}

// statusMask returns the signal mask of a line of /proc/PID/status.
func statusMask(status []byte, name string) uint64 {
	_, rest, ok := bytes.Cut(status, []byte("\n"+name))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	v, _ := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return v
}

// processOf returns the process of a thread, or the thread when the process
// cannot be found out. What the kernel writes into /proc costs more than all
// the rest of an open, so it is read only of a thread that is neither the first
// of its process, the only one of most programs, nor one of the process that
// was found last.
func (f *filesystem) processOf(tid uint32) uint32 {
	for _, pid := range []uint32{tid, f.lastProcess.Load()} {
		if inProcess(pid, tid) {
			return pid
		}
	}
	pid := readProcessOf(tid)
	f.lastProcess.Store(pid)
	return pid
}

// inProcess reports whether tid is a thread of the process pid: a signal 0 is
// sent to nobody.
func inProcess(pid, tid uint32) bool {
	err := unix.Tgkill(int(pid), int(tid), 0)
	return err == nil || err == unix.EPERM
}

func readProcessOf(tid uint32) uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tid
	}
	_, rest, _ := bytes.Cut(status, []byte("\nTgid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	pid, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 10, 32)
	if err != nil {
		return tid
	}
	return uint32(pid)
}

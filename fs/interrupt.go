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
)

// questionTimeout bounds an operation that asks. One that changes something
// has no deadline of its own: each of its requests has one, and how many
// there are depends on how much there is to move.
const questionTimeout = 5 * time.Minute

// question returns a context that ends when the caller is being killed. The
// kernel reports every signal the same way, and only once a request: a Go
// program's own SIGURG (sent to preempt goroutines) would end each slow
// lookup, for ever. So after an interrupt the pending signals of the caller
// are looked at, again and again, until one is there that can end it.
// The returned function must be called before the request is answered.
func question(ctx context.Context) (context.Context, context.CancelFunc) {
	q, cancel := context.WithTimeout(context.WithoutCancel(ctx), questionTimeout)
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return q, cancel
	}
	interrupted := ctx.Done()
	ended := make(chan struct{})
	go func() {
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
	}()
	return q, func() {
		cancel()
		<-ended
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
// cannot be found out.
func processOf(tid uint32) uint32 {
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

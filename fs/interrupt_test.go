package fs

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProcessOfThread(t *testing.T) {
	own := uint32(os.Getpid())
	// Of two threads at the same time one is not the first.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := uint32(unix.Gettid())
	if thread == own {
		id, done := make(chan int), make(chan struct{})
		defer close(done)
		go func() {
			runtime.LockOSThread()
			id <- unix.Gettid()
			<-done
		}()
		thread = uint32(<-id)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	other := uint32(cmd.Process.Pid)
	f := &filesystem{}
	for _, c := range []struct{ tid, want uint32 }{{own, own}, {thread, own}, {thread, own}, {other, other}, {thread, own}, {1 << 30, 1 << 30}, {0, 0}} {
		if got := f.processOf(c.tid); got != c.want {
			t.Errorf("thread %d: process %d, want %d", c.tid, got, c.want)
		}
	}
	if !inProcess(own, thread) || inProcess(other, thread) || inProcess(own, other) || inProcess(thread, thread) {
		t.Error("inProcess mixes processes up")
	}
}

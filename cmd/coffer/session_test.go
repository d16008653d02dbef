package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/fs"
)

// fakeMount is a mount whose users and store are a test's.
type fakeMount struct {
	mu      sync.Mutex
	dirty   []error
	busy    bool
	flushes int

	verify func(ctx context.Context, tell func(verifyReport) error) error

	once sync.Once
	gone chan struct{}
}

func newFakeMount() *fakeMount { return &fakeMount{gone: make(chan struct{})} }

func (m *fakeMount) Wait() { <-m.gone }
func (m *fakeMount) end()  { m.once.Do(func() { close(m.gone) }) }

func (m *fakeMount) Flush(ctx context.Context) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	if ctx.Err() != nil && len(m.dirty) > 0 {
		return []error{ctx.Err()}
	}
	return m.dirty
}

func (m *fakeMount) Unmount() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy {
		return errors.New("device or resource busy")
	}
	m.end()
	return nil
}

func (m *fakeMount) setBusy(b bool) { m.mu.Lock(); m.busy = b; m.mu.Unlock() }
func (m *fakeMount) Status() any    { return map[string]int{"flushes": m.flushes} }

func (m *fakeMount) Verify(ctx context.Context, _ string, _ int, tell func(verifyReport) error) error {
	return m.verify(ctx, tell)
}

func (m *fakeMount) Kept() []string        { return nil }
func (m *fakeMount) Rescued() []fs.Rescued { return nil }

func (m *fakeMount) CommitRescued(context.Context, string, fs.Destination) error { return nil }
func (m *fakeMount) DiscardRescued(string) error                                 { return nil }

func testSession(m *fakeMount, detach func() error) *session {
	return newSession(m, detach, slog.New(slog.DiscardHandler))
}

func endNow() error { return nil }

func TestSessionEndsWhenUnmountedByAnybody(t *testing.T) {
	m := newFakeMount()
	s := testSession(m, endNow)
	m.end()
	unflushed, err := s.run(nil, nil)
	require.NoError(t, err)
	require.Empty(t, unflushed)
	require.NotZero(t, m.flushes, "late releases are flushed")
}

func TestSessionStopFlushesAndUnmounts(t *testing.T) {
	m := newFakeMount()
	s := testSession(m, func() error { t.Error("detached without need"); return nil })
	unflushed, err := s.run(closed(), nil)
	require.NoError(t, err)
	require.Empty(t, unflushed)
	require.GreaterOrEqual(t, m.flushes, 2)
}

func TestSessionReportsWhatCouldNotBeFlushed(t *testing.T) {
	m := newFakeMount()
	m.dirty = []error{errors.New("a: no space left")}
	unflushed, err := testSession(m, endNow).run(closed(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"a: no space left"}, unflushed)
}

func TestSessionWaitsForOpenFilesThenDetaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMount()
		m.setBusy(true)
		began := time.Now()
		s := testSession(m, func() error { m.end(); return nil })
		_, err := s.run(closed(), nil)
		require.NoError(t, err, "nobody used it after all")
		require.GreaterOrEqual(t, time.Since(began), s.patience)
		require.Less(t, time.Since(began), s.patience+5*time.Second)
	})
}

func TestSessionUsersLetGoInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMount()
		m.setBusy(true)
		go func() {
			time.Sleep(3 * time.Second)
			m.setBusy(false)
		}()
		_, err := testSession(m, func() error { t.Error("detached without need"); return nil }).run(closed(), nil)
		require.NoError(t, err)
	})
}

func TestSessionTakenFromItsUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMount()
		m.setBusy(true)
		defer m.end()
		_, err := testSession(m, endNow).run(closed(), nil)
		require.ErrorIs(t, err, errInUse)
	})
}

func TestSessionSecondSignalForces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMount()
		m.setBusy(true)
		defer m.end()
		force := make(chan struct{})
		began := time.Now()
		go func() {
			time.Sleep(500 * time.Millisecond)
			close(force)
		}()
		_, err := testSession(m, endNow).run(closed(), force)
		require.ErrorIs(t, err, errInUse)
		require.Less(t, time.Since(began), 3*time.Second)
	})
}

func TestSessionOfABorrowedDescriptor(t *testing.T) {
	m := newFakeMount()
	defer m.end()
	s := testSession(m, nil)
	reply := s.handle(t.Context(), controlRequest{Op: "unmount"}, nil)
	require.False(t, reply.Done)
	require.NotEmpty(t, reply.Error)
	_, err := s.run(closed(), nil)
	require.NoError(t, err, "a signal ends it; the kernel's side is its maker's")
}

func TestControlRequests(t *testing.T) {
	t.Run("unmount", func(t *testing.T) {
		m := newFakeMount()
		reply := testSession(m, endNow).handle(t.Context(), controlRequest{Op: "unmount"}, nil)
		require.True(t, reply.Done)
		require.Empty(t, reply.Unflushed)
		<-m.gone
	})
	t.Run("unmount keeps what is not flushed", func(t *testing.T) {
		m := newFakeMount()
		defer m.end()
		m.dirty = []error{errors.New("f: quota")}
		s := testSession(m, endNow)
		reply := s.handle(t.Context(), controlRequest{Op: "unmount"}, nil)
		require.False(t, reply.Done)
		require.Equal(t, []string{"f: quota"}, reply.Unflushed)
		reply = s.handle(t.Context(), controlRequest{Op: "unmount", Discard: true}, nil)
		require.True(t, reply.Done)
		require.NotEmpty(t, reply.Unflushed)
	})
	t.Run("busy", func(t *testing.T) {
		m := newFakeMount()
		defer m.end()
		m.setBusy(true)
		var detached atomic.Int32
		s := testSession(m, func() error { detached.Add(1); return nil })
		reply := s.handle(t.Context(), controlRequest{Op: "unmount"}, nil)
		require.True(t, reply.Busy)
		require.False(t, reply.Done)
		require.Zero(t, detached.Load())
		for range 2 {
			reply = s.handle(t.Context(), controlRequest{Op: "unmount", Lazy: true}, nil)
			require.True(t, reply.Done)
		}
		require.EqualValues(t, 1, detached.Load(), "detached once")
	})
	t.Run("flush and status", func(t *testing.T) {
		m := newFakeMount()
		defer m.end()
		s := testSession(m, endNow)
		require.True(t, s.handle(t.Context(), controlRequest{Op: "flush"}, nil).Done)
		require.Equal(t, map[string]int{"flushes": 1}, s.handle(t.Context(), controlRequest{Op: "status"}, nil).Status)
		require.NotEmpty(t, s.handle(t.Context(), controlRequest{Op: "bogus"}, nil).Error)
	})
}

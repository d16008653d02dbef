package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shortTempDir returns a directory whose name leaves room for a socket.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cfr")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

var quietLog = slog.New(slog.DiscardHandler)

func TestControlRoundTrip(t *testing.T) {
	run := shortTempDir(t)
	env := envOf(map[string]string{"XDG_RUNTIME_DIR": run})
	dir, err := makeControlDir(env)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(run, "coffer"), dir)
	name := filepath.Join(dir, controlName("/mnt/x", ".sock"))
	var got []controlRequest
	srv, err := listenControl(name, func(_ context.Context, r controlRequest, _ *controlPeer) controlReply {
		got = append(got, r)
		return controlReply{Done: true, Unflushed: []string{"f: quota"}}
	}, quietLog)
	require.NoError(t, err)
	st, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())

	c, err := dialControl("/mnt/x", env, os.Getuid())
	require.NoError(t, err)
	defer c.Close()
	for range 2 {
		reply, err := c.call(t.Context(), controlRequest{Op: "unmount", Lazy: true})
		require.NoError(t, err)
		require.True(t, reply.Done)
		require.Equal(t, []string{"f: quota"}, reply.Unflushed)
		require.Equal(t, os.Getpid(), reply.PID)
	}
	require.Equal(t, []controlRequest{{Op: "unmount", Lazy: true}, {Op: "unmount", Lazy: true}}, got)

	bySocket, err := dialControl(name, env, os.Getuid())
	require.NoError(t, err, "the socket's own path names a mount, too")
	require.NoError(t, bySocket.Close())

	_, err = listenControl(name, nil, quietLog)
	require.ErrorContains(t, err, "another daemon")

	_, err = dialControl("/mnt/other", env, os.Getuid())
	require.ErrorIs(t, err, errNoDaemon)

	ended := make(chan error, 1)
	go func() { ended <- c.waitGone(t.Context()) }()
	select {
	case <-ended:
		t.Fatal("the daemon is still there")
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, srv.Close())
	require.NoError(t, <-ended)
	_, err = os.Lstat(name)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestControlGarbage(t *testing.T) {
	name := filepath.Join(shortTempDir(t), "s")
	srv, err := listenControl(name, func(context.Context, controlRequest, *controlPeer) controlReply { return controlReply{Done: true} }, quietLog)
	require.NoError(t, err)
	defer srv.Close()
	for _, text := range []string{"{\n", "\n", "[]\n", strings.Repeat("x", 100_000)} {
		conn, err := net.Dial("unix", name)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
		_, _ = conn.Write([]byte(text))
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err == nil {
			require.Contains(t, string(buf[:n]), "bad request")
		}
		require.NoError(t, conn.Close())
	}
	c, err := dialSocket(name)
	require.NoError(t, err)
	defer c.Close()
	reply, err := c.call(t.Context(), controlRequest{Op: "status"})
	require.NoError(t, err)
	require.True(t, reply.Done, "it still answers")
}

func TestControlReplacesADeadSocket(t *testing.T) {
	name := filepath.Join(shortTempDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, err = dialSocket(name)
	require.ErrorIs(t, err, errNoDaemon)
	srv, err := listenControl(name, nil, quietLog)
	require.NoError(t, err)
	require.NoError(t, srv.Close())
}

func TestControlCallEndsWithItsContext(t *testing.T) {
	name := filepath.Join(shortTempDir(t), "s")
	release := make(chan struct{})
	srv, err := listenControl(name, func(context.Context, controlRequest, *controlPeer) controlReply { <-release; return controlReply{} }, quietLog)
	require.NoError(t, err)
	c, err := dialSocket(name)
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.call(ctx, controlRequest{Op: "flush"})
	require.Error(t, err)
	close(release)
	require.NoError(t, srv.Close())
}

// The lines of an answer come one by one, and who goes away ends the work.
func TestControlStream(t *testing.T) {
	name := filepath.Join(shortTempDir(t), "s")
	ended := make(chan error, 1)
	srv, err := listenControl(name, func(ctx context.Context, r controlRequest, client *controlPeer) controlReply {
		ctx, release := client.attend(ctx)
		defer release()
		for n := range r.Jobs {
			if err := client.send(controlReply{Verify: &verifyReport{Objects: int64(n)}}); err != nil {
				return controlReply{Error: err.Error()}
			}
		}
		if r.Path == "forever" {
			<-ctx.Done()
			ended <- context.Cause(ctx)
		}
		return controlReply{Done: true}
	}, quietLog)
	require.NoError(t, err)
	defer srv.Close()
	c, err := dialSocket(name)
	require.NoError(t, err)
	var lines []int64
	each := func(r controlReply) error {
		require.True(t, r.More)
		lines = append(lines, r.Verify.Objects)
		return nil
	}
	for range 2 { // the connection goes on to be of use
		lines = nil
		last, err := c.stream(t.Context(), controlRequest{Op: "verify", Jobs: 3}, each)
		require.NoError(t, err)
		require.True(t, last.Done)
		require.False(t, last.More)
		require.Equal(t, []int64{0, 1, 2}, lines)
	}
	for what, leave := range map[string]func(cancel func()){
		"it gives up":    func(cancel func()) { cancel() },
		"it is not seen": func(func()) { _ = c.Close() },
	} {
		if c, err = dialSocket(name); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first := make(chan struct{}, 1)
		over := make(chan error, 1)
		go func() {
			_, err := c.stream(ctx, controlRequest{Op: "verify", Jobs: 1, Path: "forever"}, func(controlReply) error { first <- struct{}{}; return nil })
			_ = c.Close()
			over <- err
		}()
		<-first
		leave(cancel)
		require.Error(t, <-over, what)
		require.ErrorIs(t, <-ended, errClientGone, what)
	}
}

func TestControlDirMustBeOurs(t *testing.T) {
	uid := os.Getuid()
	run := shortTempDir(t)
	env := envOf(map[string]string{"XDG_RUNTIME_DIR": run})
	dir := filepath.Join(run, "coffer")

	t.Run("link", func(t *testing.T) {
		require.NoError(t, os.Symlink(t.TempDir(), dir))
		require.ErrorContains(t, trustDir(dir, uid), "not a directory")
		got, err := makeControlDir(env)
		if err == nil {
			require.NotEqual(t, dir, got)
		}
		require.NoError(t, os.Remove(dir))
	})
	t.Run("open to others", func(t *testing.T) {
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.ErrorContains(t, trustDir(dir, uid), "open to others")
		_, err := dialControl("/mnt/x", env, uid)
		require.ErrorIs(t, err, errNoDaemon)
		require.NoError(t, os.Remove(dir))
	})
	t.Run("of somebody else", func(t *testing.T) {
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.ErrorContains(t, trustDir(dir, uid+1), "belongs to")
		require.NoError(t, os.Remove(dir))
	})
	t.Run("too long for a socket", func(t *testing.T) {
		long := filepath.Join(run, strings.Repeat("x", 80))
		require.NoError(t, os.MkdirAll(long, 0o700))
		got, err := makeControlDir(envOf(map[string]string{"XDG_RUNTIME_DIR": long}))
		require.NoError(t, err)
		require.NotContains(t, got, long)
	})
	dirs := controlDirs(env, uid)
	require.Equal(t, dir, dirs[0])
	require.Equal(t, "/tmp/coffer-"+strconv.Itoa(uid), dirs[len(dirs)-1])
	require.NotContains(t, controlDirs(env, uid+1), dir, "another user's sockets are not in ours")
}

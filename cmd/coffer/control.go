package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"coffer/fs"
)

// Each mount listens on a Unix socket of its own. A client sends one JSON
// object a line and receives one a line, or several of which all but the last
// tell that there is more. Only the mounting user and root get through: the
// directory is 0700, the socket 0600, the peer's uid is checked.
//
// The daemon closes the connections as its last act, so that the end of file
// tells a client that everything has been flushed and closed.

// controlRequest is one line from a client.
type controlRequest struct {
	// Op is "status", "flush", "unmount", "commit", "discard" or "verify".
	Op string `json:"op"`
	// Lazy, for unmount: leave the file tree now, end with the last open file.
	Lazy bool `json:"lazy,omitempty"`
	// Discard, for unmount: go on though data could not be flushed.
	Discard bool `json:"discard,omitempty"`
	// ID, for commit and discard: what is held by the mount. To, for commit,
	// is where it is stored.
	ID string          `json:"id,omitempty"`
	To *fs.Destination `json:"to,omitempty"`
	// Path, for verify, is what to read, below the root of the mount; Jobs is how
	// many objects at a time.
	Path string `json:"path,omitempty"`
	Jobs int    `json:"jobs,omitempty"`
}

// controlReply is one line from the daemon.
type controlReply struct {
	// Done tells that the request was carried out.
	Done bool `json:"done"`
	// More tells that another line follows about the same request.
	More bool `json:"more,omitempty"`
	// Busy tells that open files or working directories prevent the unmount.
	Busy bool `json:"busy,omitempty"`
	// Unflushed holds one line for each file whose data is not in the store.
	Unflushed []string `json:"unflushed,omitempty"`
	// Kept are the files in which the mount has kept data that could not be
	// stored; the programs were told.
	Kept []string `json:"kept,omitempty"`
	// Rescued is such data that only the mount has.
	Rescued []fs.Rescued `json:"rescued,omitempty"`
	Error   string       `json:"error,omitempty"`
	// Code is the exit code for the Error, 0 for that of any failure.
	Code int `json:"code,omitempty"`
	// Verify is what was found since the line before.
	Verify *verifyReport `json:"verify,omitempty"`
	// PID is the daemon's process id.
	PID int `json:"pid"`
	// Log is the daemon's log file, "" for its standard error.
	Log    string `json:"log,omitempty"`
	Status any    `json:"status,omitempty"`
}

// controlDirs returns where the sockets of a user's mounts may lie: the run
// directory of the login first, then one in /tmp. A job and a login shell may
// differ in which they know, so a client looks into all.
func controlDirs(env environ, uid int) []string {
	var dirs []string
	if d, _ := env("XDG_RUNTIME_DIR"); filepath.IsAbs(d) && uid == os.Getuid() {
		dirs = append(dirs, filepath.Join(d, "coffer"))
	}
	run := filepath.Join("/run/user", strconv.Itoa(uid), "coffer")
	if len(dirs) == 0 || dirs[0] != run {
		dirs = append(dirs, run)
	}
	return append(dirs, filepath.Join("/tmp", "coffer-"+strconv.Itoa(uid)))
}

// makeControlDir returns a directory for sockets of the user of this process,
// made if absent. A directory that somebody else could have prepared is never
// used: in /tmp anybody may create any name.
func makeControlDir(env environ) (string, error) {
	uid := os.Getuid()
	var errs []error
	for _, dir := range controlDirs(env, uid) {
		if len(filepath.Join(dir, controlName("/", ".sock"))) > maxSocketPath {
			continue
		}
		err := os.Mkdir(dir, 0o700)
		if err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, err)
			continue
		}
		if err := trustDir(dir, uid); err != nil {
			errs = append(errs, err)
			continue
		}
		return dir, nil
	}
	return "", fmt.Errorf("no directory for the control socket: %w", errors.Join(errs...))
}

// maxSocketPath is the length of sun_path in unix(7), less its final zero.
const maxSocketPath = 107

// trustDir checks that dir is a real directory of uid, closed to others.
func trustDir(dir string, uid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", dir)
	case int(st.Uid) != uid:
		return fmt.Errorf("%s belongs to user %d, not to %d", dir, st.Uid, uid)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("%s is open to others (mode %o, want 700)", dir, st.Mode&0o777)
	}
	return nil
}

// controlName returns the file name that belongs to a mount point.
func controlName(mountPoint, suffix string) string {
	sum := sha256.Sum256([]byte(mountPoint))
	return hex.EncodeToString(sum[:8]) + suffix
}

// controlHandler carries out one request; its result is the last line for the client.
type controlHandler func(ctx context.Context, req controlRequest, client *controlPeer) controlReply

// controlPeer is the client whose request is carried out.
type controlPeer struct{ conn net.Conn }

// send sends a line before the last. It blocks while the client reads none.
func (p *controlPeer) send(reply controlReply) error {
	reply.More = true
	return p.say(reply)
}

func (p *controlPeer) say(reply controlReply) error {
	reply.PID = os.Getpid()
	return json.NewEncoder(p.conn).Encode(reply)
}

// lastLine is how long a client may take for the lines that it gets when its
// request has been ended.
const lastLine = time.Second

// errClientGone is the cause of a context of attend.
var errClientGone = errors.New("the client has gone away")

// attend returns a context for work that only this client wants: it ends with
// ctx, and as soon as the client has closed its connection, or says anything
// while it is waiting for an answer. The caller calls release when the work is
// over, and before it returns.
func (p *controlPeer) attend(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var one [1]byte
		_, _ = p.conn.Read(one[:])
		cancel(errClientGone)
	}()
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetWriteDeadline(time.Now().Add(lastLine)) })
	return ctx, func() {
		stop()
		_ = p.conn.SetReadDeadline(time.Now())
		<-gone
		_ = p.conn.SetDeadline(time.Time{})
	}
}

// controlServer answers on one socket until it is closed.
type controlServer struct {
	// name is the socket's path.
	name     string
	listener *net.UnixListener
	handle   controlHandler
	log      *slog.Logger
	cancel   context.CancelFunc
	ctx      context.Context
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// listenControl starts to answer on the socket called name, replacing one
// that no process listens on any more.
func listenControl(name string, handle controlHandler, log *slog.Logger) (*controlServer, error) {
	if c, err := net.DialTimeout("unix", name, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("control socket %s: another daemon listens there", name)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		_ = os.Remove(name)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The directory keeps others out until the mode is set.
	if err := os.Chmod(name, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &controlServer{name: name, listener: l, handle: handle, log: log, ctx: ctx, cancel: cancel, conns: map[net.Conn]struct{}{}}
	s.wg.Go(s.accept)
	return s, nil
}

func (s *controlServer) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Error("control socket", "err", err)
			}
			return
		}
		if uid, err := peerUID(conn); err != nil || (uid != 0 && uid != os.Getuid()) {
			s.log.Warn("control socket: refused a connection", "uid", uid, "err", err)
			_ = conn.Close()
			continue
		}
		s.mu.Lock()
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.wg.Go(func() { s.talk(conn) })
	}
}

// maxControlLine bounds a request: a path, of which JSON may make six times as
// many bytes, and a little more.
const maxControlLine = 16 << 10

func (s *controlServer) talk(conn *net.UnixConn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close()
	}()
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 512), maxControlLine)
	client := &controlPeer{conn}
	for lines.Scan() {
		var req controlRequest
		var reply controlReply
		if err := json.Unmarshal(lines.Bytes(), &req); err != nil {
			reply.Error = "bad request: " + err.Error()
		} else {
			reply = s.handle(s.ctx, req, client)
		}
		if err := client.say(reply); err != nil {
			return
		}
	}
}

// Close ends all connections, waits for requests under way, and removes the
// socket.
func (s *controlServer) Close() error {
	err := s.listener.Close() // removes the socket file, too
	s.cancel()
	s.mu.Lock()
	for c := range s.conns {
		// Reads end now; a reply under way may still be written.
		_ = c.(*net.UnixConn).CloseRead()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// peerUID returns the user at the other end.
func peerUID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	uid := -1
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			credErr = err
			return
		}
		uid = int(cred.Uid)
	}); err != nil {
		return -1, err
	}
	return uid, credErr
}

// controlClient is a connection to a mount's daemon.
type controlClient struct {
	conn net.Conn
	in   *bufio.Reader
}

// errNoDaemon tells that no process answers for a mount point.
var errNoDaemon = errors.New("no daemon answers for it")

// eachDaemon calls f for every daemon of this user that answers.
func eachDaemon(env environ, f func(c *controlClient)) {
	uid := os.Getuid()
	for _, dir := range controlDirs(env, uid) {
		if trustDir(dir, uid) != nil {
			continue
		}
		names, _ := filepath.Glob(filepath.Join(dir, "*.sock")) // the pattern is good
		for _, name := range names {
			if c, err := dialSocket(name); err == nil {
				f(c)
				_ = c.Close()
			}
		}
	}
}

// dialControl connects to the daemon of a mount point, looking into each
// directory that uid's daemons use and nobody else could have made. The
// mount point may be given as the path of the socket itself.
func dialControl(mountPoint string, env environ, uid int) (*controlClient, error) {
	if st, err := os.Stat(mountPoint); err == nil && st.Mode()&os.ModeSocket != 0 {
		return dialSocket(mountPoint)
	}
	for _, dir := range controlDirs(env, uid) {
		if trustDir(dir, uid) != nil {
			continue
		}
		c, err := dialSocket(filepath.Join(dir, controlName(mountPoint, ".sock")))
		if err == nil || !errors.Is(err, errNoDaemon) {
			return c, err
		}
	}
	return nil, errNoDaemon
}

// dialMount connects to the daemon of a mount, which for root may be another user's.
func dialMount(entry mountEntry, env environ) (*controlClient, error) {
	uid := os.Getuid()
	if entry.UID >= 0 && uid == 0 {
		uid = entry.UID
	}
	c, err := dialControl(entry.Dir, env, uid)
	if errors.Is(err, errNoDaemon) && uid != os.Getuid() {
		return dialControl(entry.Dir, env, os.Getuid())
	}
	return c, err
}

func dialSocket(name string) (*controlClient, error) {
	conn, err := net.DialTimeout("unix", name, 5*time.Second)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, errNoDaemon
	case err != nil:
		return nil, err
	}
	return newControlClient(conn), nil
}

func newControlClient(conn net.Conn) *controlClient {
	return &controlClient{conn: conn, in: bufio.NewReader(conn)}
}

// call sends one request and waits for its reply, until ctx ends.
func (c *controlClient) call(ctx context.Context, req controlRequest) (controlReply, error) {
	return c.stream(ctx, req, func(controlReply) error { return nil })
}

// stream sends one request and calls each with every line of the answer but the
// last, which it returns. When ctx ends or each fails, the caller has to close c.
func (c *controlClient) stream(ctx context.Context, req controlRequest, each func(controlReply) error) (controlReply, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })
	defer stop()
	if err := json.NewEncoder(c.conn).Encode(req); err != nil {
		return controlReply{}, err
	}
	for {
		line, err := c.in.ReadBytes('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return controlReply{}, errors.New("the daemon ended without an answer; see its log")
		}
		if err != nil {
			return controlReply{}, err
		}
		var reply controlReply
		if err := json.Unmarshal(line, &reply); err != nil {
			return controlReply{}, fmt.Errorf("control socket: %w", err)
		}
		if !reply.More {
			return reply, nil
		}
		if err := each(reply); err != nil {
			return controlReply{}, err
		}
	}
}

// waitGone returns when the daemon has closed everything it had open.
func (c *controlClient) waitGone(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })
	defer stop()
	_, err := io.Copy(io.Discard, c.in)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}

func (c *controlClient) Close() error { return c.conn.Close() }

package s3store

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"coffer/objstore"
	"coffer/objstore/emulator"

	"github.com/stretchr/testify/require"
)

// scripted is a server whose connections are served by a function that gets the
// number of the connection, from 1, and returns to close it.
func scripted(t *testing.T, serve func(n int32, c net.Conn, requests *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	var n atomic.Int32
	ended := make(chan struct{})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			i := n.Add(1)
			all.Go(func() {
				defer c.Close()
				done := make(chan struct{})
				defer close(done)
				all.Go(func() {
					select {
					case <-ended:
						_ = c.Close()
					case <-done:
					}
				})
				serve(i, c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(ended)
		all.Wait()
	})
	return "http://" + l.Addr().String() + "/path"
}

// next reads one request with its body, "" at the end of the connection.
func next(requests *bufio.Reader) (method, body string) {
	req, err := http.ReadRequest(requests)
	if err != nil {
		return "", ""
	}
	text, _ := io.ReadAll(req.Body)
	return req.Method, string(text)
}

// impatient are connections that give up soon.
func impatient(t *testing.T) *conns {
	p := newConns(newTransport(nil), patience{body: 300 * time.Millisecond, read: time.Second, write: time.Second})
	t.Cleanup(p.close)
	return p
}

// waiting is how many connections are idle.
func (p *conns) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// send sends one request and reads the reply.
func (p *conns) send(ctx context.Context, method, to, body string) (status int, text string, err error) {
	u, err := url.Parse(to)
	if err != nil {
		return 0, "", err
	}
	req := &http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
	resp, err := p.exchange(ctx, req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(all), err
}

func TestReplies(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for name, c := range map[string]struct {
		method string // "" is GET
		reply  string
		hold   bool // the server keeps the connection open
		status int
		body   string
		err    string
		kept   bool
	}{
		"length":                     {"", ok, true, 200, "ok", "", true},
		"no body":                    {"", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, 200, "", "", true},
		"put":                        {"PUT", ok, true, 200, "ok", "", true},
		"interim replies":            {"", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok, true, 200, "ok", "", true},
		"chunks":                     {"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nTrailer: x\r\n\r\n", true, 200, "ok", "", true},
		"head":                       {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", true, 200, "", "", true},
		"head of chunks":             {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, 200, "", "", true},
		"204":                        {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n", true, 204, "", "", true},
		"304":                        {"", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", true, 304, "", "", true},
		"connection: close":          {"", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok", "", false},
		"HTTP/1.0":                   {"", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok", "", false},
		"HTTP/1.0 with keep-alive":   {"", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok", "", true},
		"up to the close":            {"", "HTTP/1.1 200 OK\r\n\r\nok", false, 200, "ok", "", false},
		"more than the reply":        {"", ok + "HTTP/1.1 200 OK\r\n\r\n", true, 200, "ok", "", false},
		"body after head":            {"HEAD", ok, true, 200, "", "", false},
		"body of 204":                {"", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", true, 204, "", "", false},
		"other protocol":             {"", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", true, 0, "", errSwitched.Error(), false},
		"closed at once":             {"", "", false, 0, "", "unexpected EOF", false},
		"closed in the status":       {"", "HTTP/1.1 200", false, 0, "", "unexpected EOF", false},
		"closed in the headers":      {"", "HTTP/1.1 200 OK\r\nContent-Le", false, 0, "", "malformed", false},
		"closed behind a header":     {"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", false, 0, "", "unexpected EOF", false},
		"closed in a length":         {"", "HTTP/1.1 200 OK\r\nContent-Length: 2", false, 0, "", "unexpected EOF", false},
		"closed in the body":         {"", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false, 200, "ok", "unexpected EOF", false},
		"closed in a chunk":          {"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok", false, 200, "ok", "unexpected EOF", false},
		"closed before the trailer":  {"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", false, 200, "ok", "unexpected EOF", false},
		"two lengths":                {"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", true, 0, "", "multiple Content-Length", false},
		"no HTTP":                    {"", "SSH-2.0-OpenSSH_9.2\r\n", true, 0, "", "malformed", false},
		"long headers":               {"", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxReplyHead/2) + "\r\nContent-Length: 2\r\n\r\nok", true, 200, "ok", "", true},
		"too long headers":           {"", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxReplyHead) + "\r\nContent-Length: 2\r\n\r\nok", true, 0, "", errReplyHead.Error(), false},
		"too many interim replies":   {"", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("x", maxReplyHead/64)+"\r\n\r\n", 64) + ok, true, 0, "", errReplyHead.Error(), false},
		"silence":                    {"", "", true, 0, "", errNoReply.Error(), false},
		"silence in the headers":     {"", "HTTP/1.1 200 OK\r\n", true, 0, "", errNoReply.Error(), false},
		"silence in the body":        {"", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", true, 200, "ok", errNoReply.Error(), false},
		"silence after interim ones": {"PUT", "HTTP/1.1 100 Continue\r\n\r\n", true, 0, "", errNoReply.Error(), false},
	} {
		t.Run(name, func(t *testing.T) {
			to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
				for method, _ := next(requests); method != ""; method, _ = next(requests) {
					if _, _ = io.WriteString(w, c.reply); !c.hold {
						return
					}
				}
			})
			p := impatient(t)
			for range 2 { // the second time over the connection that was kept
				var status int
				var body string
				var err error
				within(t, 4*time.Second, func() { status, body, err = p.send(t.Context(), cmp.Or(c.method, "GET"), to, "") })
				if c.err == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, c.err)
				}
				require.Equal(t, c.status, status)
				require.Equal(t, c.body, body)
				require.Equal(t, c.kept, p.waiting() == 1)
			}
		})
	}
}

// TestRepetitions: a request goes out once more, over a new connection, when the
// server cannot have carried it out, or may have and it only reads.
func TestRepetitions(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		first  string // what the first connection does after its first reply
		method string
		fails  bool
		got    []string // by the server
	}{
		"closed while idle, HEAD":          {"close", "HEAD", false, []string{"GET", "HEAD"}},
		"closed while idle, PUT":           {"close", "PUT", false, []string{"GET", "PUT"}},
		"words while idle, PUT":            {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "PUT", false, []string{"GET", "PUT"}},
		"closed after the request, HEAD":   {"read", "HEAD", false, []string{"GET", "HEAD", "HEAD"}},
		"closed after the request, GET":    {"read", "GET", false, []string{"GET", "GET", "GET"}},
		"closed after the request, PUT":    {"read", "PUT", true, []string{"GET", "PUT"}},
		"closed after the request, DELETE": {"read", "DELETE", true, []string{"GET", "DELETE"}},
		"closed in the reply, HEAD":        {"reply", "HEAD", true, []string{"GET", "HEAD"}},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			said := make(chan struct{})
			to := scripted(t, func(n int32, w net.Conn, requests *bufio.Reader) {
				take := func() bool {
					method, _ := next(requests)
					mu.Lock()
					defer mu.Unlock()
					if method != "" {
						got = append(got, method)
					}
					return method != ""
				}
				for i := 0; take(); i++ {
					if n > 1 || i == 0 {
						_, _ = io.WriteString(w, ok)
					}
					if n > 1 {
						continue
					}
					switch {
					case i == 1:
						if c.first == "reply" {
							_, _ = io.WriteString(w, ok[:20])
						}
						return
					case c.first == "close":
						_ = w.Close()
						close(said)
						return
					case strings.HasPrefix(c.first, "HTTP"):
						time.Sleep(20 * time.Millisecond)
						_, _ = io.WriteString(w, c.first)
					}
					close(said)
				}
			})
			p := impatient(t)
			_, _, err := p.send(t.Context(), "GET", to, "")
			require.NoError(t, err)
			require.Equal(t, 1, p.waiting())
			<-said
			time.Sleep(10 * time.Millisecond) // for the kernel
			status, _, err := p.send(t.Context(), c.method, to, "")
			require.Equal(t, c.fails, err != nil, "%v", err)
			require.Equal(t, !c.fails, status == 200)
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, c.got, got)
		})
	}
}

// closedSocket is one that the server has closed since it was looked at.
type closedSocket struct{ net.Conn }

func (closedSocket) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// TestNothingWasSent: what the server has seen nothing of goes out once more,
// whatever it changes.
func TestNothingWasSent(t *testing.T) {
	to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
		for method, _ := next(requests); method != ""; method, _ = next(requests) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	p := impatient(t)
	_, _, err := p.send(t.Context(), "GET", to, "")
	require.NoError(t, err)
	require.Equal(t, 1, p.waiting())
	for _, stack := range p.idle {
		stack[0].rw = closedSocket{stack[0].rw}
	}
	status, _, err := p.send(t.Context(), "PUT", to, "data")
	require.NoError(t, err)
	require.Equal(t, 200, status)
}

// TestConditionalPutOverALostConnection: the reply may be lost, so whoever asks
// looks whether the object is there before it says that another's is.
func TestConditionalPutOverALostConnection(t *testing.T) {
	srv, s, b := emulated(t, "aws", Config{})
	put(t, b, "first", random(10), objstore.CreateOptions{})
	require.NotZero(t, s.conns.waiting())
	srv.Inject(emulator.Fault{Verb: "PutObject", LoseReply: true, Nth: 1})
	put(t, b, "key", random(1000), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
	require.Equal(t, 3, count(srv, "PutObject"))
}

// TestEarlyRefusal comes before the body was read, which the server then never
// does.
func TestEarlyRefusal(t *testing.T) {
	to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
		_, _ = http.ReadRequest(requests)
		_, _ = io.WriteString(w, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
	})
	for _, size := range []int{10, inOneWrite, 16 << 20} { // the last is more than the kernel takes
		p := impatient(t)
		status, body, err := p.send(t.Context(), "PUT", to, strings.Repeat("x", size))
		require.NoError(t, err, size)
		require.Equal(t, 403, status)
		require.Equal(t, "no", body)
	}
}

// slowSocket takes one byte before each deadline, and none after the last of room.
type slowSocket struct {
	net.Conn
	room  int
	until time.Time
}

func (s *slowSocket) SetWriteDeadline(t time.Time) error {
	s.until = t
	return nil
}

func (s *slowSocket) Write(p []byte) (int, error) {
	if s.room > 0 && len(p) == 1 {
		return 1, nil
	}
	n := min(s.room, 1)
	s.room -= n
	time.Sleep(time.Until(s.until))
	return n, os.ErrDeadlineExceeded
}

// TestSlowServersAreNotGivenUp as long as they take something.
func TestSlowServersAreNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for room, waits := range map[int]time.Duration{5: 4, 4: 5, 0: 1} {
			start := time.Now()
			n, err := (&conn{&slowSocket{room: room}}).Write(make([]byte, 5))
			require.Equal(t, room, n)
			require.Equal(t, room < 5, errors.Is(err, os.ErrDeadlineExceeded))
			require.Equal(t, waits*writeStall, time.Since(start))
		}
	})
}

// TestCancelClosesTheConnection, whatever is waited for.
func TestCancelClosesTheConnection(t *testing.T) {
	why := errors.New("why")
	for name, reply := range map[string]string{"reply": "", "headers": "HTTP/1.1 200 OK\r\n", "body": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
				next(requests)
				_, _ = io.WriteString(w, reply)
				_, _ = requests.ReadByte()
				close(gone)
			})
			p := newConns(newTransport(nil), defaultPatience)
			defer p.close()
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
			within(t, time.Second, func() {
				_, _, err := p.send(ctx, "GET", to, "")
				require.ErrorIs(t, err, why)
				<-gone
			})
			require.Zero(t, p.waiting())
		})
	}
	t.Run("nothing yet", func(t *testing.T) {
		var calls atomic.Int32
		to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
			for method, _ := next(requests); method != ""; method, _ = next(requests) {
				calls.Add(1)
				_, _ = io.WriteString(w, "HTTP/1.1 204 No Content\r\n\r\n")
			}
		})
		p := impatient(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := p.send(ctx, "GET", to, "")
		require.NoError(t, err)
		cancel()
		for range 100 {
			_, _, err = p.send(ctx, "DELETE", to, "")
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, int32(1), calls.Load())
	})
}

// TestBodyThatIsLeft: what is not read to its end takes its connection along.
func TestBodyThatIsLeft(t *testing.T) {
	to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
		next(requests)
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")
		next(requests)
	})
	for n, kept := range map[int]bool{0: false, 3: false, 4: true} {
		p := impatient(t)
		u, err := url.Parse(to)
		require.NoError(t, err)
		resp, err := p.exchange(t.Context(), &http.Request{Method: "GET", URL: u, Host: u.Host})
		require.NoError(t, err)
		_, err = io.ReadFull(resp.Body, make([]byte, n))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.NoError(t, resp.Body.Close())
		require.Equal(t, kept, p.waiting() == 1, n)
		_, err = resp.Body.Read(make([]byte, 1))
		require.Error(t, err)
	}
}

func TestConnectionsOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName, r.Proto) }))
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	secure := func(roots *x509.CertPool) *conns {
		p := newConns(newTransport(roots), patience{body: time.Second, read: time.Second, write: time.Second})
		p.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, strings.Replace(addr, "example.com", "127.0.0.1", 1))
			return &conn{c}, err
		}
		t.Cleanup(p.close)
		return p
	}
	byName := strings.Replace(srv.URL, "127.0.0.1", "example.com", 1)
	t.Run("kept", func(t *testing.T) {
		p := secure(roots)
		for range 3 {
			status, body, err := p.send(t.Context(), "GET", byName, "")
			require.NoError(t, err)
			require.Equal(t, 200, status)
			require.Equal(t, "example.comHTTP/1.1", body)
			require.Equal(t, 1, p.waiting())
		}
		srv.CloseClientConnections()
		status, _, err := p.send(t.Context(), "PUT", byName, "body")
		require.NoError(t, err)
		require.Equal(t, 200, status)
	})
	t.Run("words behind the reply", func(t *testing.T) {
		var calls atomic.Int32
		to := scripted(t, func(_ int32, w net.Conn, _ *bufio.Reader) {
			over := tls.Server(w, srv.TLS)
			requests := bufio.NewReader(over)
			for method, _ := next(requests); method != ""; method, _ = next(requests) {
				fmt.Fprintf(over, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", calls.Add(1))
				_, _ = io.WriteString(over, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") // in a record of its own
			}
		})
		p := secure(roots)
		for i := range 3 {
			_, body, err := p.send(t.Context(), "PUT", strings.NewReplacer("http:", "https:", "127.0.0.1", "example.com").Replace(to), "")
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i+1), body)
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Run("long bodies", func(t *testing.T) {
		want := random(3*sealedBuffer + 12345)
		long := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(want) }))
		defer long.Close()
		known := x509.NewCertPool()
		known.AddCert(long.Certificate())
		p := secure(known)
		u, err := url.Parse(long.URL)
		require.NoError(t, err)
		for _, piece := range []int{1 << 10, 16<<10 + 1, 100_000, sealedBuffer, 1 << 20} {
			resp, err := p.exchange(t.Context(), &http.Request{Method: "GET", URL: u, Host: u.Host})
			require.NoError(t, err)
			var got bytes.Buffer
			_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{resp.Body}, make([]byte, piece))
			require.NoError(t, err, piece)
			require.True(t, bytes.Equal(want, got.Bytes()), piece)
			require.Equal(t, 1, p.waiting(), piece) // the same one each time
		}
	})
	t.Run("words behind a long reply", func(t *testing.T) {
		long := strings.Repeat("x", 20<<10)
		var calls atomic.Int32
		to := scripted(t, func(_ int32, w net.Conn, _ *bufio.Reader) {
			over := tls.Server(w, srv.TLS)
			requests := bufio.NewReader(over)
			for method, _ := next(requests); method != ""; method, _ = next(requests) {
				fmt.Fprintf(over, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(long)+1)
				time.Sleep(50 * time.Millisecond) // what follows comes in one piece
				fmt.Fprintf(over, "%d%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", calls.Add(1), long)
			}
		})
		p := secure(roots)
		for i := range 3 {
			_, body, err := p.send(t.Context(), "GET", strings.NewReplacer("http:", "https:", "127.0.0.1", "example.com").Replace(to), "")
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i+1)+long, body)
			time.Sleep(10 * time.Millisecond)
		}
	})
	t.Run("a body that falls silent", func(t *testing.T) {
		to := scripted(t, func(_ int32, w net.Conn, _ *bufio.Reader) {
			over := tls.Server(w, srv.TLS)
			requests := bufio.NewReader(over)
			_, _ = next(requests)
			fmt.Fprint(over, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far")
			_, _ = next(requests)
		})
		p := secure(roots)
		_, body, err := p.send(t.Context(), "GET", strings.NewReplacer("http:", "https:", "127.0.0.1", "example.com").Replace(to), "")
		require.ErrorIs(t, err, errNoReply)
		require.Equal(t, "so far", body)
		require.Zero(t, p.waiting())
	})
	t.Run("roots that do not know it", func(t *testing.T) {
		_, _, err := secure(x509.NewCertPool()).send(t.Context(), "GET", byName, "")
		require.True(t, isWrongServer(err), "%v", err)
	})
	t.Run("another name", func(t *testing.T) {
		p := secure(roots)
		p.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			c, err := net.Dial("tcp", srv.Listener.Addr().String())
			return &conn{c}, err
		}
		_, _, err := p.send(t.Context(), "GET", "https://elsewhere.example.org", "")
		require.True(t, isWrongServer(err), "%v", err)
	})
	t.Run("no TLS", func(t *testing.T) {
		to := scripted(t, func(_ int32, w net.Conn, _ *bufio.Reader) {
			_, _ = io.WriteString(w, "HTTP/1.1 400 Bad Request\r\n\r\n")
		})
		_, _, err := secure(roots).send(t.Context(), "GET", strings.Replace(to, "http:", "https:", 1), "")
		require.True(t, isWrongServer(err), "%v", err)
	})
	t.Run("silent handshake", func(t *testing.T) {
		to := scripted(t, func(_ int32, _ net.Conn, requests *bufio.Reader) { _, _ = io.Copy(io.Discard, requests) })
		within(t, 3*time.Second, func() {
			_, _, err := secure(roots).send(t.Context(), "GET", strings.Replace(to, "http:", "https:", 1), "")
			require.True(t, isTransient(err), "%v", err)
		})
	})
}

// TestNothingIsLeftOfConnections: idle ones go by themselves, and at Close all.
func TestNothingIsLeftOfConnections(t *testing.T) {
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	var now atomic.Int32
	gate := make(chan struct{})
	pass := sync.OnceFunc(func() { close(gate) })
	to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
		for method, _ := next(requests); method != ""; method, _ = next(requests) {
			if now.Add(1) == 8 {
				pass() // so that there are eight connections
			}
			<-gate
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			now.Add(-1)
		}
	})
	for name, end := range map[string]func(*conns){
		"idle": func(*conns) {}, "close": (*conns).close,
	} {
		t.Run(name, func(t *testing.T) {
			p := impatient(t)
			p.transport.IdleConnTimeout = 300 * time.Millisecond
			if name == "close" {
				p.transport.IdleConnTimeout = time.Hour
			}
			p.transport.MaxIdleConns = 6
			files, goroutines := open(), runtime.NumGoroutine()
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					_, _, err := p.send(t.Context(), "GET", to, "")
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			require.LessOrEqual(t, p.waiting(), 6)
			require.NotZero(t, p.waiting())
			end(p)
			for start := time.Now(); open() > files || runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
				require.Less(t, time.Since(start), 5*time.Second)
			}
			require.Zero(t, p.waiting())
			_, _, err := p.send(t.Context(), "GET", to, "")
			require.NoError(t, err, "a request after that finds a new connection")
			require.Equal(t, name == "idle", p.waiting() == 1)
		})
	}
}

// TestRepliesAreNotMixedUp has many callers share connections.
func TestRepliesAreNotMixedUp(t *testing.T) {
	to := scripted(t, func(_ int32, w net.Conn, requests *bufio.Reader) {
		for method, body := next(requests); method != ""; method, body = next(requests) {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	p := newConns(newTransport(nil), defaultPatience)
	defer p.close()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 100 {
				want := strings.Repeat(fmt.Sprint(i, j), 1+100*i)
				_, got, err := p.send(t.Context(), "PUT", to, want)
				if err != nil || got != want {
					t.Errorf("%d %d: %.20q, %v", i, j, got, err)
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, p.waiting(), 16)
}

func TestRequestText(t *testing.T) {
	at := func(raw string) *url.URL {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		return u
	}
	for name, c := range map[string]struct {
		req  http.Request
		want string // "" is refused
	}{
		"get":         {http.Request{Method: "GET", URL: at("http://h:1/a%20b?c=d%20e"), Host: "h:1", Header: http.Header{"A": {"1"}}}, "GET /a%20b?c=d%20e HTTP/1.1\r\nHost: h:1\r\nA: 1\r\n\r\n"},
		"root":        {http.Request{Method: "HEAD", URL: at("http://h"), Host: "h"}, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"},
		"put nothing": {http.Request{Method: "PUT", URL: at("http://h/a"), Host: "h"}, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"},
		"put":         {http.Request{Method: "PUT", URL: at("http://h/a"), Host: "h", ContentLength: 12}, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n"},
		"delete":      {http.Request{Method: "DELETE", URL: at("http://h/a"), Host: "h"}, "DELETE /a HTTP/1.1\r\nHost: h\r\n\r\n"},
		"UTF-8":       {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A": {"\u00e4\tb"}}}, "GET / HTTP/1.1\r\nHost: h\r\nA: \u00e4\tb\r\n\r\n"},
		"line feed":   {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A": {"1\nB: 2"}}}, ""},
		"return":      {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A": {"1\r"}}}, ""},
		"NUL":         {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A": {"\x00"}}}, ""},
		"name":        {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A: 1\r\nB": {"2"}}}, ""},
		"blank name":  {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"A ": {"2"}}}, ""},
		"no name":     {http.Request{Method: "GET", URL: at("http://h/"), Host: "h", Header: http.Header{"": {"2"}}}, ""},
		"host":        {http.Request{Method: "GET", URL: at("http://h/"), Host: "h\r\nA: 1"}, ""},
		"query":       {http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: "a HTTP/1.1\r\nB: 1"}, Host: "h"}, ""},
		"path":        {http.Request{Method: "GET", URL: &url.URL{Path: "/a b\r\n"}, Host: "h"}, "GET /a%20b%0D%0A HTTP/1.1\r\nHost: h\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := appendRequest(nil, &c.req)
			require.Equal(t, c.want, string(got))
			require.Equal(t, c.want == "", err != nil)
		})
	}
}

// TestWhatNetHTTPSends stays with it: what a proxy is named for, or a host that
// must be rewritten first.
func TestWhatNetHTTPSends(t *testing.T) {
	p := impatient(t)
	p.transport.Proxy = func(r *http.Request) (*url.URL, error) {
		if r.URL.Hostname() == "proxied" {
			return &url.URL{Scheme: "http", Host: "proxy:3128"}, nil
		}
		return nil, nil
	}
	for host, want := range map[string]bool{"direct": true, "127.0.0.1:80": true, "[::1]:80": true, "proxied": false, "proxied:80": false, "[fe80::1%25eth0]": false, "b\u00fccher.example": false} {
		u, err := url.Parse("http://" + host + "/key")
		require.NoError(t, err)
		require.Equal(t, want, p.takes(&http.Request{URL: u}), host)
	}
}

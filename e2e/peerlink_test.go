package e2e

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// link is a way to a server that is longer than loopback: each answer's first
// byte is late, and each connection carries so much a second. It counts what
// passes.
type link struct {
	endpoint  string
	firstByte time.Duration
	proxy     *httputil.ReverseProxy
	requests  atomic.Int64
	flying    atomic.Int64 // requests that are being answered
	most      atomic.Int64 // of them at a time, since reset
	body      atomic.Int64 // bytes of answers
}

// startLink leads to an http endpoint until the test ends; a rate of 0 is as
// fast as it goes, else bytes a second.
func startLink(t testing.TB, endpoint string, firstByte time.Duration, rate int64) *link {
	t.Helper()
	target, err := url.Parse(endpoint)
	must(t, err)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}
	l := &link{firstByte: firstByte, proxy: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) { // Host and path stay as they are signed
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.URL.Path, r.Out.URL.RawPath, r.Out.URL.RawQuery = r.In.URL.Path, r.In.URL.RawPath, r.In.URL.RawQuery
			r.Out.Host = r.In.Host
		},
		BufferPool: newLinkBuffers(),
		ErrorLog:   log.New(io.Discard, "", 0), // clients that leave early are no news
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if rate > 0 {
		listener = pacedListener{listener, rate}
	}
	server := &http.Server{Handler: l, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		<-served
		transport.CloseIdleConnections()
	})
	l.endpoint = "http://" + listener.Addr().String()
	return l
}

// env is the environment of a client of the server, by way of the link.
func (l *link) env(direct []string) []string {
	return append(append([]string{}, direct...), "AWS_ENDPOINT_URL="+l.endpoint)
}

func (l *link) reset() { l.requests.Store(0); l.most.Store(0); l.body.Store(0) }

// ServeHTTP passes a request on, late.
func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.requests.Add(1)
	flying := l.flying.Add(1)
	defer l.flying.Add(-1)
	for m := l.most.Load(); flying > m && !l.most.CompareAndSwap(m, flying); m = l.most.Load() {
	}
	time.Sleep(l.firstByte)
	l.proxy.ServeHTTP(&countedAnswer{w, &l.body}, r)
}

type countedAnswer struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countedAnswer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

func (w *countedAnswer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// linkBuffers makes the proxy copy in large pieces.
type linkBuffers struct{ pool *sync.Pool }

type linkBuffer [256 << 10]byte

func newLinkBuffers() linkBuffers {
	return linkBuffers{&sync.Pool{New: func() any { return new(linkBuffer) }}}
}

func (b linkBuffers) Get() []byte  { return b.pool.Get().(*linkBuffer)[:] }
func (b linkBuffers) Put(p []byte) { b.pool.Put((*linkBuffer)(p)) }

type pacedListener struct {
	net.Listener
	rate int64
}

func (l pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: c, rate: l.rate}, nil
}

// pacedConn writes no more than rate bytes a second.
type pacedConn struct {
	net.Conn
	rate int64
	free time.Time // when all that was written has passed
}

// pacedLag is how much a connection may catch up on that was too slow, which
// it is by every sleep that ends late.
const pacedLag = 5 * time.Millisecond

func (c *pacedConn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if idle := time.Now().Add(-pacedLag); c.free.Before(idle) {
			c.free = idle
		}
		n, err := c.Conn.Write(p[done:min(done+64<<10, len(p))])
		done += n
		if err != nil {
			return done, err
		}
		c.free = c.free.Add(time.Duration(int64(n) * int64(time.Second) / c.rate))
		time.Sleep(time.Until(c.free))
	}
	return done, nil
}

func TestPacedConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		got := make(chan int64)
		go func() { n, _ := io.Copy(io.Discard, far); got <- n }()
		c := &pacedConn{Conn: near, rate: 1 << 20}
		begun := time.Now()
		for range 3 {
			n, err := c.Write(make([]byte, 1<<20))
			if n != 1<<20 || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if took := time.Since(begun); took < 3*time.Second-pacedLag || took > 3*time.Second {
			t.Errorf("3 MiB at 1 MiB/s took %v", took)
		}
		time.Sleep(time.Minute) // an idle minute is no credit
		begun = time.Now()
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < time.Second-pacedLag {
			t.Errorf("1 MiB after an idle minute took %v", took)
		}
		near.Close()
		if n := <-got; n != 4<<20 {
			t.Errorf("%d bytes arrived", n)
		}
	})
}

func TestLinkCountsAndDelays(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 300<<10)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != "/b/a%2Fb" || r.URL.RawQuery != "q=%20" {
			t.Errorf("%s arrived as %s?%s", r.Host, r.URL.EscapedPath(), r.URL.RawQuery)
		}
		_, _ = w.Write(body)
	}))
	defer upstream.Close()
	l := startLink(t, upstream.URL, 30*time.Millisecond, 0)
	for range 2 {
		begun := time.Now()
		resp, err := http.Get(l.endpoint + "/b/a%2Fb?q=%20")
		must(t, err)
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(begun); took < 30*time.Millisecond {
			t.Errorf("the answer was there after %v", took)
		}
	}
	if l.requests.Load() != 2 || l.body.Load() != int64(2*len(body)) {
		t.Errorf("%d requests, %d bytes", l.requests.Load(), l.body.Load())
	}
}

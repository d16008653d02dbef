package s3store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// idleConnTimeout closes unused connections before the server does: some
	// close after five seconds, and a request that meets the close is lost.
	idleConnTimeout = 4 * time.Second
	dialTimeout     = 10 * time.Second
	// maxIdleConns keeps the connections of a burst for the next one.
	maxIdleConns = 256
	// writeStall is how long a server may take no byte of a request body.
	writeStall = 60 * time.Second
)

// patience is how long a silent server is waited for before a request is given
// up and repeated.
type patience struct {
	// body is the longest time in which the body of a reply brings no byte.
	body time.Duration
	// read and write bound the time to the first byte of a reply, for GET and
	// HEAD and for the rest; a request gets a second more for each MiB that
	// it sends. Servers answer a GET at once, but a part copy of gigabytes
	// only when it is done.
	read, write time.Duration
}

// reply is how long the reply to req may take to begin.
func (p patience) reply(req *http.Request) time.Duration {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return p.read
	}
	return p.write + time.Duration(req.ContentLength>>20)*time.Second
}

var defaultPatience = patience{body: 30 * time.Second, read: 60 * time.Second, write: 4 * time.Minute}

// errNoReply tells that the server was silent for too long.
var errNoReply = errors.New("no reply from the server in time")

// newTransport returns connections that fail rather than hang.
func newTransport(roots *x509.CertPool) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &conn{c}, nil
		},
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:   dialTimeout,
		MaxIdleConns:          maxIdleConns,
		MaxIdleConnsPerHost:   maxIdleConns,
		IdleConnTimeout:       idleConnTimeout,
		ExpectContinueTimeout: time.Second,
		// Bodies with a Content-Encoding are the user's and stay as they are.
		DisableCompression: true,
		// One connection for each request: HTTP/2 would share one, and its
		// flow control would slow parts down that could go side by side.
		ForceAttemptHTTP2: false,
		TLSNextProto:      map[string]func(string, *tls.Conn) http.RoundTripper{},
		WriteBufferSize:   64 << 10,
	}
}

// loadRoots returns the system's roots with those of caFile; nil for the
// system's alone.
func loadRoots(caFile string) (*x509.CertPool, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s holds no certificate in PEM form", caFile)
	}
	return roots, nil
}

// conn fails a write of which the server takes nothing for writeStall.
type conn struct{ net.Conn }

func (c *conn) Write(p []byte) (n int, err error) {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(p[n:])
		n += m
		if m == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// ReadFrom sends the body of a request. net/http comes here with what it limits
// to the length announced; without this it would copy the body once more, by
// 32 KiB. Over TLS the bytes are copied by being encrypted.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		if body, ok := l.R.(*sentBody); ok {
			n, err := body.sendTo(c, l.N)
			l.N -= n
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{c}, r)
}

// SyscallConn lets net/http look at the socket as it does without the wrap.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return sc.SyscallConn()
}

// httpClient is what requests are sent through. It never follows a
// redirect: the signature would not fit the new address.
type httpClient struct {
	transport *http.Transport
	patience  patience
}

// Do is exchange for the SDK.
func (c *httpClient) Do(req *http.Request) (*http.Response, error) {
	return c.exchange(req.Context(), req)
}

// exchange sends one request and ends it when no reply begins in time.
func (c *httpClient) exchange(ctx context.Context, req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.patience.reply(req), func() { cancel(&net.OpError{Op: "read", Net: "tcp", Err: errNoReply}) })
	resp, err := c.transport.RoundTrip(req.WithContext(ctx))
	if !timer.Stop() && err == nil {
		_ = resp.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errNoReply) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	if resp.Body == http.NoBody {
		cancel(nil)
	} else {
		resp.Body = &cancelBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, patient: c.patience.body}
	}
	return resp, nil
}

// cancelBody gives a reply up that stops arriving, and frees the request's
// context when it is done with.
type cancelBody struct {
	io.ReadCloser
	ctx     context.Context
	cancel  context.CancelCauseFunc
	stall   *time.Timer // nil before the first Read
	patient time.Duration
}

// Read is bounded by the patience for each call.
func (b *cancelBody) Read(p []byte) (int, error) {
	if b.stall == nil {
		b.stall = time.AfterFunc(b.patient, func() { b.cancel(&net.OpError{Op: "read", Net: "tcp", Err: errNoReply}) })
	} else {
		b.stall.Reset(b.patient)
	}
	n, err := b.ReadCloser.Read(p)
	b.stall.Stop()
	if cause := context.Cause(b.ctx); err != nil && err != io.EOF && errors.Is(cause, errNoReply) {
		err = cause
	}
	return n, err
}

// Close ends the exchange.
func (b *cancelBody) Close() error {
	if b.stall != nil {
		b.stall.Stop()
	}
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

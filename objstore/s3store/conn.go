package s3store

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxReplyHead bounds the headers of a reply in bytes, those of interim
	// replies included.
	maxReplyHead = 1 << 20
	// replyBuffer holds the headers of a reply, and all of a small one.
	replyBuffer = 8 << 10
	// sealedBuffer is how much of a body is read at once beneath TLS, which would
	// take a record of 16 KiB by each call: an eighth of what a body costs.
	sealedBuffer = 128 << 10
)

var (
	errReplyHead = fmt.Errorf("the headers of the reply exceed %d bytes", maxReplyHead)
	// errSwitched is a reply that nobody asked for.
	errSwitched = errors.New("the server switches to another protocol")
)

// wireConn is one HTTP/1.1 connection whose caller writes the request and reads
// the reply himself: one goroutine at a time uses it, and none belongs to it.
type wireConn struct {
	net.Conn // the socket; what is over it reads through Read below
	pool     *conns
	at       origin
	raw      syscall.RawConn
	rw       net.Conn // the wireConn itself, or TLS over it
	br       *bufio.Reader
	stop     func() bool // of the close that the end of the context brings
	since    time.Time   // when it was put by, for the pool

	// What Read does: look whether something is there, take a part of the
	// headers, or of a body.
	state  readState
	budget int // bytes that the headers may still have

	buf    *[]byte // of sealedBuffers, while a body is read over TLS
	sealed []byte  // of buf, what TLS has not taken yet
}

var sealedBuffers = sync.Pool{New: func() any { b := make([]byte, sealedBuffer); return &b }}

type readState int

const (
	lookingAhead readState = iota
	readingHead
	readingBody
)

// Read reads from the socket, beneath TLS.
func (c *wireConn) Read(p []byte) (n int, err error) {
	if len(c.sealed) > 0 {
		n = copy(p, c.sealed)
		c.sealed = c.sealed[n:]
		return n, nil
	}
	switch c.state {
	case lookingAhead:
		return c.readNow(p)
	case readingHead:
		if c.budget == 0 {
			return 0, errReplyHead
		}
		p = p[:min(len(p), c.budget)]
	default:
		if err := c.SetReadDeadline(time.Now().Add(c.pool.patience.body)); err != nil {
			return 0, err
		}
		if c.rw != net.Conn(c) {
			return c.readSealed(p)
		}
	}
	return c.receive(p)
}

// readSealed reads as much as there is, and hands on what fits into p.
func (c *wireConn) readSealed(p []byte) (int, error) {
	if c.buf == nil {
		c.buf = sealedBuffers.Get().(*[]byte)
	}
	n, err := c.receive(*c.buf)
	taken := copy(p, (*c.buf)[:n])
	c.sealed = (*c.buf)[taken:n]
	return taken, err
}

// receive waits for bytes until the read deadline.
func (c *wireConn) receive(p []byte) (n int, err error) {
	n, err = c.Conn.Read(p)
	c.budget -= n
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = &net.OpError{Op: "read", Net: "tcp", Err: errNoReply}
	}
	return n, err
}

// readNow reads what has arrived already, and times out at once without.
func (c *wireConn) readNow(p []byte) (n int, err error) {
	rerr := c.raw.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err == syscall.EAGAIN:
		return 0, os.ErrDeadlineExceeded // which TLS forgives
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// usable reports whether the server has neither closed an idle connection nor
// said something that nobody has asked for: that could be taken for the reply
// to the next request. It sets the read deadline.
func (c *wireConn) usable(until time.Time) bool {
	var one [1]byte
	if c.SetReadDeadline(until) != nil {
		return false
	}
	c.state = lookingAhead
	_, err := c.rw.Read(one[:])
	return err == os.ErrDeadlineExceeded
}

// roundTrip sends text, which is req, and reads the reply, which must begin before
// the read deadline. again tells of a failure that the request may be sent once
// more over another connection: nothing of it was sent, or it changes nothing and
// nothing came back.
func (c *wireConn) roundTrip(ctx context.Context, req *http.Request, text []byte) (resp *http.Response, again bool, err error) {
	c.stop = context.AfterFunc(ctx, func() { _ = c.rw.Close() })
	c.state, c.budget = readingHead, maxReplyHead
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	n, werr := c.rw.Write(text)
	if werr != nil {
		if n == 0 {
			return nil, true, c.fail(ctx, werr)
		}
		// A server may refuse what it has not read, and close: its reply is there.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}
	if _, err := c.br.Peek(1); err != nil {
		return nil, reads && !errors.Is(err, errNoReply), c.fail(ctx, cmp.Or(werr, err))
	}
	for resp == nil || resp.StatusCode/100 == 1 {
		if resp, err = http.ReadResponse(c.br, req); err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
			err = errSwitched
		}
		if err != nil {
			return nil, false, c.fail(ctx, err)
		}
	}
	c.state = readingBody
	last := resp.Close || werr != nil
	if resp.Body == http.NoBody {
		c.release(last)
	} else {
		resp.Body = &replyBody{src: resp.Body, ctx: ctx, c: c, last: last}
	}
	return resp, false, nil
}

// fail closes the connection and returns the error of the exchange: why its
// context ended, where that has closed it.
func (c *wireConn) fail(ctx context.Context, err error) error {
	c.stop()
	_ = c.rw.Close()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// replyBody is the body of a reply. Its connection goes back to the pool at the
// end of it and is closed when the reader stops before.
type replyBody struct {
	src  io.Reader
	ctx  context.Context
	c    *wireConn
	last bool  // the server has closed the connection, or will
	err  error // of every later Read; not nil once the connection is given away
}

// Read fails when the server is silent for too long.
func (b *replyBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		b.err = io.EOF
		b.c.release(b.last)
	case err != nil:
		b.err = b.c.fail(b.ctx, err)
	}
	return n, b.err
}

// Close never fails.
func (b *replyBody) Close() error {
	if b.err == nil {
		b.err = http.ErrBodyReadAfterClose
		_ = b.c.fail(b.ctx, b.err)
	}
	return nil
}

// release ends an exchange whose reply is complete.
func (c *wireConn) release(last bool) {
	if c.buf != nil && len(c.sealed) == 0 {
		sealedBuffers.Put(c.buf)
		c.buf = nil
	}
	if !c.stop() || last || c.br.Buffered() > 0 || !c.pool.put(c) {
		_ = c.rw.Close()
	}
}

// appendRequest appends the head of req as it is sent.
func appendRequest(b []byte, req *http.Request) ([]byte, error) {
	target := req.URL.RequestURI()
	if !isText(target+req.Host) || strings.Contains(target, " ") {
		return nil, fmt.Errorf("%q cannot be asked for", target)
	}
	b = append(append(append(b, req.Method...), ' '), target...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), req.Host...), "\r\n"...)
	for name, values := range req.Header {
		for _, v := range values {
			if !isName(name) || !isText(v) {
				return nil, fmt.Errorf("the header %q has a character that no header may have", name)
			}
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	if req.ContentLength > 0 || req.Method == http.MethodPut || req.Method == http.MethodPost {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), req.ContentLength, 10), "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// isText reports whether v can stand in a line of its own.
func isText(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isName reports whether v is what RFC 9110 calls a token.
func isName(v string) bool {
	for i := range len(v) {
		if c := v[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return v != ""
}

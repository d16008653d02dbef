package s3store

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// conns sends the wire's small requests over connections of its own, made as
// the transport's. net/http gives each connection two goroutines and hands every
// request and its reply from one to the other, which is a third of what a HEAD
// costs. Safe for concurrent use.
type conns struct {
	transport *http.Transport
	patience  patience

	mu     sync.Mutex
	idle   map[origin][]*wireConn // those used last are at the end, and are taken first
	count  int                    // of all that are idle
	sweep  *time.Timer            // closes old ones; nil while there are none
	closed bool
}

// origin is where a connection leads.
type origin struct{ scheme, host string }

func newConns(t *http.Transport, p patience) *conns {
	return &conns{transport: t, patience: p, idle: map[origin][]*wireConn{}}
}

// takes reports whether a request can go this way: a proxy, a zone or a name
// that is not ASCII is for net/http.
func (p *conns) takes(req *http.Request) bool {
	proxy, err := p.transport.Proxy(req)
	return proxy == nil && err == nil && !strings.ContainsFunc(req.URL.Host, func(r rune) bool { return r >= 0x80 || r == '%' })
}

// requestText are buffers for what is sent. They have room for the largest body
// that goes out in one write, and usual headers.
var requestText = sync.Pool{New: func() any { b := make([]byte, 0, inOneWrite+8<<10); return &b }}

// exchange sends one request, with all of its body in one write, and ends it
// when no reply begins in time.
func (p *conns) exchange(ctx context.Context, req *http.Request) (*http.Response, error) {
	buf := requestText.Get().(*[]byte)
	defer requestText.Put(buf)
	text, err := appendRequest((*buf)[:0], req)
	if err != nil {
		return nil, err
	}
	if n := int(req.ContentLength); n > 0 {
		head := len(text)
		text = slices.Grow(text, n)[:head+n]
		if _, err := io.ReadFull(req.Body, text[head:]); err != nil {
			return nil, err
		}
	}
	*buf = text
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // a connection is closed a moment after that
	}
	until := time.Now().Add(p.patience.reply(req))
	c := p.take(origin{req.URL.Scheme, req.URL.Host}, until)
	for {
		fresh := c == nil
		if fresh {
			if c, err = p.dial(ctx, req.URL, until); err != nil {
				return nil, err
			}
		}
		resp, again, err := c.roundTrip(ctx, req, text)
		if err == nil || fresh || !again || ctx.Err() != nil {
			return resp, err
		}
		c = nil
	}
}

// take returns the connection that was used last, nil without one that is still
// good.
func (p *conns) take(at origin, until time.Time) *wireConn {
	for {
		p.mu.Lock()
		stack := p.idle[at]
		if len(stack) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := stack[len(stack)-1]
		p.idle[at] = slices.Delete(stack, len(stack)-1, len(stack))
		p.count--
		p.mu.Unlock()
		if c.usable(until) {
			return c
		}
		_ = c.rw.Close()
	}
}

// put keeps c for the next request, if there is room for it.
func (p *conns) put(c *wireConn) bool {
	c.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.count >= p.transport.MaxIdleConns {
		return false
	}
	if p.sweep == nil {
		p.sweep = time.AfterFunc(p.transport.IdleConnTimeout, p.closeOld)
	}
	p.idle[c.at] = append(p.idle[c.at], c)
	p.count++
	return true
}

// closeOld closes what has not been used for the time that it may be idle, and
// comes back for the rest.
func (p *conns) closeOld() {
	now := time.Now()
	var old []*wireConn
	p.mu.Lock()
	oldest := now
	for at, stack := range p.idle {
		n := 0
		for n < len(stack) && now.Sub(stack[n].since) >= p.transport.IdleConnTimeout {
			n++
		}
		old = append(old, stack[:n]...)
		if p.idle[at] = slices.Delete(stack, 0, n); n < len(stack) && stack[0].since.Before(oldest) {
			oldest = stack[0].since
		}
	}
	p.count -= len(old)
	switch {
	case p.closed:
	case p.count == 0:
		p.sweep = nil
	default:
		p.sweep.Reset(p.transport.IdleConnTimeout - now.Sub(oldest))
	}
	p.mu.Unlock()
	for _, c := range old {
		_ = c.rw.Close()
	}
}

// close closes what is idle, and what is under way once that is done.
func (p *conns) close() {
	p.mu.Lock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	idle := p.idle
	p.idle, p.count = nil, 0
	p.mu.Unlock()
	for _, stack := range idle {
		for _, c := range stack {
			_ = c.rw.Close()
		}
	}
}

// dial makes a connection to where u leads, with the read deadline until.
func (p *conns) dial(ctx context.Context, u *url.URL, until time.Time) (*wireConn, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	socket, err := p.transport.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	c := &wireConn{Conn: socket, pool: p, at: origin{u.Scheme, u.Host}}
	c.rw = c
	if c.raw, err = socket.(syscall.Conn).SyscallConn(); err == nil && u.Scheme == "https" {
		c.rw, err = p.handshake(ctx, c, u.Hostname())
	}
	if err == nil {
		err = c.SetReadDeadline(until)
	}
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	c.br = bufio.NewReaderSize(c.rw, replyBuffer)
	return c, nil
}

// handshake puts TLS over c.
func (p *conns) handshake(ctx context.Context, c *wireConn, name string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.transport.TLSHandshakeTimeout)
	defer cancel()
	cfg := p.transport.TLSClientConfig.Clone()
	cfg.ServerName = name
	c.state = readingHead
	c.budget = maxReplyHead
	over := tls.Client(c, cfg)
	return over, over.HandshakeContext(ctx)
}
